package keystore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// A wrong PIN is tried once, however many ask: tokens lock themselves.
func TestWrongPINIsTriedOnce(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4))
	k := generate(t, tok, "k", both)
	before := m.Count(t, "C_Login")
	// As if the PIN had been changed while the token was away.
	m.Set(t, "lose-sessions 1", "fail C_Login 0xa0")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrPINIncorrect) {
				t.Errorf("encrypt: %v", err)
			}
		})
	}
	wg.Wait()
	logins := func() int { return m.Count(t, "C_Login") - before }
	if n := logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
	// While the token is out of service for it, too, and until somebody says that
	// the PIN is another.
	eventually(t, "the token is out of service", func() bool { return !tok.Available() })
	m.Set(t)
	if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrPINIncorrect) || logins() != 1 {
		t.Errorf("encrypt: %v after %d logins", err, logins())
	}
	tok.RetryPIN()
	eventually(t, "the token is back", tok.Available)
	seal(t, k, "p", "")
}

// What the token has lost already needs no closing.
func TestCloseAfterSessionsAreLost(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(2))
	seal(t, generate(t, tok, "k", both), "p", "")
	m.Set(t, "lose-sessions 1")
	if err := tok.Close(patient(t)); err != nil {
		t.Error(err)
	}
}

func TestSessionIsLostBeforeLogin(t *testing.T) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	m.Set(t, "fail C_GetSessionInfo 0xb3 count 1")
	tok := tokentest.Open(t, &modules, tokentest.Options(u))
	if n := m.Count(t, tokentest.OpenSessions); n != 1 {
		t.Errorf("%d sessions are open", n)
	}
	seal(t, generate(t, tok, "k", both), "p", "")
}

func TestOpenWithWrongPIN(t *testing.T) {
	m := tokentest.NewFaulty(t)
	o := tokentest.Options(m.Token(t, &modules))
	o.PIN = func() (string, error) { return "a wrong PIN", nil }
	if _, err := keystore.Open(patient(t), &modules, o); !errors.Is(err, keystore.ErrPINIncorrect) {
		t.Error(err)
	}
	if logins, finalized := m.Count(t, "C_Login"), m.Count(t, "C_Finalize"); logins != 1 || finalized != 1 {
		t.Errorf("%d logins, finalized %d times", logins, finalized)
	}
}

// Requests for ids that nobody knows must not make the token search each time.
func TestUnknownIDsAreCheap(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	generate(t, tok, "k", both)
	before := m.Count(t, "C_FindObjectsInit")
	for i := range 1000 {
		if _, err := tok.Find(patient(t), fmt.Sprintf("unknown-%d", i)); !errors.Is(err, keystore.ErrKeyNotFound) {
			t.Fatal(err)
		}
	}
	if n := m.Count(t, "C_FindObjectsInit") - before; n > 10 {
		t.Errorf("%d searches", n)
	}
	u.ModulePath = tokentest.Module(t)
	foreign(t, u, "made-elsewhere", "01")
	eventually(t, "a key of another process is found", func() bool {
		_, err := tok.Find(patient(t), "made-elsewhere")
		return err == nil
	})
}

// A key that another program has just made is found at the first request for it, also
// if others were searched for a moment before and searches take long.
func TestNewKeyIsFoundAtOnce(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	m.Set(t, "delay C_FindObjects 50")
	another := tokentest.Open(t, &modules, tokentest.Options(u))
	for i := range 2 {
		if _, err := tok.Find(patient(t), fmt.Sprintf("unknown-%d", i)); !errors.Is(err, keystore.ErrKeyNotFound) {
			t.Fatal(err)
		}
		id := fmt.Sprintf("new-%d", i)
		generate(t, another, id, both)
		if _, err := tok.Find(patient(t), id); err != nil {
			t.Error(err)
		}
	}
}

func TestSessionLimit(t *testing.T) {
	for _, c := range []struct {
		token                 uint64
		configured, pool, all int // all: with the copy keeper's, an administrator's and a vault's
	}{
		{0, 5, 5, 7}, {8, 16, 5, 8}, {3, 16, 1, 3}, {2, 16, 1, 2},
		{1<<64 - 2, 5, 5, 7}, {1<<64 - 1, 5, 5, 7}, {1 << 63, 5, 5, 7}, {1 << 32, 5, 5, 7}, // no limit, by some
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			behaviours := []string{fmt.Sprintf("max-sessions %d", c.token)}
			tok, m, _ := newFaulty(t, "softhsm2", behaviours, sessions(c.configured))
			k := generate(t, tok, "k", both)
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for range 30 {
						seal(t, k, "p", "")
					}
				})
			}
			wg.Go(func() {
				for range 3 {
					if _, err := tok.RotateKey(patient(t), "k"); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Wait()
			if s := tok.Stats(); s.SessionLimit != c.pool || s.Sessions > c.pool {
				t.Errorf("%+v", s)
			}
			if n := m.Count(t, tokentest.PeakSessions); n > c.all {
				t.Errorf("%d sessions at once", n)
			}
			if n := m.Count(t, "C_Login"); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// Tokens of one module share it, tokens of another have nothing to do with it.
func TestSeveralTokensAndModules(t *testing.T) {
	m, other := tokentest.NewFaulty(t), tokentest.NewFaulty(t)
	open := func(u keystore.URI) (*keystore.Token, *keystore.Key) {
		tok, err := keystore.Open(patient(t), &modules, tokentest.Options(u))
		if err != nil {
			t.Fatal(err)
		}
		return tok, generate(t, tok, "k", both)
	}
	first, second := m.Token(t, &modules), m.Token(t, &modules) // before the module looks for tokens
	one, k1 := open(first)
	two, k2 := open(second)
	far, k3 := open(other.Token(t, &modules))
	s := seal(t, k1, "p", "")
	for _, k := range []*keystore.Key{k2, k3} {
		if _, err := k.Decrypt(patient(t), 1, s, nil); !errors.Is(err, keystore.ErrInvalidCiphertext) {
			t.Errorf("another token's key of the same id: %v", err)
		}
	}
	finalized := func(want, wantOther int) {
		t.Helper()
		if a, b := m.Count(t, "C_Finalize"), other.Count(t, "C_Finalize"); a != want || b != wantOther {
			t.Errorf("finalized %d and %d times", a, b)
		}
	}
	closeToken := func(tok *keystore.Token) {
		t.Helper()
		if err := tok.Close(patient(t)); err != nil {
			t.Error(err)
		}
	}
	closeToken(one)
	finalized(0, 0)
	seal(t, k2, "p", "")
	closeToken(far)
	finalized(0, 1)
	seal(t, k2, "p", "")
	closeToken(two)
	finalized(1, 1)
	if n := m.Count(t, "C_Initialize"); n != 1 {
		t.Errorf("initialized %d times", n)
	}
}

func TestNothingIsLeft(t *testing.T) {
	others := goleak.IgnoreCurrent() // of tests before this one
	m := tokentest.NewFaulty(t)
	o := tokentest.Options(m.Token(t, &modules))
	o.Background, o.Sessions = true, 4
	tok, err := keystore.Open(patient(t), &modules, o)
	if err != nil {
		t.Fatal(err)
	}
	k := generate(t, tok, "k", both)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				seal(t, k, "p", "")
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(patient(t))
	cancel()
	_, _ = k.Encrypt(ctx, 1, []byte("p"), nil) // abandoned or not, it leaves nothing
	if n := m.Count(t, tokentest.PeakSessions); n > 4+2 {
		t.Errorf("%d sessions at once", n)
	}
	if err := tok.Close(patient(t)); err != nil {
		t.Error(err)
	}
	if n := m.Count(t, tokentest.OpenSessions); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
	goleak.VerifyNone(t, others)
}

func TestHealth(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	if h := tok.Health(); h.State != keystore.Unavailable || !h.Checked.IsZero() {
		t.Errorf("before the first probe: %+v", h)
	}
	probe := func(when string, want keystore.HealthState) {
		t.Helper()
		h := tok.Probe(patient(t))
		if h.State != want || (h.Reason == "") != (want == keystore.Active) || tok.Health() != h {
			t.Errorf("%s: %+v", when, h)
		}
	}
	made := func(when string, want int) {
		t.Helper()
		if n := m.Count(t, "C_GenerateKey"); n != want {
			t.Errorf("%s: %d keys were made", when, n)
		}
	}
	probe("at first", keystore.Active)
	probe("again", keystore.Active)
	made("in two probes", 1)
	if keys, err := tok.Keys(patient(t)); err != nil || len(keys) != 0 {
		t.Errorf("the probe key is listed: %v %v", keys, err)
	}
	m.Set(t, "renumber 1")
	probe("by a session key", keystore.Active)
	probe("after a restart", keystore.Active)
	made("after a restart", 2)
	u.ModulePath = tokentest.Module(t)
	tool(t, u, "--delete-object", "--type", "secrkey", "--label", "hyok.probe")
	probe("by a session key", keystore.Active)
	probe("after the probe key was deleted", keystore.Active)
	made("after the probe key was deleted", 4)

	k := generate(t, tok, "k", both)
	m.Set(t, "fail C_EncryptInit 0x30 count 2")
	if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); err == nil {
		t.Error("a failing token encrypted")
	}
	probe("after a failure", keystore.Degraded)
	probe("and later", keystore.Active)
	m.Set(t, "fail C_Decrypt 0x5")
	probe("while sick", keystore.Unavailable)
	m.Set(t)
	probe("well again", keystore.Active)
}

func TestSlowTokenIsDegraded(t *testing.T) {
	tok, _ := newToken(t, func(o *keystore.Options) { o.SlowProbe = time.Nanosecond })
	if h := tok.Probe(patient(t)); h.State != keystore.Degraded || h.Latency <= 0 || h.Reason == "" {
		t.Errorf("%+v", h)
	}
}

func TestHealthWithoutProbeKey(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", []string{"no-token-keys 0x7"})
	for range 2 {
		if h := tok.Probe(patient(t)); h.State == keystore.Unavailable {
			t.Errorf("%+v", h)
		}
	}
	if made, gone := m.Count(t, "C_CreateObject")+2, m.Count(t, "C_DestroyObject"); made != gone {
		t.Errorf("%d of the session keys were destroyed", gone)
	}
}

// The listener's key pair is opened before the tokens of its module and closed
// after them.
func TestKeyPairs(t *testing.T) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	pin := func() (string, error) { return tokentest.PIN, nil }
	for _, kind := range []keystore.KeyPairKind{keystore.ECDSAP256, keystore.ECDSAP384, keystore.RSA2048} {
		pair := u
		pair.Object = string(kind)
		made, err := modules.GenerateKeyPair(pair, pin, kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := modules.GenerateKeyPair(pair, pin, kind); !errors.Is(err, keystore.ErrKeyExists) {
			t.Errorf("%s twice: %v", kind, err)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
		opened, err := modules.OpenKeyPair(pair, pin)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := keystore.Open(patient(t), &modules, tokentest.Options(u))
		if err != nil {
			t.Fatal(err)
		}
		generate(t, tok, "k-"+string(kind), both)
		verifySignature(t, opened)
		if err := tok.Close(patient(t)); err != nil {
			t.Error(err)
		}
		verifySignature(t, opened)
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}
	absent := u
	absent.Object = "absent"
	if _, err := modules.OpenKeyPair(absent, pin); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Error(err)
	}
	if _, err := modules.OpenKeyPair(u, pin); err == nil {
		t.Error("a URI without an object names a key pair")
	}
	if out, err := exec.Command("pkcs11-tool", "--module", tokentest.Module(t), "--token-label", u.Token, "--list-objects").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func verifySignature(t *testing.T, pair *keystore.KeyPair) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	sig, err := pair.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	switch public := pair.Public().(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(public, digest[:], sig) {
			t.Error("the ECDSA signature is wrong")
		}
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], sig); err != nil {
			t.Error(err)
		}
	default:
		t.Errorf("public key of type %T", public)
	}
}

// SoftHSM2 forgets what another program has changed when it makes an object itself:
// a key must be found all the same.
func TestNewKeyIsFoundAfterAnOwnChange(t *testing.T) {
	for made, spec := range map[string]keystore.Spec{"generated": keystore.SpecAES256, "copied": keystore.SpecRSA2048} {
		t.Run(made, func(t *testing.T) {
			v, tok, u := newVault(t)
			foreign(t, u, "made-elsewhere", "01")
			if _, err := v.GenerateResident(patient(t), "a", spec); err != nil {
				t.Fatal(err)
			}
			if _, err := tok.Find(patient(t), "made-elsewhere"); err != nil {
				t.Error(err)
			}
		})
	}
}
