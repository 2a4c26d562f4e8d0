package kmstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"embed"
	"encoding/asn1"
	"encoding/hex"
	"math/big"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/go-json-experiment/json"
)

//go:embed testdata/*.json
var files embed.FS

// read reads a file of vectors, which says where they were published.
func read[V any](s *suite, name string) []V {
	s.Helper()
	data, err := files.ReadFile("testdata/" + name)
	if err != nil {
		s.Fatal(err)
	}
	var file struct {
		Source  string `json:"source"`
		Vectors []V    `json:"vectors"`
	}
	if err := json.Unmarshal(data, &file, json.RejectUnknownMembers(true)); err != nil {
		s.Fatal(name, err)
	}
	if file.Source == "" || len(file.Vectors) == 0 {
		s.Fatalf("%s has no vectors, or does not say whose", name)
	}
	return file.Vectors
}

func unhex(s *suite, text string) []byte {
	s.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		s.Fatal(err)
	}
	return b
}

// vectors imports published keys and compares what the KMS computes with them.
func (s *suite) vectors() {
	s.sub("RFC4231", (*suite).rfc4231)
	s.sub("RFC6979", (*suite).rfc6979)
	s.sub("RFC8032", (*suite).rfc8032)
	s.sub("RFC5903", (*suite).rfc5903)
}

// rfc4231 is HMAC.
func (s *suite) rfc4231() {
	type vector struct {
		Key     string `json:"key"`
		Message string `json:"message"`
		SHA224  string `json:"224"`
		SHA256  string `json:"256"`
		SHA384  string `json:"384"`
		SHA512  string `json:"512"`
	}
	ids := map[string]*string{} // by size and key
	for _, v := range read[vector](s, "rfc4231.json") {
		for size, want := range map[string]string{"224": v.SHA224, "256": v.SHA256, "384": v.SHA384, "512": v.SHA512} {
			a := types.MacAlgorithmSpec("HMAC_SHA_" + size)
			id := ids[size+v.Key]
			if id == nil {
				id = s.importKey(types.KeySpec("HMAC_"+size), types.KeyUsageTypeGenerateVerifyMac, digestOf(macHash(a), unhex(s, v.Key)))
				ids[size+v.Key] = id
			}
			message := unhex(s, v.Message)
			out := ok(s, s.GenerateMac, &kms.GenerateMacInput{KeyId: id, Message: message, MacAlgorithm: a})
			if hex.EncodeToString(out.Mac) != want {
				s.Errorf("%s of %.8s…: %x, want %s", a, v.Message, out.Mac, want)
			}
			ok(s, s.VerifyMac, &kms.VerifyMacInput{KeyId: id, Message: message, MacAlgorithm: a, Mac: unhex(s, want)})
		}
	}
}

// rfc6979 is ECDSA. Its signatures are deterministic and a token's are not: the
// KMS must find the published ones valid, and make such as their key verifies.
func (s *suite) rfc6979() {
	type vector struct {
		Spec      types.KeySpec              `json:"spec"`
		Algorithm types.SigningAlgorithmSpec `json:"algorithm"`
		Private   string                     `json:"private"`
		Message   string                     `json:"message"`
		R         string                     `json:"r"`
		S         string                     `json:"s"`
	}
	for _, v := range read[vector](s, "rfc6979.json") {
		private, err := ecdsa.ParseRawPrivateKey(curveOf(v.Spec), unhex(s, v.Private))
		if err != nil {
			s.Fatal(err)
		}
		id := s.importKey(v.Spec, types.KeyUsageTypeSignVerify, pkcs8(s, private))
		signature, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(unhex(s, v.R)), new(big.Int).SetBytes(unhex(s, v.S))})
		if err != nil {
			s.Fatal(err)
		}
		message := []byte(v.Message)
		ok(s, s.Verify, &kms.VerifyInput{KeyId: id, Message: message, Signature: signature, SigningAlgorithm: v.Algorithm})
		own := ok(s, s.Sign, &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: v.Algorithm})
		if !verifies(s, publicOf(s, private), v.Algorithm, message, own.Signature) {
			s.Errorf("%s: the published key does not verify the signature", v.Spec)
		}
	}
}

func curveOf(spec types.KeySpec) elliptic.Curve {
	return map[types.KeySpec]elliptic.Curve{
		types.KeySpecEccNistP256: elliptic.P256(), types.KeySpecEccNistP384: elliptic.P384(), types.KeySpecEccNistP521: elliptic.P521(),
	}[spec]
}

// rfc8032 is Ed25519, whose signatures are deterministic. With Ed25519ph tokens
// cannot sign, but the KMS can verify.
func (s *suite) rfc8032() {
	const spec = types.KeySpecEccNistEdwards25519
	if s.lacks(spec) {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			s.Fatal(err)
		}
		id := s.createExternal(spec, types.KeyUsageTypeSignVerify)
		refused(s, s.ImportKeyMaterial, s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, pkcs8(s, private)), "UnsupportedOperationException")
		return
	}
	type vector struct {
		Algorithm types.SigningAlgorithmSpec `json:"algorithm"`
		Private   string                     `json:"private"`
		Public    string                     `json:"public"`
		Message   string                     `json:"message"`
		Signature string                     `json:"signature"`
	}
	for _, v := range read[vector](s, "rfc8032.json") {
		private := ed25519.NewKeyFromSeed(unhex(s, v.Private))
		id := s.importKey(spec, types.KeyUsageTypeSignVerify, pkcs8(s, private))
		public := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: id})
		parsed, err := x509.ParsePKIXPublicKey(public.PublicKey)
		if err != nil || !bytes.Equal(parsed.(ed25519.PublicKey), unhex(s, v.Public)) {
			s.Errorf("public key %x, %v, want %s", public.PublicKey, err, v.Public)
		}
		message, kind := unhex(s, v.Message), types.MessageTypeRaw
		if v.Algorithm == types.SigningAlgorithmSpecEd25519PhSha512 {
			message, kind = digestOf(crypto.SHA512, message), types.MessageTypeDigest
		} else if out := ok(s, s.Sign, &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: v.Algorithm}); hex.EncodeToString(out.Signature) != v.Signature {
			s.Errorf("signature %x, want %s", out.Signature, v.Signature)
		}
		ok(s, s.Verify, &kms.VerifyInput{KeyId: id, Message: message, MessageType: kind, Signature: unhex(s, v.Signature), SigningAlgorithm: v.Algorithm})
	}
}

// rfc5903 is ECDH.
func (s *suite) rfc5903() {
	type vector struct {
		Spec    types.KeySpec `json:"spec"`
		Private string        `json:"private"`
		Peer    string        `json:"peer"`
		Secret  string        `json:"secret"`
	}
	for _, v := range read[vector](s, "rfc5903.json") {
		keys := map[string]*ecdsa.PrivateKey{}
		for _, text := range []string{v.Private, v.Peer} {
			key, err := ecdsa.ParseRawPrivateKey(curveOf(v.Spec), unhex(s, text))
			if err != nil {
				s.Fatal(err)
			}
			keys[text] = key
		}
		id := s.importKey(v.Spec, types.KeyUsageTypeKeyAgreement, pkcs8(s, keys[v.Private]))
		out := ok(s, s.DeriveSharedSecret, &kms.DeriveSharedSecretInput{
			KeyId: id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: publicOf(s, keys[v.Peer]),
		})
		if hex.EncodeToString(out.SharedSecret) != v.Secret || out.KeyOrigin != types.OriginTypeExternal {
			s.Errorf("%s: secret %x, want %s", v.Spec, out.SharedSecret, v.Secret)
		}
	}
}
