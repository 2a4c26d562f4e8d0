package engine_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// createKey makes a key and returns its id.
func createKey(t testing.TB, c *engine.Client, spec types.KeySpec, usage types.KeyUsageType) string {
	t.Helper()
	out, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
	if err != nil {
		t.Fatal(err)
	}
	return *out.KeyMetadata.KeyId
}

// signers are the key specs that sign, with their algorithms.
func signers() []struct {
	spec       types.KeySpec
	algorithms []types.SigningAlgorithmSpec
} {
	rsa := []types.SigningAlgorithmSpec{
		types.SigningAlgorithmSpecRsassaPssSha256, types.SigningAlgorithmSpecRsassaPssSha384, types.SigningAlgorithmSpecRsassaPssSha512,
		types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
	}
	one := func(a types.SigningAlgorithmSpec) []types.SigningAlgorithmSpec {
		return []types.SigningAlgorithmSpec{a}
	}
	return []struct {
		spec       types.KeySpec
		algorithms []types.SigningAlgorithmSpec
	}{
		{types.KeySpecRsa2048, rsa},
		{types.KeySpecRsa3072, rsa},
		{types.KeySpecRsa4096, rsa},
		{types.KeySpecEccNistP256, one(types.SigningAlgorithmSpecEcdsaSha256)},
		{types.KeySpecEccNistP384, one(types.SigningAlgorithmSpecEcdsaSha384)},
		{types.KeySpecEccNistP521, one(types.SigningAlgorithmSpecEcdsaSha512)},
		{types.KeySpecEccSecgP256k1, one(types.SigningAlgorithmSpecEcdsaSha256)},
		{types.KeySpecEccNistEdwards25519, one(types.SigningAlgorithmSpecEd25519Sha512)},
	}
}

// Every algorithm of every key spec: OpenSSL verifies what the token signed, by
// the public key of GetPublicKey, and so does Verify; a changed message, a
// changed signature and another algorithm do not verify.
func TestSignVerify(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	message := []byte("the quick brown fox jumps over the lazy dog")
	for _, s := range signers() {
		t.Run(string(s.spec), func(t *testing.T) {
			id := aws.String(createKey(t, c, s.spec, types.KeyUsageTypeSignVerify))
			public, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: id})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range s.algorithms {
				out, err := c.Sign(t.Context(), &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: a})
				if err != nil {
					t.Fatalf("%s: %v", a, err)
				}
				if err := opensslVerify(t, public.PublicKey, a, message, out.Signature); err != nil {
					t.Errorf("%s: OpenSSL does not verify: %v", a, err)
				}
				verified, err := c.Verify(t.Context(), &kms.VerifyInput{KeyId: id, Message: message, Signature: out.Signature, SigningAlgorithm: a})
				if err != nil || !verified.SignatureValid || verified.SigningAlgorithm != a {
					t.Errorf("%s: Verify: %+v, %v", a, verified, err)
				}
				_, err = c.Verify(t.Context(), &kms.VerifyInput{KeyId: id, Message: message[1:], Signature: out.Signature, SigningAlgorithm: a})
				wantCode(t, err, "KMSInvalidSignatureException")
				broken := bytes.Clone(out.Signature)
				broken[len(broken)-1] ^= 1
				_, err = c.Verify(t.Context(), &kms.VerifyInput{KeyId: id, Message: message, Signature: broken, SigningAlgorithm: a})
				wantCode(t, err, "KMSInvalidSignatureException")
			}
		})
	}
}

// opensslVerify verifies a signature with OpenSSL's command.
func opensslVerify(t *testing.T, public []byte, a types.SigningAlgorithmSpec, message, signature []byte) error {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, sig, msg := file("key", public), file("sig", signature), file("msg", message)
	args := []string{"dgst", "-keyform", "DER", "-verify", key, "-signature", sig}
	digest := map[types.SigningAlgorithmSpec]string{
		types.SigningAlgorithmSpecRsassaPssSha256: "-sha256", types.SigningAlgorithmSpecRsassaPssSha384: "-sha384", types.SigningAlgorithmSpecRsassaPssSha512: "-sha512",
		types.SigningAlgorithmSpecRsassaPkcs1V15Sha256: "-sha256", types.SigningAlgorithmSpecRsassaPkcs1V15Sha384: "-sha384", types.SigningAlgorithmSpecRsassaPkcs1V15Sha512: "-sha512",
		types.SigningAlgorithmSpecEcdsaSha256: "-sha256", types.SigningAlgorithmSpecEcdsaSha384: "-sha384", types.SigningAlgorithmSpecEcdsaSha512: "-sha512",
	}[a]
	switch a {
	case types.SigningAlgorithmSpecEd25519Sha512:
		args = []string{"pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", key, "-sigfile", sig, "-rawin", "-in", msg}
	case types.SigningAlgorithmSpecRsassaPssSha256, types.SigningAlgorithmSpecRsassaPssSha384, types.SigningAlgorithmSpecRsassaPssSha512:
		args = append(args, digest, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", msg)
	default:
		args = append(args, digest, msg)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	if err != nil {
		t.Logf("openssl: %s", out)
	}
	return err
}

// A digest signs as its message does, where an algorithm takes digests.
func TestSignDigest(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	id := aws.String(createKey(t, c, types.KeySpecEccNistP384, types.KeyUsageTypeSignVerify))
	message := []byte("message")
	digest := sha512.Sum384(message)
	out, err := c.Sign(t.Context(), &kms.SignInput{KeyId: id, Message: digest[:], MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha384})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(t.Context(), &kms.VerifyInput{KeyId: id, Message: message, Signature: out.Signature, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha384}); err != nil {
		t.Error(err)
	}
	_, err = c.Sign(t.Context(), &kms.SignInput{KeyId: id, Message: digest[1:], MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha384})
	wantCode(t, err, "ValidationException")
}

// SoftHSM2 does not sign by Ed25519ph; signatures of others are verified.
func TestEd25519ph(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ph := types.SigningAlgorithmSpecEd25519PhSha512
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := importKey(t, c, types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify, pkcs8(t, private))
	digest := sha512.Sum512([]byte("message"))
	signature, err := private.Sign(nil, digest[:], &ed25519.Options{Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(t.Context(), &kms.VerifyInput{KeyId: &id, Message: digest[:], MessageType: types.MessageTypeDigest, Signature: signature, SigningAlgorithm: ph}); err != nil {
		t.Error(err)
	}
	pure := ed25519.Sign(private, digest[:])
	_, err = c.Verify(t.Context(), &kms.VerifyInput{KeyId: &id, Message: digest[:], MessageType: types.MessageTypeDigest, Signature: pure, SigningAlgorithm: ph})
	wantCode(t, err, "KMSInvalidSignatureException")
	_, err = c.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: digest[:], MessageType: types.MessageTypeDigest, SigningAlgorithm: ph})
	wantCode(t, err, "UnsupportedOperationException")
	_, err = c.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: digest[:], SigningAlgorithm: ph})
	wantCode(t, err, "ValidationException")
	_, err = c.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: digest[:], MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEd25519Sha512})
	wantCode(t, err, "ValidationException")
	out, err := c.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: []byte("message"), SigningAlgorithm: types.SigningAlgorithmSpecEd25519Sha512})
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public, []byte("message"), out.Signature) {
		t.Error("the signature does not verify by the key that was imported")
	}
}

// What a key is not for is refused, and the error says so.
func TestWrongUsage(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	symmetric := aws.String(createKey(t, c, "", ""))
	signing := aws.String(createKey(t, c, types.KeySpecRsa2048, types.KeyUsageTypeSignVerify))
	encrypting := aws.String(createKey(t, c, types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt))
	mac := aws.String(createKey(t, c, types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac))
	agreeing := aws.String(createKey(t, c, types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement))
	for name, call := range map[string]struct {
		code string
		err  func() error
	}{
		"sign with a symmetric key": {"InvalidKeyUsageException", func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: symmetric, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256})
			return err
		}},
		"sign with an encryption key": {"InvalidKeyUsageException", func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: encrypting, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256})
			return err
		}},
		"sign by ECDSA with RSA": {"InvalidKeyUsageException", func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: signing, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
			return err
		}},
		"sign with a key for agreement": {"InvalidKeyUsageException", func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: agreeing, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
			return err
		}},
		"sign external mu": {"ValidationException", func() error {
			_, err := c.Sign(ctx, &kms.SignInput{KeyId: signing, Message: make([]byte, 64), MessageType: types.MessageTypeExternalMu, SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256})
			return err
		}},
		"encrypt with a signing key": {"InvalidKeyUsageException", func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: signing, Plaintext: []byte("p"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha1})
			return err
		}},
		"encrypt with RSA by default": {"InvalidKeyUsageException", func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: encrypting, Plaintext: []byte("p")})
			return err
		}},
		"encrypt symmetrically by OAEP": {"InvalidKeyUsageException", func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: symmetric, Plaintext: []byte("p"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha1})
			return err
		}},
		"encrypt with RSA and a context": {"ValidationException", func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: encrypting, Plaintext: []byte("p"), EncryptionContext: map[string]string{"a": "b"}, EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha1})
			return err
		}},
		"encrypt too much": {"ValidationException", func() error {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: encrypting, Plaintext: make([]byte, 191), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256})
			return err
		}},
		"data key under RSA": {"InvalidKeyUsageException", func() error {
			_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: encrypting, KeySpec: types.DataKeySpecAes256})
			return err
		}},
		"public key of a symmetric key": {"UnsupportedOperationException", func() error {
			_, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: symmetric})
			return err
		}},
		"public key of an HMAC key": {"UnsupportedOperationException", func() error {
			_, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: mac})
			return err
		}},
		"MAC of another length": {"InvalidKeyUsageException", func() error {
			_, err := c.GenerateMac(ctx, &kms.GenerateMacInput{KeyId: mac, Message: []byte("m"), MacAlgorithm: types.MacAlgorithmSpecHmacSha512})
			return err
		}},
		"MAC with a symmetric key": {"InvalidKeyUsageException", func() error {
			_, err := c.GenerateMac(ctx, &kms.GenerateMacInput{KeyId: symmetric, Message: []byte("m"), MacAlgorithm: types.MacAlgorithmSpecHmacSha256})
			return err
		}},
		"encapsulate": {"UnsupportedOperationException", func() error {
			_, err := c.Encapsulate(ctx, &kms.EncapsulateInput{KeyId: symmetric, EncapsulationAlgorithm: types.EncapsulationAlgorithmSpecMlKem})
			return err
		}},
		"agree with a signing key": {"InvalidKeyUsageException", func() error {
			_, err := c.DeriveSharedSecret(ctx, &kms.DeriveSharedSecretInput{KeyId: signing, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: []byte("x")})
			return err
		}},
		"agree with nonsense": {"ValidationException", func() error {
			_, err := c.DeriveSharedSecret(ctx, &kms.DeriveSharedSecretInput{KeyId: agreeing, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: []byte("x")})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, call.err(), call.code) })
	}
}

// Programs such as cosign sign by the first of SigningAlgorithms: their order is
// AWS's, and the first is one that can sign.
func TestOrderOfSigningAlgorithms(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	for spec, want := range map[types.KeySpec]string{
		types.KeySpecRsa2048: "RSASSA_PKCS1_V1_5_SHA_256 RSASSA_PKCS1_V1_5_SHA_384 RSASSA_PKCS1_V1_5_SHA_512 " +
			"RSASSA_PSS_SHA_256 RSASSA_PSS_SHA_384 RSASSA_PSS_SHA_512",
		types.KeySpecEccNistP256:         "ECDSA_SHA_256",
		types.KeySpecEccNistP384:         "ECDSA_SHA_384",
		types.KeySpecEccNistP521:         "ECDSA_SHA_512",
		types.KeySpecEccSecgP256k1:       "ECDSA_SHA_256",
		types.KeySpecEccNistEdwards25519: "ED25519_SHA_512 ED25519_PH_SHA_512",
	} {
		made := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify})).KeyMetadata
		public := must(c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: made.KeyId}))
		for _, got := range [][]types.SigningAlgorithmSpec{made.SigningAlgorithms, public.SigningAlgorithms} {
			if text := strings.Trim(fmt.Sprint(got), "[]"); text != want {
				t.Errorf("%s: %s", spec, text)
			}
		}
		if _, err := c.Sign(t.Context(), &kms.SignInput{KeyId: made.KeyId, Message: []byte("m"), SigningAlgorithm: public.SigningAlgorithms[0]}); err != nil {
			t.Errorf("%s does not sign by its first: %v", spec, err)
		}
	}
}
