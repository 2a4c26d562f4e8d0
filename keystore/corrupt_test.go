package keystore_test

import (
	"errors"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// corruptions are what a token may do to its outputs where hyok has a tag to see it
// by, each with the codes by which modules tell a wrong tag.
func corruptions() map[string][]string {
	return map[string][]string{
		"ciphertext":        {"corrupt ciphertext"},
		"tag":               {"corrupt tag"},
		"ciphertext, clear": {"corrupt ciphertext", "badtag 0x40"},
		"tag, clear":        {"corrupt tag", "badtag 0x40"},
	}
}

// What was corrupted when it was encrypted never opens, and what was not does,
// also while the token corrupts what it encrypts.
func TestCorruptedCiphertext(t *testing.T) {
	for name, behaviours := range corruptions() {
		for profile, emulation := range emulations() {
			t.Run(name+" of "+profile, func(t *testing.T) {
				tok, m, _ := newFaulty(t, profile, emulation, sessions(3))
				k := generate(t, tok, "k", both)
				good := seal(t, k, "known", "aad")
				m.Set(t, append(behaviours, emulation...)...)
				for range 8 {
					bad := seal(t, k, "known", "aad")
					text, err := k.Decrypt(patient(t), 1, bad, []byte("aad"))
					var te *keystore.TokenError
					if text != nil || !errors.Is(err, keystore.ErrInvalidCiphertext) && !errors.As(err, &te) && !errors.Is(err, keystore.ErrUnavailable) {
						t.Fatalf("what was corrupted is %q, %v", text, err)
					}
					eventually(t, "the token is asked", tok.Available)
					if text, err := k.Decrypt(patient(t), 1, good, []byte("aad")); err != nil || string(text) != "known" {
						t.Fatalf("what was not corrupted is %q, %v", text, err)
					}
				}
			})
		}
	}
}

// A token that fails to decrypt is asked for the true tag. That this is damaged on
// its way does not condemn the ciphertext.
func TestCorruptedTrueTag(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(3))
	k := generate(t, tok, "k", both)
	good := seal(t, k, "known", "")
	for _, skip := range []string{"skip 0", "skip 1", "skip 2"} {
		m.Set(t, "fail C_Decrypt CKR_GENERAL_ERROR count 1", "corrupt tag count 1 "+skip)
		if text, err := k.Decrypt(patient(t), 1, good, nil); err != nil || string(text) != "known" {
			t.Errorf("%s: %q, %v", skip, text, err)
		}
	}
}

// A token that is found to compute wrongly is asked no more until it does not: by
// nothing else than such a test can a wrong plaintext be told from a right one.
func TestWrongAnswerOpensTheBreaker(t *testing.T) { isolations(t, testWrongAnswer) }

func testWrongAnswer(t *testing.T, isolation func(*keystore.Options)) {
	behaviours := corruptions()
	behaviours["plaintext"] = []string{"corrupt plaintext"}
	delete(behaviours, "ciphertext") // SoftHSM2's CKR_GENERAL_ERROR may mean anything:
	delete(behaviours, "tag")        // such probes count as any other failure
	for name, corrupt := range behaviours {
		t.Run(name, func(t *testing.T) {
			tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
			k := generate(t, tok, "k", both)
			w := newWitness(t, u)
			m.Set(t, corrupt...)
			if h := tok.Probe(patient(t)); h.State != keystore.Unavailable || tok.Available() {
				t.Fatalf("available %v, %+v", tok.Available(), h)
			}
			for range 20 {
				if _, err := k.Decrypt(patient(t), 1, w.sealed, nil); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("decrypt: %v", err)
				}
				if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("encrypt: %v", err)
				}
			}
			m.Set(t)
			eventually(t, "the token is back", tok.Available)
			if !w.check(patient(t), t, tok) {
				t.Error("it does not serve")
			}
		})
	}
}
