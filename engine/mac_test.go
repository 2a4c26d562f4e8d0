package engine_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"hash"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// The token's HMAC is that of Go with the same key.
func TestMAC(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	for spec, with := range map[types.KeySpec]struct {
		algorithm types.MacAlgorithmSpec
		size      int
		hash      func() hash.Hash
	}{
		types.KeySpecHmac224: {types.MacAlgorithmSpecHmacSha224, 28, sha256.New224},
		types.KeySpecHmac256: {types.MacAlgorithmSpecHmacSha256, 32, sha256.New},
		types.KeySpecHmac384: {types.MacAlgorithmSpecHmacSha384, 48, sha512.New384},
		types.KeySpecHmac512: {types.MacAlgorithmSpecHmacSha512, 64, sha512.New},
	} {
		t.Run(string(spec), func(t *testing.T) {
			material := make([]byte, with.size)
			_, _ = rand.Read(material)
			id := aws.String(importKey(t, c, spec, types.KeyUsageTypeGenerateVerifyMac, material))
			message := []byte("what do ya want for nothing?")
			out, err := c.GenerateMac(t.Context(), &kms.GenerateMacInput{KeyId: id, Message: message, MacAlgorithm: with.algorithm})
			if err != nil {
				t.Fatal(err)
			}
			h := hmac.New(with.hash, material)
			_, _ = h.Write(message)
			if !bytes.Equal(out.Mac, h.Sum(nil)) {
				t.Errorf("MAC %x, want %x", out.Mac, h.Sum(nil))
			}
			verified, err := c.VerifyMac(t.Context(), &kms.VerifyMacInput{KeyId: id, Message: message, Mac: out.Mac, MacAlgorithm: with.algorithm})
			if err != nil || !verified.MacValid {
				t.Errorf("VerifyMac: %+v, %v", verified, err)
			}
			_, err = c.VerifyMac(t.Context(), &kms.VerifyMacInput{KeyId: id, Message: message[1:], Mac: out.Mac, MacAlgorithm: with.algorithm})
			wantCode(t, err, "KMSInvalidMacException")
		})
	}
}

// Both sides of ECDH come to one secret, leading zeros kept.
func TestDeriveSharedSecret(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	for spec, curve := range map[types.KeySpec]ecdh.Curve{
		types.KeySpecEccNistP256: ecdh.P256(), types.KeySpecEccNistP384: ecdh.P384(), types.KeySpecEccNistP521: ecdh.P521(),
	} {
		t.Run(string(spec), func(t *testing.T) {
			id := aws.String(createKey(t, c, spec, types.KeyUsageTypeKeyAgreement))
			public, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: id})
			if err != nil {
				t.Fatal(err)
			}
			peer, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			peerDER, err := x509.MarshalPKIXPublicKey(peer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			out, err := c.DeriveSharedSecret(t.Context(), &kms.DeriveSharedSecretInput{KeyId: id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: peerDER})
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := x509.ParsePKIXPublicKey(public.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := parsed.(interface {
				ECDH() (*ecdh.PublicKey, error)
			}).ECDH()
			if err != nil {
				t.Fatal(err)
			}
			want, err := peer.ECDH(ours)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.SharedSecret, want) || out.KeyOrigin != types.OriginTypeAwsKms {
				t.Errorf("secret %x, want %x", out.SharedSecret, want)
			}
		})
	}
}

// What Go encrypts with the public key the token decrypts, and what KMS encrypts
// too; a changed ciphertext and one of another key are invalid.
func TestRSAEncryption(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	id := aws.String(createKey(t, c, types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt))
	public, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: id})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKIXPublicKey(public.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, h := range map[types.EncryptionAlgorithmSpec]func() hash.Hash{
		types.EncryptionAlgorithmSpecRsaesOaepSha1: sha1.New, types.EncryptionAlgorithmSpecRsaesOaepSha256: sha256.New,
	} {
		t.Run(string(algorithm), func(t *testing.T) {
			plaintext := []byte("secret")
			theirs, err := rsa.EncryptOAEP(h(), rand.Reader, parsed.(*rsa.PublicKey), plaintext, nil)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: id, Plaintext: plaintext, EncryptionAlgorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			for _, ciphertext := range [][]byte{theirs, ours.CiphertextBlob} {
				out, err := c.Decrypt(t.Context(), &kms.DecryptInput{KeyId: id, CiphertextBlob: ciphertext, EncryptionAlgorithm: algorithm})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.Plaintext, plaintext) || out.EncryptionAlgorithm != algorithm || out.KeyMaterialId != nil {
					t.Errorf("decrypted to %+v", out)
				}
			}
			broken := bytes.Clone(theirs)
			broken[100] ^= 1
			for _, ciphertext := range [][]byte{broken, theirs[1:], bytes.Repeat([]byte{0xff}, 256), {}, {0}} {
				_, err := c.Decrypt(t.Context(), &kms.DecryptInput{KeyId: id, CiphertextBlob: ciphertext, EncryptionAlgorithm: algorithm})
				if len(ciphertext) == 0 {
					wantCode(t, err, "ValidationException")
					continue
				}
				wantCode(t, err, "InvalidCiphertextException")
			}
			_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: theirs, EncryptionAlgorithm: algorithm})
			wantCode(t, err, "ValidationException")
		})
	}
}
