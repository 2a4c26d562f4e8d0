package keystore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// newFaulty returns a token of a faulty module that does as it is told.
func newFaulty(t *testing.T, profile string, behaviours []string, change ...func(*keystore.Options)) (*keystore.Token, *tokentest.Faulty, keystore.URI) {
	t.Helper()
	m := tokentest.NewFaulty(t)
	m.Set(t, behaviours...)
	u := m.Token(t, &modules)
	o := tokentest.Options(u)
	o.Profile = profileNamed(t, profile)
	for _, c := range change {
		c(&o)
	}
	tok := tokentest.Open(t, &modules, o)
	t.Cleanup(func() { m.Set(t) }) // whatever hangs returns, so that Close can end
	return tok, m, u
}

func profileNamed(t *testing.T, name string) keystore.Profile {
	t.Helper()
	if name == "tag-before" {
		p := keystore.Profiles()[0]
		p.Name, p.Tag = name, keystore.TagBefore
		return p
	}
	p, err := keystore.ProfileByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// emulations tells the faulty module how the tokens of each profile behave.
func emulations() map[string][]string {
	return map[string][]string{
		"softhsm2":   nil,
		"generic":    {"refuse-attribute 0x171 CKR_GENERAL_ERROR", "fail C_CopyObject CKR_FUNCTION_NOT_SUPPORTED"}, // 0x171: CKA_COPYABLE
		"cloudhsm":   {"iv written-back", "readonly-sessions refused"},
		"luna":       {"iv appended"},
		"nshield":    {"iv written-back"},
		"tag-before": {"tag before"},
	}
}

func flipped(s keystore.Sealed) keystore.Sealed {
	s.Tag = slices.Clone(s.Tag)
	s.Tag[3] ^= 0x10
	return s
}

var importedMaterial = bytes.Repeat([]byte{0x5c}, 32)

func imported(t *testing.T, tok *keystore.Token, id string, usage keystore.KeyUsage) *keystore.Key {
	t.Helper()
	if err := tok.ImportKey(patient(t), id, usage, importedMaterial); err != nil {
		t.Fatal(err)
	}
	return find(t, tok, id)
}

func openWithGo(s keystore.Sealed, aad string) (string, error) {
	block, err := aes.NewCipher(importedMaterial)
	if err != nil {
		return "", err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(s.IV))
	if err != nil {
		return "", err
	}
	out, err := gcm.Open(nil, s.IV, append(slices.Clone(s.Ciphertext), s.Tag...), []byte(aad))
	return string(out), err
}

// The IV that is reported must be the one that the token used: Go opens by it.
func TestProfiles(t *testing.T) {
	for name, behaviours := range emulations() {
		t.Run(name, func(t *testing.T) {
			tok, _, _ := newFaulty(t, name, behaviours)
			k := imported(t, tok, "k", both)
			seen := map[string]bool{}
			for i := range 40 {
				text, aad := fmt.Sprintf("plaintext %0*d", i, i), fmt.Sprintf("%0*d", 3*i, i)
				s := seal(t, k, text, aad)
				if seen[string(s.IV)] {
					t.Errorf("IV %x comes twice", s.IV)
				}
				seen[string(s.IV)] = true
				if got, err := openWithGo(s, aad); err != nil || got != text {
					t.Fatalf("Go opens %q, %v", got, err)
				}
				if got, err := k.Decrypt(patient(t), 1, s, []byte(aad)); err != nil || string(got) != text {
					t.Fatalf("the token opens %q, %v", got, err)
				}
				if _, err := k.Decrypt(patient(t), 1, flipped(s), []byte(aad)); !errors.Is(err, keystore.ErrInvalidCiphertext) {
					t.Fatalf("wrong tag: %v", err)
				}
			}
			if h := tok.Probe(patient(t)); h.State == keystore.Unavailable {
				t.Errorf("health: %+v", h)
			}
		})
	}
}

// A profile that does not fit the token must fail, never return a ciphertext
// that nobody can open.
func TestWrongProfile(t *testing.T) {
	for profile, behaviours := range map[string][]string{
		"softhsm2": {"iv written-back"}, "luna": {"iv written-back"}, "cloudhsm": {"iv appended"}, "nshield": nil,
	} {
		tok, _, _ := newFaulty(t, profile, behaviours)
		// The key is tried before it is handed out.
		if err := tok.ImportKey(patient(t), "k", both, make([]byte, 32)); err == nil {
			s, err := find(t, tok, "k").Encrypt(patient(t), 1, []byte("p"), nil)
			t.Errorf("profile %s for a token of %v: made a key, and encrypted with IV %x, %v", profile, behaviours, s.IV, err)
		}
	}
}

var unclearCodes = []string{"0x5", "0x6", "0x20", "0xc0"}

// Hundreds of failures and wrong tags in random order: only what is wrong is
// called so, and only a token that goes on failing fails.
func TestSickOrBad(t *testing.T) {
	for name, behaviours := range emulations() {
		for _, usage := range []keystore.KeyUsage{both, {Decrypt: true}} {
			t.Run(fmt.Sprintf("%s/encrypt=%v", name, usage.Encrypt), func(t *testing.T) {
				tok, m, _ := newFaulty(t, name, behaviours)
				s := seal(t, imported(t, tok, "sealing", both), "text", "aad")
				k := imported(t, tok, "k", usage)
				random := rand.New(rand.NewPCG(1, uint64(len(name))))
				for range 120 {
					code := unclearCodes[random.IntN(len(unclearCodes))]
					failures := random.IntN(6) - 1 // -1: always
					if random.IntN(3) == 0 {
						failures = 0
					}
					bad := random.IntN(2) == 0
					m.Set(t, slices.Concat(behaviours, []string{"badtag " + code, fmt.Sprintf("fail C_Decrypt %s count %d", code, failures)})...)
					sickOrBad(t, k, s, bad, failures)
				}
			})
		}
	}
}

func sickOrBad(t *testing.T, k *keystore.Key, s keystore.Sealed, bad bool, failures int) {
	t.Helper()
	if bad {
		s = flipped(s)
	}
	got, err := k.Decrypt(patient(t), 1, s, []byte("aad"))
	var te *keystore.TokenError
	invalid := errors.Is(err, keystore.ErrInvalidCiphertext)
	switch {
	case err == nil && (bad || string(got) != "text"):
		t.Fatalf("bad=%v failures=%d: opened as %q", bad, failures, got)
	case invalid && !bad:
		t.Fatalf("failures=%d: a sick token's ciphertext was called invalid: %v", failures, err)
	case err != nil && !invalid && !errors.As(err, &te):
		t.Fatalf("bad=%v failures=%d: %v", bad, failures, err)
	case bad && failures == 0 && !invalid:
		t.Fatalf("a wrong tag with a well token: %v", err)
	case !bad && (failures == 0 || failures == 1) && err != nil:
		t.Fatalf("failures=%d: the good ciphertext was not opened: %v", failures, err)
	}
}
