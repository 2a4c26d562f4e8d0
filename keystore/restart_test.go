package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// noticesLate are libraries that find a token again only after C_Initialize.
func noticesLate() map[string]string {
	return map[string]string{
		"device removed": "dead CKR_DEVICE_REMOVED until-initialize",
		"device error":   "dead CKR_DEVICE_ERROR until-initialize",
		"no token":       "dead CKR_DEVICE_REMOVED absent until-initialize",
		"no slot":        "dead CKR_SESSION_HANDLE_INVALID slot-absent until-initialize",
		"sessions":       "dead CKR_SESSION_HANDLE_INVALID until-initialize",
	}
}

// kill has a token die, and waits until nobody is let to it.
func kill(t *testing.T, m *tokentest.Faulty, k *keystore.Key, tok *keystore.Token, behaviours ...string) {
	t.Helper()
	m.Set(t, behaviours...)
	eventually(t, "the token is given up", func() bool {
		if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); err == nil {
			t.Error("a dead token encrypts")
		}
		return !tok.Available()
	})
}

// A token whose library notices only after C_Initialize that it came back does so
// by itself.
func TestReinitialize(t *testing.T) { isolations(t, testReinitialize) }

func testReinitialize(t *testing.T, isolation func(*keystore.Options)) {
	for name, dead := range noticesLate() {
		t.Run(name, func(t *testing.T) {
			tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
			k := generate(t, tok, "k", both)
			w := newWitness(t, u)
			for range 2 {
				before := tok.Stats().Resets
				kill(t, m, k, tok, dead)
				m.Set(t)
				eventually(t, "the token is back", tok.Available)
				if tok.Stats().Resets == before {
					t.Error("it came back without C_Initialize")
				}
				if !w.check(patient(t), t, tok) {
					t.Error("it does not serve")
				}
			}
		})
	}
}

// twins opens two tokens of one module, each with a key.
func twins(t *testing.T) (m *tokentest.Faulty, tokens [2]*keystore.Token, keys [2]*keystore.Key) {
	t.Helper()
	m = tokentest.NewFaulty(t)
	uris := [2]keystore.URI{m.Token(t, &modules), m.Token(t, &modules)}
	for i, u := range uris {
		o := tokentest.Options(u)
		o.Sessions = 3
		tokens[i] = tokentest.Open(t, &modules, o)
		keys[i] = generate(t, tokens[i], "k", both)
	}
	t.Cleanup(func() { m.Set(t) })
	return m, tokens, keys
}

// C_Finalize would end the sessions of all tokens of the module: it waits until
// none of them serves.
func TestReinitializeDisturbsNoOtherToken(t *testing.T) {
	m, tokens, keys := twins(t)
	known := seal(t, keys[1], "known", "")
	// The first token is tried with a key of its session; the second one makes none.
	m.Set(t, "fail C_GenerateKey CKR_DEVICE_ERROR")
	eventually(t, "the first token is given up", func() bool {
		if err := tokens[0].GenerateKey(patient(t), "new", both); err == nil {
			t.Error("a key was made")
		}
		return !tokens[0].Available()
	})
	tried := m.Count(t, "C_GenerateKey")
	eventually(t, "the first token was tried again and again", func() bool {
		seal(t, keys[1], "p", "")
		if text, err := keys[1].Decrypt(patient(t), 1, known, nil); err != nil || string(text) != "known" {
			t.Errorf("the second token: %q, %v", text, err)
		}
		return m.Count(t, "C_GenerateKey") > tried+20
	})
	if s := tokens[1].Stats(); s.Resets != 0 || s.Failures != 0 || tokens[1].Losses() != 0 || m.Count(t, "C_Finalize") != 0 {
		t.Errorf("the second token was disturbed: %+v", s)
	}
	// Once it serves no more either, nobody is in the way.
	kill(t, m, keys[1], tokens[1], "dead CKR_DEVICE_REMOVED until-initialize")
	m.Set(t)
	eventually(t, "both are back", func() bool { return tokens[0].Available() && tokens[1].Available() })
	if n := tokens[1].Stats().Resets; n == 0 {
		t.Error("they came back without C_Initialize")
	}
	seal(t, keys[0], "p", "")
	if text, err := keys[1].Decrypt(patient(t), 1, known, nil); err != nil || string(text) != "known" {
		t.Errorf("the second token: %q, %v", text, err)
	}
}

// A token that nobody asks holds up nothing: it is tried at once. The first who ask it
// after a loss are told that it is not available, and not that they made it fail.
func TestReinitializeWhileIdle(t *testing.T) {
	for _, code := range []string{"CKR_DEVICE_REMOVED", "CKR_DEVICE_ERROR", "CKR_GENERAL_ERROR"} {
		t.Run(code, func(t *testing.T) {
			m, tokens, keys := twins(t)
			eventually(t, "the second token is idle", func() bool { return tokens[1].Idle() })
			m.Set(t, "dead "+code+" until-initialize")
			eventually(t, "the first token is given up", func() bool {
				_, err := keys[0].Encrypt(patient(t), 1, []byte("p"), nil)
				if !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("its answer is %v", err)
				}
				return !tokens[0].Available()
			})
			m.Set(t)
			eventually(t, "both are back", func() bool { return tokens[0].Available() && tokens[1].Available() })
			if n := m.Count(t, "C_Finalize"); n == 0 {
				t.Error("it came back without C_Finalize")
			}
			seal(t, keys[0], "p", "")
			seal(t, keys[1], "p", "")
		})
	}
}

// C_Finalize while a call is inside may crash: it waits until that returns.
func TestReinitializeWaitsForHangingCall(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	s := seal(t, k, "known", "")
	m.Set(t, "hang C_Encrypt count 1")
	if _, err := k.Encrypt(soon(t), 1, []byte("p"), nil); err == nil {
		t.Fatal("no call hangs")
	}
	hangs(t, m)
	// With a count of 0 no other call hangs.
	kill(t, m, k, tok, "hang C_Encrypt count 0", "dead CKR_DEVICE_REMOVED until-initialize")
	failed := m.Count(t, tokentest.FailedCalls)
	eventually(t, "the token was tried again and again", func() bool { return m.Count(t, tokentest.FailedCalls) > failed+20 })
	if n := m.Count(t, "C_Finalize"); n != 0 || tok.Stats().Resets != 0 || m.Count(t, tokentest.HangingCalls) != 1 {
		t.Errorf("%d calls of C_Finalize while a call hangs: %+v", n, tok.Stats())
	}
	m.Set(t)
	eventually(t, "the token is back", tok.Available)
	if stats := tok.Stats(); stats.Resets == 0 || stats.Stuck != 0 {
		t.Errorf("%+v", stats)
	}
	if text, err := k.Decrypt(patient(t), 1, s, nil); err != nil || string(text) != "known" {
		t.Errorf("%q, %v", text, err)
	}
}

// A token that is in another slot after a restart is found there.
func TestSlotMoves(t *testing.T) { isolations(t, testSlotMoves) }

func testSlotMoves(t *testing.T, isolation func(*keystore.Options)) {
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
	k := generate(t, tok, "k", both)
	w := newWitness(t, u)
	home := tok.Info().Slot
	for _, offset := range []uint{7, 1, 0} {
		move := fmt.Sprintf("slot-offset %d", offset)
		kill(t, m, k, tok, move, "dead CKR_DEVICE_REMOVED until-initialize")
		m.Set(t, move)
		eventually(t, "the token is back", tok.Available)
		if slot := tok.Info().Slot; slot != home+offset {
			t.Errorf("it is in slot %d instead of %d", slot, home+offset)
		}
		if !w.check(patient(t), t, tok) || !w.change(patient(t), t, tok, "new") {
			t.Errorf("it does not serve from slot %d", home+offset)
		}
	}
}

// Another token in the place of the one that was opened, be it of the same label,
// is not given a session nor the PIN, until the true one is back.
func TestAnotherToken(t *testing.T) { isolations(t, testAnotherToken) }

func testAnotherToken(t *testing.T, isolation func(*keystore.Options)) {
	for name, stranger := range map[string]string{"same label": "identity 0bad", "other label": "identity 0bad stranger"} {
		t.Run(name, func(t *testing.T) {
			tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
			k := generate(t, tok, "k", both)
			w := newWitness(t, u)
			stranger += " of " + u.Token
			kill(t, m, k, tok, stranger, "dead CKR_DEVICE_REMOVED until-initialize")
			m.Set(t, stranger)
			eventually(t, "it is said that the token is gone", func() bool {
				return strings.Contains(tok.Health().Reason, "shows no token \""+u.Token+"\"")
			})
			used := []string{"C_OpenSession", "C_Login", "C_EncryptInit", "C_DecryptInit", "C_FindObjectsInit", "C_GenerateKey"}
			before := map[string]int{}
			for _, function := range used {
				before[function] = m.Count(t, function)
			}
			resets := tok.Stats().Resets
			eventually(t, "the module was initialized again", func() bool {
				if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("encrypt: %v", err)
				}
				if err := tok.Refresh(patient(t)); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("refresh: %v", err)
				}
				return tok.Stats().Resets > resets+1
			})
			for _, function := range used {
				if n := m.Count(t, function) - before[function]; n != 0 {
					t.Errorf("%s was called %d times", function, n)
				}
			}
			m.Set(t)
			eventually(t, "the true token is back", tok.Available)
			if !w.check(patient(t), t, tok) {
				t.Error("it does not serve")
			}
		})
	}
}

// A module that hangs in C_Initialize or C_Finalize keeps no token of another one
// from being opened, closed, or brought back.
func TestHangingModuleDisturbsNoOther(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(2))
	k := generate(t, tok, "k", both)
	for _, function := range []string{"C_Initialize", "C_Finalize"} {
		t.Run(function, func(t *testing.T) {
			sick, third := tokentest.NewFaulty(t), tokentest.NewFaulty(t)
			u, thirds := sick.Token(t, &modules), third.Token(t, &modules)
			t.Cleanup(func() { sick.Set(t) })
			sick.Set(t, "hang "+function)
			if closed, err := keystore.Open(soon(t), &modules, tokentest.Options(u)); err == nil {
				if err := closed.Close(soon(t)); err == nil {
					t.Error("no call hangs")
				}
			}
			eventually(t, "the module hangs", func() bool { return sick.Count(t, tokentest.HangingCalls) == 1 })
			// Nobody else who wants the sick one waits beyond his patience.
			if _, err := keystore.Open(soon(t), &modules, tokentest.Options(u)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the sick module: %v", err)
			}
			kill(t, m, k, tok, "dead CKR_DEVICE_REMOVED until-initialize")
			m.Set(t)
			eventually(t, "the token is back", tok.Available)
			other, err := keystore.Open(patient(t), &modules, tokentest.Options(thirds))
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Close(patient(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// After C_Initialize a handle may name an object of another token of the module, which
// this one cannot even read. Its keys are found again all the same.
func TestHandlesOfAnotherToken(t *testing.T) {
	m, tokens, keys := twins(t)
	// In the middle of many, where the first token's will be.
	generateMany(t, tokens[1], "before", 40)
	s := seal(t, generate(t, tokens[1], "moved", both), "known", "")
	v := openVault(t, tokens[1])
	wrapped := material(t, v, "wrapped", keystore.SpecAES256)
	sealed, err := v.Encrypt(patient(t), &wrapped, []byte("known"), nil)
	if err != nil {
		t.Fatal(err)
	}
	generateMany(t, tokens[0], "other", 90)
	m.Set(t, "dead CKR_DEVICE_REMOVED until-initialize")
	for i, k := range keys {
		eventually(t, "the token is given up", func() bool { _, _ = k.Encrypt(patient(t), 1, []byte("p"), nil); return !tokens[i].Available() })
	}
	m.Set(t)
	eventually(t, "both are back", func() bool { return tokens[0].Available() && tokens[1].Available() })
	if err := tokens[0].Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	if text, err := v.Decrypt(patient(t), &wrapped, sealed, nil); err != nil || string(text) != "known" {
		t.Errorf("a wrapped key: %q, %v", text, err)
	}
	k, err := tokens[1].Find(patient(t), "moved")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := k.Decrypt(patient(t), 1, s, nil); err != nil || string(text) != "known" {
		t.Errorf("a key: %q, %v", text, err)
	}
	if n := tokens[1].Stats().Resets; n == 0 {
		t.Error("they came back without C_Initialize")
	}
}

func generateMany(t *testing.T, tok *keystore.Token, name string, n int) {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", name, i)
	}
	if err := tok.GenerateKeys(patient(t), ids, both, nil); err != nil {
		t.Fatal(err)
	}
}
