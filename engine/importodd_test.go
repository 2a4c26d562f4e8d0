package engine_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/kmstest"
)

// signingBy is how keys of a spec sign.
var signingBy = map[types.KeySpec]types.SigningAlgorithmSpec{
	types.KeySpecEccNistP256: types.SigningAlgorithmSpecEcdsaSha256, types.KeySpecEccNistEdwards25519: types.SigningAlgorithmSpecEd25519Sha512,
	types.KeySpecRsa2048: types.SigningAlgorithmSpecRsassaPkcs1V15Sha256,
}

// oddMaterial is a file that a user may bring.
type oddMaterial struct {
	name string
	der  []byte
	why  string // part of the message that refuses it; empty: it is taken
}

func der(t testing.TB, v any) []byte {
	t.Helper()
	out, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pkcs8Of is PKCS #8, with the public key that version 2 may have (RFC 5958).
func pkcs8Of(t testing.TB, a pkix.AlgorithmIdentifier, inner, public []byte) []byte {
	t.Helper()
	if public == nil {
		return der(t, struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}{0, a, inner})
	}
	return der(t, struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
		Public    asn1.BitString `asn1:"tag:1"`
	}{1, a, inner, asn1.BitString{Bytes: public, BitLength: 8 * len(public)}})
}

func ecAlgorithm(t testing.TB, curve asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{
		Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Parameters: asn1.RawValue{FullBytes: der(t, curve)},
	}
}

// sec1 is the private key of RFC 5915. Curve and public key may be nil.
func sec1(t testing.TB, version int, scalar []byte, curve asn1.ObjectIdentifier, public []byte) []byte {
	t.Helper()
	return der(t, struct {
		Version int
		Scalar  []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}{version, scalar, curve, asn1.BitString{Bytes: public, BitLength: 8 * len(public)}})
}

// oddSecrets are secret keys where one of so many bytes belongs.
func oddSecrets(size int) []oddMaterial {
	var all []oddMaterial
	for _, n := range []int{0, 1, 8, 16, 24, size - 1, size, size + 1, 48, 64, 100} {
		m := oddMaterial{fmt.Sprint(n, " bytes"), bytes.Repeat([]byte{5}, n), "bytes"}
		if n == size {
			m.why = ""
		}
		all = append(all, m)
	}
	return all
}

func oddEC(t testing.TB) []oddMaterial {
	p256, p384 := asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	key, other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	scalar, point, another := must(key.Bytes()), must(key.PublicKey.Bytes()), must(other.PublicKey.Bytes())
	compressed := elliptic.MarshalCompressed(elliptic.P256(), key.X, key.Y)
	of := func(inner []byte) []byte { return pkcs8Of(t, ecAlgorithm(t, p256), inner, nil) }
	whole := of(sec1(t, 1, scalar, nil, point))
	return []oddMaterial{
		{"as OpenSSL writes it", whole, ""},
		{"the private key alone", of(sec1(t, 1, scalar, nil, nil)), ""},
		{"the curve named twice", of(sec1(t, 1, scalar, p256, point)), ""},
		{"a compressed public key", of(sec1(t, 1, scalar, nil, compressed)), ""},
		{"version 2 with its public key", pkcs8Of(t, ecAlgorithm(t, p256), sec1(t, 1, scalar, nil, nil), point), ""},
		{"two curves", of(sec1(t, 1, scalar, p384, point)), "two curves"},
		{"another public key", of(sec1(t, 1, scalar, nil, another)), "public key"},
		{"another compressed public key", of(sec1(t, 1, scalar, nil, elliptic.MarshalCompressed(elliptic.P256(), other.X, other.Y))), "public key"},
		{"a public key that is no point", of(sec1(t, 1, scalar, nil, []byte{4, 1, 2, 3})), "public key"},
		{"version 2 with another public key", pkcs8Of(t, ecAlgorithm(t, p256), sec1(t, 1, scalar, nil, nil), another), "public key"},
		{"bytes behind it", append(bytes.Clone(whole), 0), "follow"},
		{"bytes behind the inner structure", of(append(sec1(t, 1, scalar, nil, point), 0)), "follow"},
		{"zero", of(sec1(t, 1, make([]byte, 32), nil, nil)), "private key"},
		{"beyond the order", of(sec1(t, 1, bytes.Repeat([]byte{0xff}, 32), nil, nil)), "private key"},
		{"too long", of(sec1(t, 1, append([]byte{1}, scalar...), nil, nil)), "private key"},
		{"an unknown version", of(sec1(t, 7, scalar, nil, point)), "version"},
		{"another curve", pkcs8Of(t, ecAlgorithm(t, p384), sec1(t, 1, scalar, nil, nil), nil), "curve"},
		{"no PKCS #8", sec1(t, 1, scalar, p256, point), "PKCS #8"},
		{"PEM", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "PEM"},
		{"random bytes", bytes.Repeat([]byte{7}, 121), "PKCS #8"},
	}
}

func oddEd25519(t testing.TB) []oddMaterial {
	a := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}}
	seed := bytes.Repeat([]byte{3}, 32)
	public, another := ed25519.NewKeyFromSeed(seed)[32:], ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, 32))[32:]
	whole := pkcs8Of(t, a, der(t, seed), nil)
	return []oddMaterial{
		{"as OpenSSL writes it", whole, ""},
		{"version 2 with its public key", pkcs8Of(t, a, der(t, seed), public), ""},
		{"version 2 with another public key", pkcs8Of(t, a, der(t, seed), another), "public key"},
		{"bytes behind it", append(bytes.Clone(whole), 0), "follow"},
		{"bytes behind the inner structure", pkcs8Of(t, a, append(der(t, seed), 0), nil), "follow"},
		{"too short", pkcs8Of(t, a, der(t, seed[1:]), nil), "private key"},
		{"X25519", pkcs8Of(t, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 110}}, der(t, seed), nil), "algorithm"},
	}
}

// rsaNumbers is RSAPrivateKey of RFC 8017, appendix A.1.2.
type rsaNumbers struct {
	Version                         int
	N, E, D, P, Q, Dp, Dq, Inverted *big.Int
}

func numbersOf(key *rsa.PrivateKey) rsaNumbers {
	return rsaNumbers{
		0, key.N, big.NewInt(int64(key.E)), key.D, key.Primes[0], key.Primes[1],
		key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv,
	}
}

// withExponent returns a pair with the same modulus and another exponent: the first
// from e on that such a pair can have.
func withExponent(key *rsa.PrivateKey, e *big.Int) rsaNumbers {
	one := big.NewInt(1)
	less := func(n *big.Int) *big.Int { return new(big.Int).Sub(n, one) }
	p, q := key.Primes[0], key.Primes[1]
	d := new(big.Int)
	for d.ModInverse(e, new(big.Int).Mul(less(p), less(q))) == nil {
		e.Add(e, big.NewInt(2))
	}
	return rsaNumbers{0, key.N, e, d, p, q, new(big.Int).Mod(d, less(p)), new(big.Int).Mod(d, less(q)), new(big.Int).ModInverse(q, p)}
}

func oddRSA(t testing.TB, key *rsa.PrivateKey) []oddMaterial {
	a := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}
	change := func(f func(*rsaNumbers)) []byte {
		n := numbersOf(key)
		f(&n)
		return pkcs8Of(t, a, der(t, n), nil)
	}
	plus2 := func(n *big.Int) *big.Int { return new(big.Int).Add(n, big.NewInt(2)) }
	zero := new(big.Int)
	whole, inner := change(func(*rsaNumbers) {}), der(t, numbersOf(key))
	other := must(rsa.GenerateKey(rand.Reader, 2048))
	long := must(rsa.GenerateKey(rand.Reader, 1024))
	exponent := func(text string) []byte {
		e, _ := new(big.Int).SetString(text, 0)
		return pkcs8Of(t, a, der(t, withExponent(key, e)), nil)
	}
	type public struct{ N, E *big.Int }
	own, others := der(t, public{key.N, big.NewInt(int64(key.E))}), der(t, public{other.N, big.NewInt(int64(other.E))})
	return []oddMaterial{
		{"as OpenSSL writes it", whole, ""},
		{"without primes and CRT values", change(func(n *rsaNumbers) { n.P, n.Q, n.Dp, n.Dq, n.Inverted = zero, zero, zero, zero, zero }), ""},
		{"without CRT values", change(func(n *rsaNumbers) { n.Dp, n.Dq, n.Inverted = zero, zero, zero }), ""},
		{"the smaller prime first", change(func(n *rsaNumbers) {
			n.P, n.Q, n.Dp, n.Dq = n.Q, n.P, n.Dq, n.Dp
			n.Inverted = new(big.Int).ModInverse(n.Q, n.P)
		}), ""},
		{"version 2 with its public key", pkcs8Of(t, a, inner, own), ""},
		{"version 2 with another public key", pkcs8Of(t, a, inner, others), "public key"},
		{"an exponent beyond 2^31", exponent("0x10000000f"), "exponent"},
		{"an exponent beyond 2^64", exponent("0x100000000000000000000001d"), "exponent"},
		{"no CRT values and another d", change(func(n *rsaNumbers) {
			n.D, n.P, n.Q, n.Dp, n.Dq, n.Inverted = plus2(n.D), zero, zero, zero, zero, zero
		}), "numbers"},
		{"another d", change(func(n *rsaNumbers) { n.D = plus2(n.D) }), "numbers"},
		{"another e", change(func(n *rsaNumbers) { n.E = plus2(n.E) }), "numbers"},
		{"another modulus", change(func(n *rsaNumbers) { n.N = plus2(n.N) }), "numbers"},
		{"another prime", change(func(n *rsaNumbers) { n.P = plus2(n.P) }), "numbers"},
		{"another CRT exponent", change(func(n *rsaNumbers) { n.Dp = plus2(n.Dp) }), "numbers"},
		{"another coefficient", change(func(n *rsaNumbers) { n.Inverted = plus2(n.Inverted) }), "numbers"},
		{"negative numbers", change(func(n *rsaNumbers) { n.D = new(big.Int).Neg(n.D) }), "numbers"},
		{"nothing but zeros", change(func(n *rsaNumbers) { *n = rsaNumbers{0, zero, zero, zero, zero, zero, zero, zero, zero} }), "bits"},
		{"1024 bits", pkcs8(t, long), "bits"},
		{"bytes behind it", append(bytes.Clone(whole), 0), "follow"},
		{"bytes behind the inner structure", pkcs8Of(t, a, append(bytes.Clone(inner), 0), nil), "follow"},
		{"several primes", pkcs8Of(t, a, der(t, func() rsaNumbers { n := numbersOf(key); n.Version = 1; return n }()), nil), "version"},
		{"no PKCS #8", inner, "PKCS #8"},
		{"an EC key", pkcs8(t, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))), "algorithm"},
	}
}

// What depends on the caller's material alone is his to mend, whichever way it
// came and wherever it was looked at: it is told why it is refused, nothing of it
// stays, and the token is not taken for a sick one. What can be told from the rest
// of a key is completed.
func TestOddMaterial(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	twoSteps := []types.AlgorithmSpec{types.AlgorithmSpecRsaAesKeyWrapSha1, types.AlgorithmSpecRsaAesKeyWrapSha256}
	all := append([]types.AlgorithmSpec{types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaesOaepSha256}, twoSteps...)
	for _, test := range []struct {
		spec       types.KeySpec
		usage      types.KeyUsageType
		algorithms []types.AlgorithmSpec
		materials  []oddMaterial
	}{
		{types.KeySpecSymmetricDefault, types.KeyUsageTypeEncryptDecrypt, all[:2], oddSecrets(32)},
		{types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac, all[:2], oddSecrets(32)},
		{types.KeySpecHmac224, types.KeyUsageTypeGenerateVerifyMac, all[:2], oddSecrets(28)},
		{types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify, all, oddEC(t)},
		{types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify, all, oddEd25519(t)},
		{types.KeySpecRsa2048, types.KeyUsageTypeSignVerify, twoSteps, oddRSA(t, rsaKey)},
	} {
		id := createExternal(t, c, test.spec, test.usage)
		for _, algorithm := range test.algorithms {
			p := must(c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
				KeyId: &id, WrappingAlgorithm: algorithm, WrappingKeySpec: types.WrappingKeySpecRsa2048,
			}))
			for _, m := range test.materials {
				if len(m.der) > 2048/8-2*32-2 && !strings.HasPrefix(string(algorithm), "RSA_AES") {
					continue // too long for it
				}
				importOdd(t, c, test.spec, string(algorithm), m, &kms.ImportKeyMaterialInput{
					KeyId: &id, ImportToken: p.ImportToken, EncryptedKeyMaterial: kmstest.Wrap(t, p.PublicKey, algorithm, m.der),
					ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire,
				})
			}
		}
	}
	if n := f.config.Token.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

func importOdd(t *testing.T, c *engine.Client, spec types.KeySpec, by string, m oddMaterial, in *kms.ImportKeyMaterialInput) {
	t.Helper()
	_, err := c.ImportKeyMaterial(t.Context(), in)
	if m.why != "" {
		if !isCode(err, "IncorrectKeyMaterialException") || !strings.Contains(err.Error(), m.why) {
			t.Errorf("%s by %s, %s: %v", spec, by, m.name, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s by %s, %s: %v", spec, by, m.name, err)
		return
	}
	if a, ok := signingBy[spec]; ok {
		s, err := c.Sign(t.Context(), &kms.SignInput{KeyId: in.KeyId, Message: []byte("m"), SigningAlgorithm: a})
		if err == nil {
			_, err = c.Verify(t.Context(), &kms.VerifyInput{KeyId: in.KeyId, Message: []byte("m"), Signature: s.Signature, SigningAlgorithm: a})
		}
		if err != nil {
			t.Errorf("%s by %s, %s: it does not sign: %v", spec, by, m.name, err)
		}
	}
}
