package kmstest

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// createExternal makes a key whose material is to be imported.
func (s *suite) createExternal(spec types.KeySpec, usage types.KeyUsageType) *string {
	s.Helper()
	return s.create(&kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage, Origin: types.OriginTypeExternal}).KeyId
}

// importKey makes a key of material that does not expire.
func (s *suite) importKey(spec types.KeySpec, usage types.KeyUsageType, material []byte) *string {
	s.Helper()
	id := s.createExternal(spec, usage)
	algorithm := types.AlgorithmSpecRsaesOaepSha256
	if strings.HasPrefix(string(spec), "RSA_") || spec == types.KeySpecEccNistP521 {
		algorithm = types.AlgorithmSpecRsaAesKeyWrapSha256
	}
	ok(s, s.ImportKeyMaterial, s.wrapped(id, algorithm, material))
	return id
}

// wrapped returns the input that imports material for good. Its wrapping key is
// made once for a key and an algorithm, since that takes long.
func (s *suite) wrapped(id *string, algorithm types.AlgorithmSpec, material []byte) *kms.ImportKeyMaterialInput {
	s.Helper()
	name := *id + string(algorithm)
	p := s.wrapping[name]
	if p == nil {
		p = ok(s, s.GetParametersForImport, &kms.GetParametersForImportInput{
			KeyId: id, WrappingAlgorithm: algorithm, WrappingKeySpec: types.WrappingKeySpecRsa2048,
		})
		s.wrapping[name] = p
		s.checkMembers(p, "ImportToken KeyId ParametersValidTo PublicKey")
		if until := time.Until(*p.ParametersValidTo); until < 23*time.Hour || until > 25*time.Hour {
			s.Errorf("parameters are valid for %v", until)
		}
	}
	return &kms.ImportKeyMaterialInput{
		KeyId: id, ImportToken: p.ImportToken, EncryptedKeyMaterial: Wrap(s, p.PublicKey, algorithm, material),
		ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire,
	}
}

// Wrap encrypts key material under the wrapping key of a SubjectPublicKeyInfo in
// DER, as users do.
func Wrap(t testing.TB, spki []byte, algorithm types.AlgorithmSpec, material []byte) []byte {
	t.Helper()
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	h := map[types.AlgorithmSpec]func() hash.Hash{
		types.AlgorithmSpecRsaesOaepSha1: sha1.New, types.AlgorithmSpecRsaesOaepSha256: sha256.New,
		types.AlgorithmSpecRsaAesKeyWrapSha1: sha1.New, types.AlgorithmSpecRsaAesKeyWrapSha256: sha256.New,
	}[algorithm]
	oaep := func(text []byte) []byte {
		out, err := rsa.EncryptOAEP(h(), rand.Reader, parsed.(*rsa.PublicKey), text, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if algorithm == types.AlgorithmSpecRsaesOaepSha1 || algorithm == types.AlgorithmSpecRsaesOaepSha256 {
		return oaep(material)
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek)
	return append(oaep(kek), wrapWithPadding(t, kek, material)...)
}

// wrapWithPadding is AES key wrap with padding (RFC 5649).
func wrapWithPadding(t testing.TB, kek, text []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	a := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(text)))
	padded := append(bytes.Clone(text), make([]byte, (8-len(text)%8)%8)...)
	n := len(padded) / 8
	for j := range 6 {
		for i := range n {
			b := append(bytes.Clone(a), padded[8*i:8*i+8]...)
			block.Encrypt(b, b)
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(b[:8])^uint64(n*j+i+1))
			copy(padded[8*i:], b[8:])
		}
	}
	return append(a, padded...)
}

func pkcs8(s *suite, private any) []byte {
	s.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		s.Fatal(err)
	}
	return der
}
