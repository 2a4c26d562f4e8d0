package keystore_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

func generate(t testing.TB, tok *keystore.Token, id string, usage keystore.KeyUsage) *keystore.Key {
	t.Helper()
	if err := tok.GenerateKey(patient(t), id, usage); err != nil {
		t.Fatal(err)
	}
	return find(t, tok, id)
}

func find(t testing.TB, tok *keystore.Token, id string) *keystore.Key {
	t.Helper()
	k, err := tok.Find(patient(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, k *keystore.Key, plaintext, aad string) keystore.Sealed {
	t.Helper()
	s, err := k.Encrypt(patient(t), k.Newest(), []byte(plaintext), []byte(aad))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEncryptDecrypt(t *testing.T) {
	tok, _ := newToken(t)
	k := generate(t, tok, "k", both)
	for _, size := range []int{1, 15, 16, 17, 4300, 8192} {
		plaintext := bytes.Repeat([]byte{0xa5}, size)
		for _, aad := range [][]byte{nil, {}, []byte("context"), make([]byte, 8192)} {
			s, err := k.Encrypt(patient(t), 1, plaintext, aad)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Ciphertext) != size || len(s.Tag) != 16 || len(s.IV) != 12 {
				t.Fatalf("sizes: %d %d %d", len(s.Ciphertext), len(s.Tag), len(s.IV))
			}
			got, err := k.Decrypt(patient(t), 1, s, aad)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Fatalf("size %d, AAD %d: %v", size, len(aad), err)
			}
		}
	}
}

// What the token does must be AES-256-GCM as everybody else knows it.
func TestImportedKeyAgreesWithGo(t *testing.T) {
	tok, _ := newToken(t)
	material := bytes.Repeat([]byte{7}, 32)
	if err := tok.ImportKey(patient(t), "imported", both, material); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	k := find(t, tok, "imported")
	s := seal(t, k, "plaintext", "aad")
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	got, err := gcm.Open(nil, s.IV, append(slices.Clone(s.Ciphertext), s.Tag...), []byte("aad"))
	if err != nil || string(got) != "plaintext" {
		t.Fatalf("Go opens %q, %v", got, err)
	}
	gcm16, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		t.Fatal(err)
	}
	iv := bytes.Repeat([]byte{3}, 16)
	sealed := gcm16.Seal(nil, iv, []byte("from Go"), nil)
	n := len(sealed) - 16
	back, err := k.Decrypt(patient(t), 1, keystore.Sealed{IV: iv, Ciphertext: sealed[:n], Tag: sealed[n:]}, nil)
	if err != nil || string(back) != "from Go" {
		t.Fatalf("the token opens %q, %v", back, err)
	}
}

// A wrong ciphertext is called so, also where the token's own answer is
// unclear, and leaves the token in use.
func TestWrongCiphertextIsNotASickToken(t *testing.T) {
	flip := func(b []byte) []byte { c := slices.Clone(b); c[0] ^= 1; return c }
	cases := map[string]func(*keystore.Sealed, *[]byte){
		"tag":        func(s *keystore.Sealed, _ *[]byte) { s.Tag = flip(s.Tag) },
		"ciphertext": func(s *keystore.Sealed, _ *[]byte) { s.Ciphertext = flip(s.Ciphertext) },
		"IV":         func(s *keystore.Sealed, _ *[]byte) { s.IV = flip(s.IV) },
		"zero IV":    func(s *keystore.Sealed, _ *[]byte) { s.IV = make([]byte, 12) },
		"long IV":    func(s *keystore.Sealed, _ *[]byte) { s.IV = make([]byte, 16) },
		"AAD":        func(_ *keystore.Sealed, aad *[]byte) { *aad = flip(*aad) },
		"no AAD":     func(_ *keystore.Sealed, aad *[]byte) { *aad = nil },
		"short":      func(s *keystore.Sealed, _ *[]byte) { s.Ciphertext = s.Ciphertext[1:] },
		"empty":      func(s *keystore.Sealed, _ *[]byte) { s.Ciphertext = nil },
		"short tag":  func(s *keystore.Sealed, _ *[]byte) { s.Tag = s.Tag[:15] },
		"no IV":      func(s *keystore.Sealed, _ *[]byte) { s.IV = nil },
	}
	tok, _ := newToken(t)
	k := generate(t, tok, "k", both)
	decryptOnly := bytes.Repeat([]byte{9}, 32)
	if err := tok.ImportKey(patient(t), "decrypt-only", keystore.KeyUsage{Decrypt: true}, decryptOnly); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range cases {
		for _, key := range []*keystore.Key{k, find(t, tok, "decrypt-only")} {
			s, aad := seal(t, k, "some plaintext", "aad"), []byte("aad")
			spoil(&s, &aad)
			got, err := key.Decrypt(patient(t), 1, s, aad)
			if !errors.Is(err, keystore.ErrInvalidCiphertext) || got != nil {
				t.Errorf("%s with %s: %q, %v", name, key.ID(), got, err)
			}
		}
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d of them count as failures of the token", n)
	}
	if h := tok.Probe(patient(t)); h.State != keystore.Active {
		t.Errorf("health afterwards: %+v", h)
	}
}

func TestIVsDiffer(t *testing.T) {
	tok, _ := newToken(t)
	k := generate(t, tok, "k", both)
	seen := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				s := seal(t, k, "p", "")
				mu.Lock()
				if seen[string(s.IV)] {
					t.Errorf("IV %x comes twice", s.IV)
				}
				seen[string(s.IV)] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 1600 {
		t.Errorf("%d IVs of 1600", len(seen))
	}
}

func TestUsage(t *testing.T) {
	tok, _ := newToken(t)
	full := generate(t, tok, "full", both)
	s := seal(t, full, "p", "")
	for name, usage := range map[string]keystore.KeyUsage{
		"encrypt-only": {Encrypt: true}, "decrypt-only": {Decrypt: true}, "impotent": {},
	} {
		k := generate(t, tok, name, usage)
		_, err := k.Encrypt(patient(t), 1, []byte("p"), nil)
		if usage.Encrypt && err != nil || !usage.Encrypt && !errors.Is(err, keystore.ErrKeyUsage) {
			t.Errorf("%s: encrypt: %v", name, err)
		}
		_, err = k.Decrypt(patient(t), 1, s, nil)
		if usage.Decrypt && !errors.Is(err, keystore.ErrInvalidCiphertext) || !usage.Decrypt && !errors.Is(err, keystore.ErrKeyUsage) {
			t.Errorf("%s: decrypt: %v", name, err)
		}
		got, disabled, err := k.Permissions(patient(t))
		if got != usage || disabled || err != nil {
			t.Errorf("%s: %+v %v %v", name, got, disabled, err)
		}
	}
}

// A caller is answered when its context ends, even while every session is busy.
func TestContextEnds(t *testing.T) {
	tok, _ := newToken(t)
	k := generate(t, tok, "k", both)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 {
		if _, err := k.Encrypt(ctx, 1, []byte("p"), nil); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if s := seal(t, k, "p", ""); len(s.IV) != 12 {
		t.Error("the token is of no use afterwards")
	}
}
