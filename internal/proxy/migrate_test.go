package proxy_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/xks"
)

// sampleAAD is what the AWS sample proxy gives the HSM for the AAD of a request
// (nil: absent) and its configured metadata.
func sampleAAD(aad, metadata []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(aad)))
	if aad != nil {
		sum := sha256.Sum256(aad)
		b = append(b, sum[:]...)
	}
	return append(append(b, byte(len(metadata))), metadata...)
}

// Ciphertext of the AWS sample proxy decrypts without change, so that one can
// move without encrypting anything again.
func TestSampleProxyCiphertext(t *testing.T) {
	r := newRig(t)
	material := bytes.Repeat([]byte{0x42}, 32)
	if err := r.token.ImportKey(patient(t), "foo", both, material); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	configured := []byte("v0.0.1")
	r.configure(strings.Replace(basicConfig, "credentials:", "sample_metadata: djAuMC4x\n    credentials:", 1))
	r.start()
	c := r.client()
	cases := map[string]struct{ aad, metadata []byte }{
		"no AAD":            {nil, nil},
		"empty AAD":         {[]byte{}, nil},
		"AAD":               {[]byte("project=nile"), nil},
		"long AAD":          {make([]byte, 8192), nil},
		"metadata":          {[]byte("project=nile"), configured},
		"metadata, no AAD":  {nil, configured},
		"AAD of 32 bytes":   {make([]byte, 32), nil},
		"metadata, no AAD ": {[]byte{}, configured},
	}
	for name, s := range cases {
		iv := []byte("twelve bytes")
		sealed := gcm.Seal(nil, iv, []byte("from the sample"), sampleAAD(s.aad, s.metadata))
		n := len(sealed) - 16
		q := &xks.DecryptRequest{
			RequestMetadata: metadata, Algorithm: xks.AlgorithmAESGCM,
			Ciphertext: sealed[:n], Tag: sealed[n:], IV: iv, AAD: s.aad, Metadata: s.metadata,
		}
		got, err := c.Decrypt(patient(t), "foo", q)
		if err != nil || string(got.Plaintext) != "from the sample" {
			t.Errorf("%s: %v", name, err)
		}
		q.AAD = append(slices.Clone(s.aad), 'x')
		wantError(t, second2(c.Decrypt(patient(t), "foo", q)), xks.InvalidCiphertextException)
	}
}

// What the sample proxy made stays readable after the key was rotated here, and
// what we made is not taken for the sample's.
func TestRotation(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	r.start()
	c := r.client()
	seal := func() *xks.EncryptResponse {
		s, err := c.Encrypt(patient(t), "k", encryptRequest("plaintext", "aad"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := seal()
	key, err := r.token.Find(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	sample, err := key.Encrypt(patient(t), 1, []byte("plaintext"), sampleAAD([]byte("aad"), nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.token.RotateKey(patient(t), "k"); err != nil {
		t.Fatal(err)
	}
	if err := r.proxy.Refresh(patient(t)); err != nil { // as SIGHUP does
		t.Fatal(err)
	}
	second := seal()
	if bytes.Equal(first.Metadata, second.Metadata) {
		t.Error("both versions have the same metadata")
	}
	for name, s := range map[string]*xks.EncryptResponse{"first": first, "second": second, "sample's": {Ciphertext: sample.Ciphertext, IV: sample.IV, Tag: sample.Tag}} {
		if got, err := c.Decrypt(patient(t), "k", decryptRequest(s, "aad")); err != nil || string(got.Plaintext) != "plaintext" {
			t.Errorf("%s: %v", name, err)
		}
	}
	swapped := decryptRequest(first, "aad")
	swapped.Metadata = second.Metadata
	wantError(t, second2(c.Decrypt(patient(t), "k", swapped)), xks.InvalidCiphertextException)
	swapped.Metadata = nil
	wantError(t, second2(c.Decrypt(patient(t), "k", swapped)), xks.InvalidCiphertextException)

	if err := r.token.DestroyKey(patient(t), "k", 1); err != nil {
		t.Fatal(err)
	}
	wantError(t, second2(c.Decrypt(patient(t), "k", decryptRequest(first, "aad"))), xks.InvalidCiphertextException)
	if _, err := c.Decrypt(patient(t), "k", decryptRequest(second, "aad")); err != nil {
		t.Errorf("the version that is left: %v", err)
	}
	if err := r.token.DestroyKey(patient(t), "k", 0); err != nil {
		t.Fatal(err)
	}
	wantError(t, second2(c.Decrypt(patient(t), "k", decryptRequest(second, "aad"))), xks.KeyNotFoundException)
	wantError(t, second2(c.Encrypt(patient(t), "k", encryptRequest("p", ""))), xks.KeyNotFoundException)
}
