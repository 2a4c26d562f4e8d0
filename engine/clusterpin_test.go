package engine_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// The password of a custom key store is a PIN like any other: a token that says so is
// not logged in to, and one that was refused is not tried again after a restart.
func TestClusterPINFlags(t *testing.T) {
	m := tokentest.NewFaulty(t)
	refused := filepath.Join(t.TempDir(), "refused-pins.json")
	options := tokentest.Options(m.Token(t, new(keystore.Modules)))
	open := func(password string) (logins int, err error) {
		before := m.Count(t, "C_Login")
		cluster := engine.NewCluster(&keystore.Modules{RefusedPINs: refused}, options, keystore.VaultOptions{Name: "store"}, "")
		token, vault, err := cluster.Open(t.Context(), func() (string, error) { return password, nil })
		if err == nil {
			err = errors.Join(vault.Close(), token.Close(t.Context()))
		}
		return m.Count(t, "C_Login") - before, err
	}
	for flags, want := range map[string]error{"token-flags 0x40000": keystore.ErrPINLocked, "token-flags 0x20000": keystore.ErrPINLastTry} {
		m.Set(t, flags)
		if n, err := open(tokentest.PIN); n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d logins, %v", flags, n, err)
		}
	}
	m.Set(t, "token-flags 0x10000")
	if n, err := open("a wrong password"); n != 1 || !errors.Is(err, keystore.ErrPINIncorrect) {
		t.Errorf("a wrong password: %d logins, %v", n, err)
	}
	if n, err := open("a wrong password"); n != 0 || !errors.Is(err, keystore.ErrPINUnchanged) {
		t.Errorf("the same again: %d logins, %v", n, err)
	}
	if n, err := open(tokentest.PIN); n == 0 || err != nil {
		t.Errorf("the right one: %d logins, %v", n, err)
	}
}
