package kmstest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256 and SHA224
	_ "crypto/sha512" // for crypto.SHA384 and SHA512
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// publicOf returns the SubjectPublicKeyInfo of a private key's public key.
func publicOf(s *suite, private any) []byte {
	s.Helper()
	signer, ok := private.(crypto.Signer)
	if !ok {
		s.Fatalf("%T has no public key", private)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		s.Fatal(err)
	}
	return der
}

func hashOf(a types.SigningAlgorithmSpec) crypto.Hash {
	switch a {
	case types.SigningAlgorithmSpecRsassaPssSha384, types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, types.SigningAlgorithmSpecEcdsaSha384:
		return crypto.SHA384
	case types.SigningAlgorithmSpecRsassaPssSha512, types.SigningAlgorithmSpecRsassaPkcs1V15Sha512, types.SigningAlgorithmSpecEcdsaSha512,
		types.SigningAlgorithmSpecEd25519PhSha512:
		return crypto.SHA512
	}
	return crypto.SHA256
}

func digestOf(h crypto.Hash, message []byte) []byte {
	sum := h.New()
	_, _ = sum.Write(message) // a hash never fails
	return sum.Sum(nil)
}

// verifies reports whether a signature is valid, by the standard library.
func verifies(s *suite, spki []byte, a types.SigningAlgorithmSpec, message, signature []byte) bool {
	s.Helper()
	h := hashOf(a)
	digest := digestOf(h, message)
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return verifiesSecp256k1(s, spki, digest, signature)
	}
	switch k := parsed.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *rsa.PublicKey:
		if bytes.HasPrefix([]byte(a), []byte("RSASSA_PSS")) {
			return rsa.VerifyPSS(k, h, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(k, h, digest, signature) == nil
	}
	s.Fatalf("a public key of the type %T", parsed)
	return false
}

func verifiesSecp256k1(s *suite, spki, digest, signature []byte) bool {
	s.Helper()
	var info struct {
		Algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil || !info.Algorithm.Curve.Equal(asn1.ObjectIdentifier{1, 3, 132, 0, 10}) {
		s.Fatalf("a public key of curve %v: %v", info.Algorithm.Curve, err)
	}
	key, err := secp256k1.ParsePubKey(info.Key.RightAlign())
	if err != nil {
		s.Fatal(err)
	}
	parsed, err := secpecdsa.ParseDERSignature(signature)
	return err == nil && parsed.Verify(digest, key)
}

// signers are the key specs that sign, but for those that the token lacks.
func (s *suite) signers() []types.KeySpec {
	return slices.DeleteFunc([]types.KeySpec{
		types.KeySpecRsa2048, s.longestRSA(), types.KeySpecEccNistP256, types.KeySpecEccNistP384, types.KeySpecEccNistP521,
		types.KeySpecEccSecgP256k1, types.KeySpecEccNistEdwards25519,
	}, s.lacks)
}

// signatures has every signing algorithm that keys say they have: messages and
// digests, verified by the KMS and by the standard library.
func (s *suite) signatures() {
	message := []byte("the quick brown fox jumps over the lazy dog")
	for _, spec := range s.signers() {
		s.sub(string(spec), func(s *suite) {
			id := s.key(spec, types.KeyUsageTypeSignVerify)
			public := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: id})
			if *public.KeyId != arn(id) || public.KeySpec != spec || public.KeyUsage != types.KeyUsageTypeSignVerify {
				s.Errorf("GetPublicKey answered %+v", public)
			}
			for _, a := range public.SigningAlgorithms {
				if a == types.SigningAlgorithmSpecEd25519PhSha512 {
					// What the token cannot do: see the vectors for verifying.
					refused(s, s.Sign, &kms.SignInput{
						KeyId: id, Message: digestOf(crypto.SHA512, message), MessageType: types.MessageTypeDigest, SigningAlgorithm: a,
					}, "UnsupportedOperationException")
					continue
				}
				s.signAndVerify(id, public.PublicKey, a, message)
			}
			wrong := types.SigningAlgorithmSpecEcdsaSha256
			if spec == types.KeySpecEccNistP256 || spec == types.KeySpecEccSecgP256k1 {
				wrong = types.SigningAlgorithmSpecEcdsaSha512
			}
			refused(s, s.Sign, &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: wrong}, "InvalidKeyUsageException")
		})
	}
	symmetric := s.symmetric()
	refused(s, s.Sign, &kms.SignInput{KeyId: symmetric, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}, "InvalidKeyUsageException")
	refused(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: symmetric}, "UnsupportedOperationException")
}

func (s *suite) signAndVerify(id *string, public []byte, a types.SigningAlgorithmSpec, message []byte) {
	s.Helper()
	signature := ok(s, s.Sign, &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: a})
	s.checkMembers(signature, "KeyId Signature SigningAlgorithm")
	if !verifies(s, public, a, message, signature.Signature) {
		s.Errorf("%s: the standard library does not verify the signature", a)
	}
	in := kms.VerifyInput{KeyId: id, Message: message, Signature: signature.Signature, SigningAlgorithm: a}
	if out := ok(s, s.Verify, &in); !out.SignatureValid || *out.KeyId != arn(id) || out.SigningAlgorithm != a {
		s.Errorf("Verify answered %+v", out)
	}
	changed := in
	changed.Message = []byte("another message")
	refused(s, s.Verify, &changed, "KMSInvalidSignatureException")
	changed = in
	changed.Signature = bytes.Clone(in.Signature)
	changed.Signature[len(in.Signature)-1] ^= 1
	refused(s, s.Verify, &changed, "KMSInvalidSignatureException")

	digest := kms.SignInput{KeyId: id, Message: digestOf(hashOf(a), message), MessageType: types.MessageTypeDigest, SigningAlgorithm: a}
	if a == types.SigningAlgorithmSpecEd25519Sha512 {
		refused(s, s.Sign, &digest, "ValidationException") // it signs messages only
		return
	}
	if out := ok(s, s.Sign, &digest); !verifies(s, public, a, message, out.Signature) {
		s.Errorf("%s: the standard library does not verify the signature of the digest", a)
	}
	digest.Message = digest.Message[1:]
	refused(s, s.Sign, &digest, "ValidationException")
}

// macs has every MAC algorithm; the vectors compare them with published ones.
func (s *suite) macs() {
	message := []byte("message")
	for _, size := range []string{"224", "256", "384", "512"} {
		id := s.key(types.KeySpec("HMAC_"+size), types.KeyUsageTypeGenerateVerifyMac)
		a := types.MacAlgorithmSpec("HMAC_SHA_" + size)
		out := ok(s, s.GenerateMac, &kms.GenerateMacInput{KeyId: id, Message: message, MacAlgorithm: a})
		s.checkMembers(out, "KeyId Mac MacAlgorithm")
		verified := ok(s, s.VerifyMac, &kms.VerifyMacInput{KeyId: id, Message: message, MacAlgorithm: a, Mac: out.Mac})
		if !verified.MacValid || verified.MacAlgorithm != a || *verified.KeyId != arn(id) {
			s.Errorf("VerifyMac answered %+v", verified)
		}
		broken := bytes.Clone(out.Mac)
		broken[0] ^= 1
		refused(s, s.VerifyMac, &kms.VerifyMacInput{KeyId: id, Message: message, MacAlgorithm: a, Mac: broken}, "KMSInvalidMacException")
		refused(s, s.VerifyMac, &kms.VerifyMacInput{KeyId: id, Message: message, MacAlgorithm: a, Mac: out.Mac[1:]}, "KMSInvalidMacException")
		wrong := types.MacAlgorithmSpecHmacSha256
		if a == wrong {
			wrong = types.MacAlgorithmSpecHmacSha512
		}
		refused(s, s.GenerateMac, &kms.GenerateMacInput{KeyId: id, Message: message, MacAlgorithm: wrong}, "InvalidKeyUsageException")
	}
	refused(s, s.GenerateMac, &kms.GenerateMacInput{KeyId: s.symmetric(), Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}, "InvalidKeyUsageException")
}

func macHash(a types.MacAlgorithmSpec) crypto.Hash {
	return map[types.MacAlgorithmSpec]crypto.Hash{
		types.MacAlgorithmSpecHmacSha224: crypto.SHA224, types.MacAlgorithmSpecHmacSha256: crypto.SHA256,
		types.MacAlgorithmSpecHmacSha384: crypto.SHA384, types.MacAlgorithmSpecHmacSha512: crypto.SHA512,
	}[a]
}

// keyAgreement derives with a peer of the standard library, which must come to the
// same secret.
func (s *suite) keyAgreement() {
	for spec, curve := range map[types.KeySpec]ecdh.Curve{
		types.KeySpecEccNistP256: ecdh.P256(), types.KeySpecEccNistP384: ecdh.P384(), types.KeySpecEccNistP521: ecdh.P521(),
	} {
		id := s.key(spec, types.KeyUsageTypeKeyAgreement)
		peer, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			s.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(peer.Public())
		if err != nil {
			s.Fatal(err)
		}
		out := ok(s, s.DeriveSharedSecret, &kms.DeriveSharedSecretInput{KeyId: id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: spki})
		s.checkMembers(out, "KeyAgreementAlgorithm KeyId KeyOrigin SharedSecret")
		public := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: id})
		s.checkMembers(public, "CustomerMasterKeySpec KeyAgreementAlgorithms KeyId KeySpec KeyUsage PublicKey")
		if want := agree(s, peer, public.PublicKey); !bytes.Equal(out.SharedSecret, want) || out.KeyOrigin != types.OriginTypeAwsKms {
			s.Errorf("%s: another secret than the peer's", spec)
		}
	}
	id := s.key(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)
	foreign := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: s.key(types.KeySpecEccNistP384, types.KeyUsageTypeKeyAgreement)})
	for _, public := range [][]byte{foreign.PublicKey, []byte("none")} {
		refused(s, s.DeriveSharedSecret, &kms.DeriveSharedSecretInput{KeyId: id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: public}, "ValidationException")
	}
	refused(s, s.DeriveSharedSecret, &kms.DeriveSharedSecretInput{
		KeyId: s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify), KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: foreign.PublicKey,
	}, "InvalidKeyUsageException")
	refused(s, s.Sign, &kms.SignInput{KeyId: id, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}, "InvalidKeyUsageException")
}

// agree computes a shared secret in the standard library.
func agree(s *suite, private *ecdh.PrivateKey, spki []byte) []byte {
	s.Helper()
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		s.Fatal(err)
	}
	public, err := parsed.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		s.Fatal(err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		s.Fatal(err)
	}
	return secret
}
