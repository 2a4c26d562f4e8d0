package keystore

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
)

func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 5649, section 6.
func TestUnwrapKWP(t *testing.T) {
	key := bytesOf(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for plain, wrapped := range map[string]string{
		"c37b7e6492584340bed12207808941155068f738": "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
		"466f7250617369": "afbeb0f07dfbf5419200f2ccb50bb24f",
	} {
		good := bytesOf(t, wrapped)
		got, err := unwrapKWP(key, good)
		if err != nil || hex.EncodeToString(got) != plain {
			t.Errorf("%x, %v", got, err)
		}
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 0x80
			if got, err := unwrapKWP(key, bad); !errors.Is(err, ErrInvalidCiphertext) || got != nil {
				t.Errorf("byte %d: %x, %v", i, got, err)
			}
		}
		for _, bad := range [][]byte{nil, good[:8], good[1:], append(bytes.Clone(good), make([]byte, 8)...)} {
			if got, err := unwrapKWP(key, bad); !errors.Is(err, ErrInvalidCiphertext) {
				t.Errorf("%d bytes: %x, %v", len(bad), got, err)
			}
		}
		if _, err := unwrapKWP(key[1:], good); !errors.Is(err, ErrInvalidCiphertext) {
			t.Errorf("short key: %v", err)
		}
	}
}

// The first of RFC 5649, section 6, and the rounds by RFC 3394, sections 4.1, 4.3 and
// 4.6.
func TestWrapKWP(t *testing.T) {
	key, text := bytesOf(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"), bytesOf(t, "c37b7e6492584340bed12207808941155068f738")
	got, err := wrapKWP(key, text)
	if err != nil || hex.EncodeToString(got) != "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a" {
		t.Errorf("%x, %v", got, err)
	}
	for _, c := range []struct{ key, text, wrapped string }{
		{"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff", "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
			"28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
	} {
		block, err := aes.NewCipher(bytesOf(t, c.key))
		if err != nil {
			t.Fatal(err)
		}
		plain := append(bytes.Repeat([]byte{0xa6}, 8), bytesOf(t, c.text)...)
		own := bytes.Clone(plain)
		if wrapRounds(block.Encrypt, own); hex.EncodeToString(own) != c.wrapped {
			t.Errorf("%x", own)
		}
		if unwrapRounds(block.Decrypt, own); !bytes.Equal(own, plain) {
			t.Errorf("%x comes back", own)
		}
	}
}

func FuzzUnwrapKWP(f *testing.F) {
	f.Add(make([]byte, 16), make([]byte, 24))
	f.Fuzz(func(t *testing.T, key, wrapped []byte) {
		if got, err := unwrapKWP(key, wrapped); err == nil && (len(got) == 0 || len(got) > len(wrapped)-8) {
			t.Errorf("%d bytes of %d", len(got), len(wrapped))
		}
	})
}

// encodedOAEP is what RSA would return for a message that Go encrypted.
func encodedOAEP(t testing.TB, key *rsa.PrivateKey, hash crypto.Hash, text []byte) []byte {
	t.Helper()
	ciphertext, err := rsa.EncryptOAEP(hash.New(), rand.Reader, &key.PublicKey, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return new(big.Int).Exp(new(big.Int).SetBytes(ciphertext), key.D, key.N).FillBytes(make([]byte, key.Size()))
}

func TestUnpadOAEP(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, size := range []int{0, 1, 40, key.Size() - 2*hash.Size() - 2} {
			text := bytes.Repeat([]byte{byte(size)}, size)
			em := encodedOAEP(t, key, hash, text)
			if got, err := unpadOAEP(hash, bytes.Clone(em)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%v, %d bytes: %x, %v", hash, size, got, err)
			}
			first := bytes.Clone(em)
			first[0] = 1
			if got, err := unpadOAEP(hash, first); !errors.Is(err, ErrInvalidCiphertext) || got != nil {
				t.Errorf("%v, first byte: %x, %v", hash, got, err)
			}
			// A change of the seed, or of the hash of the label, garbles the padding.
			for _, at := range []int{1, hash.Size(), 1 + hash.Size(), 2 * hash.Size()} {
				bad := bytes.Clone(em)
				bad[at] ^= 1
				if got, err := unpadOAEP(hash, bad); !errors.Is(err, ErrInvalidCiphertext) || got != nil {
					t.Errorf("%v, byte %d: %x, %v", hash, at, got, err)
				}
			}
		}
	}
}

// The 1 before the message must be there, and only zeros before it.
func TestUnpadOAEPSeparator(t *testing.T) {
	const hash = crypto.SHA256
	label := hash.New().Sum(nil)
	for name, c := range map[string]struct {
		rest []byte
		good bool
	}{
		"at once": {append([]byte{1}, make([]byte, 29)...), true}, "at the end": {append(make([]byte, 29), 1), true},
		"none": {make([]byte, 30), false}, "a 2": {append([]byte{0, 2}, make([]byte, 28)...), false}, "a 2 before it": {append([]byte{2, 1}, make([]byte, 28)...), false},
	} {
		em := append(append(make([]byte, 1+hash.Size()), label...), c.rest...)
		seed, db := em[1:1+hash.Size()], em[1+hash.Size():]
		mask(db, hash, seed)
		mask(seed, hash, db)
		got, err := unpadOAEP(hash, em)
		if c.good != (err == nil) || err != nil && !errors.Is(err, ErrInvalidCiphertext) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func FuzzUnpadOAEP(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, em []byte) {
		if got, err := unpadOAEP(crypto.SHA256, bytes.Clone(em)); err == nil && len(got) > len(em)-66 {
			t.Errorf("%d bytes of %d", len(got), len(em))
		}
	})
}

func shapes() []shape {
	var all []shape
	for _, spec := range []Spec{SpecRSA2048, SpecP256, SpecP384, SpecP521, SpecSecp256k1, SpecEd25519} {
		s, err := spec.shape()
		if err != nil {
			panic(err)
		}
		all = append(all, s)
	}
	return all
}

const (
	// RFC 8410, section 10.3: version 2, with attributes and the public key.
	ed25519V2 = "3072020101300506032b657004220420d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842a01f301d060a2a864886f70d01090914310f0c0d437572646c6520436861697273812100" +
		"19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
	// The key of RFC 6979, appendix A.2.5, whose curve is named twice.
	p256Twice = "304d020100301306072a8648ce3d020106082a8648ce3d030107043330310201010420c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721a00a06082a8648ce3d030107"
)

// Whatever is parsed as a private key has its public key, and what encodes it is
// parsed as the same.
func FuzzParsePrivateKey(f *testing.F) {
	for _, s := range shapes() {
		if pair, err := s.pairByGo(); err == nil {
			f.Add(pair.private)
		}
	}
	f.Add(bytesOf(f, ed25519V2))
	f.Add(bytesOf(f, p256Twice))
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, s := range shapes() {
			p, err := s.parse(der)
			if err != nil {
				if !errors.Is(err, ErrInvalidMaterial) && !errors.Is(err, ErrMaterialSpec) {
					t.Errorf("%v", err)
				}
				continue
			}
			if s.family == familyRSA {
				public, err := decodeRSA(p.public)
				if err != nil {
					t.Fatal(err)
				}
				number := func(i int) *big.Int { return new(big.Int).SetBytes(p.attributes[i].Value) }
				if new(big.Int).Mul(number(3), number(4)).Cmp(public.N) != 0 {
					t.Error("the primes are not those of the modulus")
				}
				continue
			}
			scalar := p.attributes[1].Value
			point, err := s.pointOf(scalar)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.encodePrivate(scalar, point)
			if err != nil {
				t.Fatal(err)
			}
			if q, err := s.parse(again); err != nil || !bytes.Equal(q.public, p.public) {
				t.Errorf("%x, %v", again, err)
			}
		}
	})
}

// Both samples of the fuzz target above are taken, the key of RFC 8410 with its
// public key.
func TestParsePrivateKeyForms(t *testing.T) {
	for _, c := range []struct {
		spec      Spec
		der, want string
	}{
		{SpecEd25519, ed25519V2, "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"},
		{SpecP256, p256Twice, "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"},
	} {
		s, err := c.spec.shape()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.parse(bytesOf(t, c.der))
		if err != nil || !bytes.HasSuffix(p.public, bytesOf(t, c.want)) {
			t.Errorf("%s: %x, %v", c.spec, p.public, err)
		}
	}
}

// Whatever is taken for a peer's key is on the curve and encodes to itself.
func FuzzDecodePoint(f *testing.F) {
	for _, s := range shapes() {
		if pair, err := s.pairByGo(); err == nil {
			f.Add(pair.public)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, s := range shapes() {
			if s.family != familyEC {
				continue
			}
			point, err := s.decodePoint(der)
			if err != nil {
				continue
			}
			if again, err := s.encodePoint(point); err != nil || !bytes.Equal(again, der) {
				t.Errorf("%x became %x, %v", der, again, err)
			}
		}
	})
}

func TestDropsRunOnce(t *testing.T) {
	n := 0
	d := newDrops(func() { n++ })
	first, last := d.add(), d.add()
	first()
	d.done()
	if n != 0 {
		t.Fatal("it ran too early")
	}
	if last(); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}
