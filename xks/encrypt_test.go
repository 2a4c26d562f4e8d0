package xks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCDIVExample is the example of appendix C.
func TestCDIVExample(t *testing.T) {
	got := appendCDIV(nil, sha256.New(), []byte("project=nile,department=marketing"), []byte("key_version=1"), Sealed{
		IV:         unhex(t, "1ccae5470f39700254779031"),
		Ciphertext: unhex(t, "821c642b5b71783367deaf18"),
		Tag:        unhex(t, "bc1c4dda7707d6812447c5955e99b261"),
	})
	if want := "qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc="; base64.StdEncoding.EncodeToString(got) != want {
		t.Errorf("CDIV %x, want %s", got, want)
	}
}

func withCDIV() body {
	return encryptBody().with(body{"ciphertextDataIntegrityValueAlgorithm": "SHA_256"})
}

// cdivOf is what AWS KMS computes from an answer.
func cdivOf(aad []byte, r EncryptResponse) []byte {
	sum := sha256.Sum256(slices.Concat(aad, r.Metadata, r.IV, r.Ciphertext, r.Tag))
	return sum[:]
}

var exampleAAD = []byte("project=nile,department=marketing")

func TestCDIVAnswered(t *testing.T) {
	p := startProxy(t, nil)
	client := p.client(t, true)
	var with, without EncryptResponse
	p.post(t, client, keyPath+"encrypt", withCDIV().json()).decodeInto(t, &with)
	if !bytes.Equal(with.CDIV, cdivOf(exampleAAD, with)) {
		t.Errorf("CDIV %x does not belong to the answer", with.CDIV)
	}
	p.post(t, client, keyPath+"encrypt", encryptBody().json()).decodeInto(t, &without)
	if without.CDIV != nil {
		t.Error("a CDIV that nobody asked for")
	}
}

// What is corrupted once the CDIV exists must no longer match it; what is
// corrupted before must not be answered.
func TestCDIVCatchesCorruption(t *testing.T) {
	flip := func(b []byte) { b[0] ^= 1 }
	for name, part := range map[string]func(*Sealed) []byte{
		"iv":         func(s *Sealed) []byte { return s.IV },
		"ciphertext": func(s *Sealed) []byte { return s.Ciphertext },
		"tag":        func(s *Sealed) []byte { return s.Tag },
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, nil)
			client, key := p.client(t, false), p.keys.keys["key-1"]
			key.after = func(operation string, s *Sealed, _ *[]byte) {
				if operation == "decrypt" {
					flip(part(s))
				}
			}
			var late EncryptResponse
			p.post(t, client, keyPath+"encrypt", withCDIV().json()).decodeInto(t, &late)
			if bytes.Equal(late.CDIV, cdivOf(exampleAAD, late)) {
				t.Error("the CDIV covers what was corrupted after it was verified")
			}
			key.after = func(operation string, s *Sealed, _ *[]byte) {
				if operation == "encrypt" {
					flip(part(s))
				}
			}
			p.post(t, client, keyPath+"encrypt", withCDIV().json()).wantError(t, InternalException)
		})
	}
}

func TestCDIVComparesPlaintext(t *testing.T) {
	p := startProxy(t, nil)
	for name, spoil := range map[string]func(*[]byte){
		"other":  func(b *[]byte) { (*b)[0] ^= 1 },
		"short":  func(b *[]byte) { *b = (*b)[1:] },
		"longer": func(b *[]byte) { *b = append(*b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			p.keys.keys["key-1"].after = func(operation string, _ *Sealed, plaintext *[]byte) {
				if operation == "decrypt" {
					spoil(plaintext)
				}
			}
			p.post(t, p.client(t, false), keyPath+"encrypt", withCDIV().json()).wantError(t, InternalException)
		})
	}
}

func TestCDIVVerificationFails(t *testing.T) {
	p := startProxy(t, nil)
	for _, row := range []struct{ fails, want ErrorName }{
		{InvalidCiphertextException, InternalException}, // the token cannot open its own
		{InvalidStateException, InvalidStateException},
		{DependencyTimeoutException, DependencyTimeoutException},
	} {
		p.keys.keys["key-1"].before = func(_ context.Context, operation string) error {
			if operation == "decrypt" {
				return &Error{Name: row.fails, Message: "no", Cause: errors.New("test")}
			}
			return nil
		}
		p.post(t, p.client(t, false), keyPath+"encrypt", withCDIV().json()).wantError(t, row.want)
	}
}

func TestRotation(t *testing.T) {
	p := startProxy(t, nil)
	client, key := p.client(t, true), p.keys.keys["key-1"]
	var first, second EncryptResponse
	p.post(t, client, keyPath+"encrypt", encryptBody().json()).decodeInto(t, &first)
	key.rotate()
	p.post(t, client, keyPath+"encrypt", encryptBody().json()).decodeInto(t, &second)
	if got := []byte{1, 0, 0, 0, 1, 'h'}; !bytes.Equal(first.Metadata, got) {
		t.Errorf("metadata of the first version: %x", first.Metadata)
	}
	if got := []byte{1, 0, 0, 0, 2, 'h'}; !bytes.Equal(second.Metadata, got) {
		t.Errorf("metadata of the second version: %x", second.Metadata)
	}
	for _, sealed := range []EncryptResponse{first, second} {
		var opened DecryptResponse
		p.post(t, client, keyPath+"decrypt", decryptBody(sealed, exampleAAD).json()).decodeInto(t, &opened)
		if string(opened.Plaintext) != "Hello World!" {
			t.Errorf("opened %q", opened.Plaintext)
		}
	}
	// The version is authenticated.
	first.Metadata, second.Metadata = second.Metadata, first.Metadata
	for _, sealed := range []EncryptResponse{first, second} {
		p.post(t, client, keyPath+"decrypt", decryptBody(sealed, exampleAAD).json()).wantError(t, InvalidCiphertextException)
	}
}
