package keystore_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// A token that somebody in the process is logged in to takes any PIN. Who must
// know that a PIN is right is refused rather than let in.
func TestProvePIN(t *testing.T) {
	u := tokentest.NewToken(t, &modules)
	prove := func(pin string) error {
		o := tokentest.Options(u)
		o.ProvePIN, o.PIN = true, func() (string, error) { return pin, nil }
		tok, err := keystore.Open(patient(t), &modules, o)
		if err != nil {
			return err
		}
		// More sessions than the first need no further proof.
		seal(t, generate(t, tok, "k-"+u.Token, both), "p", "")
		if err := tok.DestroyKey(patient(t), "k-"+u.Token, 1); err != nil {
			t.Error(err)
		}
		return tok.Close(patient(t))
	}
	if err := prove(tokentest.PIN); err != nil {
		t.Error("nobody else is logged in:", err)
	}
	if err := prove("a wrong PIN"); !errors.Is(err, keystore.ErrPINIncorrect) || errors.Is(err, keystore.ErrPINLocked) {
		t.Error("wrong PIN:", err)
	}
	other := tokentest.Open(t, &modules, tokentest.Options(u))
	for _, pin := range []string{tokentest.PIN, "a wrong PIN"} {
		if err := prove(pin); !errors.Is(err, keystore.ErrLoggedIn) {
			t.Error("somebody else is logged in:", err)
		}
	}
	if err := other.Close(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := prove(tokentest.PIN); err != nil {
		t.Error("nobody is logged in any more:", err)
	}
}

func TestLockedPIN(t *testing.T) {
	m := tokentest.NewFaulty(t)
	o := tokentest.Options(m.Token(t, &modules))
	m.Set(t, "fail C_Login 0xa4")
	_, err := keystore.Open(patient(t), &modules, o)
	if !errors.Is(err, keystore.ErrPINIncorrect) || !errors.Is(err, keystore.ErrPINLocked) {
		t.Error(err)
	}
}

// A PIN that cannot be read puts the token out of service, as whatever keeps it from
// being logged in to, until it can be read again.
func TestPINCannotBeRead(t *testing.T) {
	var lost atomic.Bool
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), func(o *keystore.Options) {
		o.PIN = func() (string, error) {
			if lost.Load() {
				return "", errors.New("the file is gone")
			}
			return tokentest.PIN, nil
		}
	})
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	lost.Store(true)
	m.Set(t, "lose-sessions 1")
	eventually(t, "the token is given up", func() bool { w.check(patient(t), t, tok); return !tok.Available() })
	lost.Store(false)
	eventually(t, "the token is back", tok.Available)
	if !w.check(patient(t), t, tok) {
		t.Error("it does not serve")
	}
}

// That the PIN is refused after the token was away is what callers are told from then
// on, and it is not tried again.
func TestPINRefusedAfterAnOutage(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	kill(t, m, k, tok, "dead CKR_DEVICE_REMOVED")
	logins := m.Count(t, "C_Login")
	m.Set(t, "lose-sessions 1", "fail C_Login 0xa0")
	eventually(t, "callers are told", func() bool {
		_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
		return errors.Is(err, keystore.ErrPINIncorrect)
	})
	opened := m.Count(t, "C_OpenSession")
	eventually(t, "the token was tried again and again", func() bool { return m.Count(t, "C_OpenSession") > opened+5 })
	if n := m.Count(t, "C_Login") - logins; n != 1 {
		t.Errorf("the PIN was tried %d times", n)
	}
	m.Set(t)
	tok.RetryPIN()
	eventually(t, "the token is back", tok.Available)
}
