package keystore_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// remembering returns modules that remember refused PINs in a file, and its path.
func remembering(t *testing.T) (*keystore.Modules, string) {
	path := filepath.Join(t.TempDir(), "refused-pins.json")
	return &keystore.Modules{Command: modules.Command, RefusedPINs: path}, path
}

// bothWays runs a test with the module in this process and in one of its own, where
// the PIN is read from a file that write writes.
func bothWays(t *testing.T, test func(t *testing.T, o keystore.Options, write func(pin string))) {
	for name, isolated := range map[string]bool{"here": false, "in a child": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(pin string) {
				if err := os.WriteFile(filepath.Join(dir, "pin"), []byte(pin+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(tokentest.PIN)
			o := tokentest.Options(keystore.URI{PINSource: "file:pin"})
			o.PIN = func() (string, error) { return keystore.URI{PINSource: "file:pin"}.PIN(dir, false) }
			o.Isolated, o.PINFrom = isolated, &keystore.PINFromURI{Dir: dir}
			test(t, o, write)
		})
	}
}

const (
	countLow = "token-flags 0x10000"
	lastTry  = "token-flags 0x20000"
	locked   = "token-flags 0x40000"
)

// What a token's flags say of the PIN is believed before it is tried.
func TestPINFlags(t *testing.T) {
	bothWays(t, func(t *testing.T, o keystore.Options, _ func(string)) {
		ms, _ := remembering(t)
		m := tokentest.NewFaulty(t)
		u := m.Token(t, ms)
		o.URI.Token, o.URI.ModulePath = u.Token, u.ModulePath
		for flags, want := range map[string]error{locked: keystore.ErrPINLocked, lastTry: keystore.ErrPINLastTry, countLow: nil, "": nil} {
			m.Set(t, flags)
			before := m.Count(t, "C_Login")
			tok, err := keystore.Open(patient(t), ms, o)
			if !errors.Is(err, want) || want != nil && !errors.Is(err, keystore.ErrPINIncorrect) || keystore.MayPass(err) {
				t.Errorf("%s: %v", flags, err)
			}
			if err == nil {
				if err := tok.Close(patient(t)); err != nil {
					t.Error(err)
				}
			}
			if logins := m.Count(t, "C_Login") - before; (logins == 0) != (want != nil) {
				t.Errorf("%s: %d logins", flags, logins)
			}
		}
	})
}

// A PIN that was refused is not tried again after a restart, nor by a command, while
// the token counts; another one is.
func TestRefusedPINIsRemembered(t *testing.T) {
	bothWays(t, func(t *testing.T, o keystore.Options, write func(string)) {
		ms, path := remembering(t)
		m := tokentest.NewFaulty(t)
		u := m.Token(t, ms)
		o.URI.Token, o.URI.ModulePath = u.Token, u.ModulePath
		try := func(flags string) (logins int, err error) {
			m.Set(t, flags)
			before := m.Count(t, "C_Login")
			// Each time as in a new process.
			again := &keystore.Modules{Command: ms.Command, RefusedPINs: path}
			tok, err := keystore.Open(patient(t), again, o)
			if err == nil {
				err = tok.Close(patient(t))
			}
			return m.Count(t, "C_Login") - before, err
		}
		for _, wrong := range []string{"wrong-pin-one", "wrong-pin-two"} {
			write(wrong)
			if n, err := try(countLow); n != 1 || !errors.Is(err, keystore.ErrPINIncorrect) || errors.Is(err, keystore.ErrPINUnchanged) {
				t.Errorf("%s, for the first time: %d logins, %v", wrong, n, err)
			}
		}
		for _, wrong := range []string{"wrong-pin-one", "wrong-pin-two"} {
			write(wrong)
			if n, err := try(countLow); n != 0 || !errors.Is(err, keystore.ErrPINUnchanged) || !errors.Is(err, keystore.ErrPINIncorrect) {
				t.Errorf("%s again: %d logins, %v", wrong, n, err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil || bytes.Contains(text, []byte("wrong-pin")) {
			t.Errorf("%v, the file is %s", err, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		write(tokentest.PIN)
		if n, err := try(countLow); n != 1 || err != nil {
			t.Errorf("another PIN: %d logins, %v", n, err)
		}
		// The token has taken a PIN: what was refused before may be right one day.
		if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte(u.Token)) || bytes.Contains(text, []byte("salt")) {
			t.Errorf("%v, the file is %s", err, text)
		}
		write("wrong-pin-one")
		if n, err := try(countLow); n != 1 || errors.Is(err, keystore.ErrPINUnchanged) {
			t.Errorf("after the right one: %d logins, %v", n, err)
		}
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		write(tokentest.PIN)
		if n, err := try(countLow); n != 0 || err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a damaged file: %d logins, %v", n, err)
		}
	})
}

// An open token that loses its login obeys the flags as well, and is back by itself
// once they are gone.
func TestPINFlagsWhileOpen(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	for i, flags := range []string{locked, lastTry} {
		before := m.Count(t, "C_Login")
		m.Set(t, fmt.Sprintf("lose-sessions %d", i+1), flags)
		eventually(t, "callers are told", func() bool {
			_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
			return errors.Is(err, keystore.ErrPINIncorrect) && !tok.Available()
		})
		opened := m.Count(t, "C_OpenSession")
		eventually(t, "the token was tried again and again", func() bool { return m.Count(t, "C_OpenSession") > opened+5 })
		if n := m.Count(t, "C_Login") - before; n != 0 {
			t.Errorf("%s: the PIN was tried %d times", flags, n)
		}
		m.Set(t, fmt.Sprintf("lose-sessions %d", i+1))
		eventually(t, "the token is back", tok.Available)
		seal(t, k, "p", "")
	}
}

// A PIN that has expired waits for somebody who says that there is another.
func TestExpiredPIN(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	before := m.Count(t, "C_Login")
	m.Set(t, "lose-sessions 1", "fail C_Login CKR_PIN_EXPIRED")
	eventually(t, "callers are told", func() bool {
		_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
		return errors.Is(err, keystore.ErrPINExpired) && errors.Is(err, keystore.ErrPINIncorrect) && !tok.Available()
	})
	opened := m.Count(t, "C_OpenSession")
	eventually(t, "the token was tried again and again", func() bool { return m.Count(t, "C_OpenSession") > opened+5 })
	if n := m.Count(t, "C_Login") - before; n != 1 {
		t.Errorf("the PIN was tried %d times", n)
	}
	m.Set(t, "lose-sessions 1")
	tok.RetryPIN()
	eventually(t, "the token is back", tok.Available)
}

// A key pair of a listener is opened by another library, which looks at no flags.
func TestKeyPairPIN(t *testing.T) {
	ms, _ := remembering(t)
	m := tokentest.NewFaulty(t)
	u := m.Token(t, ms)
	u.Object = "tls"
	pin := tokentest.PIN
	open := func() (logins int, err error) {
		before := m.Count(t, "C_Login")
		pair, err := ms.GenerateKeyPair(u, func() (string, error) { return pin, nil }, keystore.ECDSAP256)
		if err == nil {
			err = pair.Close()
		}
		return m.Count(t, "C_Login") - before, err
	}
	for flags, want := range map[string]error{locked: keystore.ErrPINLocked, lastTry: keystore.ErrPINLastTry} {
		m.Set(t, flags)
		if n, err := open(); n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d logins, %v", flags, n, err)
		}
	}
	m.Set(t, countLow)
	pin = "a wrong PIN"
	if n, err := open(); n != 1 || !errors.Is(err, keystore.ErrPINIncorrect) {
		t.Errorf("a wrong PIN: %d logins, %v", n, err)
	}
	if n, err := open(); n != 0 || !errors.Is(err, keystore.ErrPINUnchanged) {
		t.Errorf("the same again: %d logins, %v", n, err)
	}
	pin = tokentest.PIN
	if n, err := open(); n == 0 || err != nil {
		t.Errorf("the right one: %d logins, %v", n, err)
	}
}

// What a token says of PINs is looked at before it is initialized: afterwards it would
// be one that nobody can log in to.
func TestInitTokenPINs(t *testing.T) {
	m := tokentest.NewFaulty(t)
	for _, test := range []struct {
		behaviour, officer, user string
		want                     string
		refused                  error
	}{
		{"pin-lengths 4 8", "87654321", "123456789", "user PIN has 9 bytes, and the token takes PINs of 4 to 8", nil},
		{"pin-lengths 4 8", "876543210", "1234", "security officer's PIN has 9 bytes", nil},
		{"pin-lengths 6 8", "87654321", "12345", "user PIN has 5 bytes", nil},
		{"fail C_InitToken CKR_PIN_INCORRECT", "12345678", "12345678", "87654321 at first", keystore.ErrPINIncorrect},
		{"fail C_InitToken CKR_PIN_LOCKED", "12345678", "12345678", "security officer's PIN", keystore.ErrPINLocked},
	} {
		m.Set(t, test.behaviour)
		before := m.Count(t, "C_InitToken")
		_, err := new(keystore.Modules).InitToken(m.Path, "", "new", test.officer, test.user)
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.refused) && test.refused != nil {
			t.Errorf("%s: %v", test.behaviour, err)
		}
		if n := m.Count(t, "C_InitToken") - before; n != 0 && !strings.HasPrefix(test.behaviour, "fail") {
			t.Errorf("%s: the token was initialized %d times", test.behaviour, n)
		}
	}
	// A token that lacks its user PIN alone, as after a kill.
	label := "half-" + rand.Text()[:8]
	m.Set(t, "fail C_InitPIN CKR_DEVICE_ERROR")
	if _, err := new(keystore.Modules).InitToken(m.Path, "", label, "87654321", "12345678"); err == nil {
		t.Error("the user's PIN was set")
	}
	for flags, want := range map[string]error{"token-flags 0x400000": keystore.ErrPINLocked, "token-flags 0x200000": keystore.ErrPINLastTry} {
		m.Set(t, flags)
		before := m.Count(t, "C_Login")
		_, err := new(keystore.Modules).InitToken(m.Path, "", label, "87654321", "12345678")
		if n := m.Count(t, "C_Login") - before; n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d logins, %v", flags, n, err)
		}
	}
	// Lengths that contradict each other say nothing.
	m.Set(t, "pin-lengths 9 8")
	if _, err := new(keystore.Modules).InitToken(m.Path, "", "odd-"+rand.Text()[:8], "87654321", "1234"); err != nil {
		t.Error(err)
	}
}
