package kmstest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// importMaterial is the life of imported material.
func (s *suite) importMaterial() {
	s.sub("Life", (*suite).importedLife)
	s.sub("Expiry", (*suite).importedExpiry)
	s.sub("Rotation", (*suite).importedRotation)
	s.sub("RSA", (*suite).importedRSA)
	s.sub("Refused", (*suite).importsRefused)
}

// importedLife imports, deletes and imports again: the same material has the same
// id and opens what it has sealed, and no other is taken in its place.
func (s *suite) importedLife() {
	material := make([]byte, 32)
	_, _ = rand.Read(material)
	id := s.createExternal("", "")
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}, "KMSInvalidStateException")
	first := ok(s, s.ImportKeyMaterial, s.wrapped(id, types.AlgorithmSpecRsaesOaepSha1, material))
	s.checkMembers(first, "KeyId KeyMaterialId")
	m := s.describe(id)
	s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CurrentKeyMaterialId ExpirationModel")
	if m.KeyState != types.KeyStateEnabled || !m.Enabled || m.ExpirationModel != types.ExpirationModelTypeKeyMaterialDoesNotExpire || *m.CurrentKeyMaterialId != *first.KeyMaterialId {
		s.Errorf("after the import: %+v", *m)
	}
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})

	deleted := ok(s, s.DeleteImportedKeyMaterial, &kms.DeleteImportedKeyMaterialInput{KeyId: id})
	if *deleted.KeyId != arn(id) || *deleted.KeyMaterialId != *first.KeyMaterialId || s.state(id) != types.KeyStatePendingImport {
		s.Errorf("deleted %+v, the key is %s", deleted, s.state(id))
	}
	refused(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}, "KMSInvalidStateException")
	other := make([]byte, 32)
	_, _ = rand.Read(other)
	refused(s, s.ImportKeyMaterial, s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, other), "IncorrectKeyMaterialException")
	again := ok(s, s.ImportKeyMaterial, s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, material))
	if *again.KeyMaterialId != *first.KeyMaterialId {
		s.Error("the same material has another id")
	}
	if out := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); string(out.Plaintext) != "p" {
		s.Errorf("decrypted to %q", out.Plaintext)
	}
}

// importedExpiry waits for the end of material that expires.
func (s *suite) importedExpiry() {
	id := s.createExternal("", "")
	in := s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{9}, 32))
	end := time.Now().Add(1500 * time.Millisecond).Truncate(time.Millisecond)
	in.ExpirationModel, in.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, &end
	ok(s, s.ImportKeyMaterial, in)
	m := s.describe(id)
	s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CurrentKeyMaterialId ExpirationModel ValidTo")
	if m.ExpirationModel != types.ExpirationModelTypeKeyMaterialExpires || m.ValidTo.Sub(end).Abs() > time.Millisecond {
		s.Errorf("valid to %v, want %v", m.ValidTo, end)
	}
	s.wait("the material expires", func() bool { return s.state(id) == types.KeyStatePendingImport })
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}, "KMSInvalidStateException")
}

// wait polls, as clients do, for what the KMS does by itself.
func (s *suite) wait(what string, done func() bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			s.Fatalf("%s: not within a minute", what)
		case <-ticker.C:
		}
	}
}

// importedRotation brings new material beside the first, and rotates to it.
func (s *suite) importedRotation() {
	id := s.importKey("", "", bytes.Repeat([]byte{1}, 32))
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})
	refused(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id}, "KMSInvalidStateException") // to what?
	in := s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{2}, 32))
	in.ImportType, in.KeyMaterialDescription = types.ImportTypeNewKeyMaterial, aws.String("the second")
	next := ok(s, s.ImportKeyMaterial, in)
	if current := s.describe(id).CurrentKeyMaterialId; *current == *next.KeyMaterialId {
		s.Error("new material is current before the rotation")
	}
	ok(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id})
	if current := s.describe(id).CurrentKeyMaterialId; *current != *next.KeyMaterialId {
		s.Errorf("current material %s, want %s", *current, *next.KeyMaterialId)
	}
	if out := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); string(out.Plaintext) != "p" || *out.KeyMaterialId == *next.KeyMaterialId {
		s.Errorf("decrypted to %q by %s", out.Plaintext, *out.KeyMaterialId)
	}
	list := ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial}).Rotations
	if len(list) != 2 {
		s.Fatalf("rotations %+v", list)
	}
	s.checkMembers(&list[0], "ExpirationModel ImportState KeyId KeyMaterialId KeyMaterialState")
	s.checkMembers(&list[1], "ExpirationModel ImportState KeyId KeyMaterialDescription KeyMaterialId KeyMaterialState RotationDate RotationType")
	// One material of the two is enough to stop the key.
	ok(s, s.DeleteImportedKeyMaterial, &kms.DeleteImportedKeyMaterialInput{KeyId: id, KeyMaterialId: list[0].KeyMaterialId})
	if got := s.state(id); got != types.KeyStatePendingImport {
		s.Errorf("the key is %s", got)
	}
}

// importedRSA signs by PKCS #1 v1.5, which is deterministic, as the standard
// library does with the same key, also where the file has its modulus and exponents
// alone.
func (s *suite) importedRSA() {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.Fatal(err)
	}
	s.signsAs(s.importKey(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify, pkcs8(s, private)), private)
	s.signsAs(s.importKey(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify, withoutPrimes(s, private)), private)
}

// withoutPrimes is PKCS #8 with zeros for the primes and what follows them.
func withoutPrimes(s *suite, key *rsa.PrivateKey) []byte {
	s.Helper()
	zero := new(big.Int)
	inner, err := asn1.Marshal(struct {
		Version                   int
		N                         *big.Int
		E                         int
		D, P, Q, Dp, Dq, Inverted *big.Int
	}{0, key.N, key.E, key.D, zero, zero, zero, zero, zero})
	if err != nil {
		s.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, inner})
	if err != nil {
		s.Fatal(err)
	}
	return der
}

// signsAs compares the signatures of an imported key with those of its material.
func (s *suite) signsAs(id *string, private *rsa.PrivateKey) {
	s.Helper()
	s.checkMembers(s.describe(id), common+" CustomerMasterKeySpec SigningAlgorithms ExpirationModel")
	message := []byte("message")
	for _, a := range []types.SigningAlgorithmSpec{
		types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, types.SigningAlgorithmSpecRsassaPkcs1V15Sha384, types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
	} {
		want, err := rsa.SignPKCS1v15(rand.Reader, private, hashOf(a), digestOf(hashOf(a), message))
		if err != nil {
			s.Fatal(err)
		}
		if out := ok(s, s.Sign, &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: a}); !bytes.Equal(out.Signature, want) {
			s.Errorf("%s: another signature than the standard library's", a)
		}
	}
}

// importsRefused is what cannot be imported, and how not.
func (s *suite) importsRefused() {
	id, made, another := s.createExternal("", ""), s.symmetric(), s.createExternal("", "")
	material := bytes.Repeat([]byte{7}, 32)
	parameters := func(id *string, a types.AlgorithmSpec) *kms.GetParametersForImportInput {
		return &kms.GetParametersForImportInput{KeyId: id, WrappingAlgorithm: a, WrappingKeySpec: types.WrappingKeySpecRsa2048}
	}
	refused(s, s.GetParametersForImport, parameters(made, types.AlgorithmSpecRsaesOaepSha256), "UnsupportedOperationException")
	refused(s, s.GetParametersForImport, parameters(id, types.AlgorithmSpecSm2pke), "UnsupportedOperationException")
	rsaKey := s.createExternal(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify)
	refused(s, s.GetParametersForImport, parameters(rsaKey, types.AlgorithmSpecRsaesOaepSha256), "UnsupportedOperationException")
	p521 := s.createExternal(types.KeySpecEccNistP521, types.KeyUsageTypeSignVerify)
	refused(s, s.GetParametersForImport, parameters(p521, types.AlgorithmSpecRsaesOaepSha256), "UnsupportedOperationException")
	refused(s, s.DeleteImportedKeyMaterial, &kms.DeleteImportedKeyMaterialInput{KeyId: made}, "UnsupportedOperationException")

	good := s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, material)
	for code, change := range map[string]func(*kms.ImportKeyMaterialInput){
		"InvalidImportTokenException": func(in *kms.ImportKeyMaterialInput) { in.KeyId = another },
		"InvalidCiphertextException":  func(in *kms.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = bytes.Repeat([]byte{1}, 256) },
		"ValidationException":         func(in *kms.ImportKeyMaterialInput) { in.ExpirationModel = "" },
		"IncorrectKeyMaterialException": func(in *kms.ImportKeyMaterialInput) {
			*in = *s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, material[1:])
		},
	} {
		in := *good
		change(&in)
		refused(s, s.ImportKeyMaterial, &in, code)
	}
	if got := s.state(id); got != types.KeyStatePendingImport {
		s.Errorf("after refused imports the key is %s", got)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	p256 := s.createExternal(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	refused(s, s.ImportKeyMaterial, s.wrapped(p256, types.AlgorithmSpecRsaAesKeyWrapSha1, pkcs8(s, ec)), "IncorrectKeyMaterialException")
}
