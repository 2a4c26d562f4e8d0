package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func importMaterial(t testing.TB, v *keystore.Vault, id string, spec keystore.Spec, b []byte) keystore.Material {
	t.Helper()
	m, err := v.Import(patient(t), id, spec, b)
	if err != nil {
		t.Fatalf("import %s: %v", spec, err)
	}
	return m
}

// Test case 16 of the GCM specification (McGrew and Viega, appendix B), whose key
// has 256 bits.
func TestImportedAES(t *testing.T) {
	v, _, _ := newVault(t)
	m := importMaterial(t, v, "gcm", keystore.SpecAES256, unhex(t, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"))
	plaintext := unhex(t, "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
	aad := unhex(t, "feedfacedeadbeeffeedfacedeadbeefabaddad2")
	got, err := v.Decrypt(patient(t), &m, keystore.Sealed{
		IV:         unhex(t, "cafebabefacedbaddecaf888"),
		Ciphertext: unhex(t, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"),
		Tag:        unhex(t, "76fc6ece0f4e1768cddf8853bb2d551b"),
	}, aad)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("%x, %v", got, err)
	}
}

// RFC 4231, test case 1: its key of 20 bytes and the same with zeros behind it
// are one key to HMAC.
func TestImportedHMAC(t *testing.T) {
	v, _, _ := newVault(t)
	for spec, want := range map[keystore.Spec]string{
		keystore.SpecHMAC224: "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
		keystore.SpecHMAC256: "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
		keystore.SpecHMAC384: "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
		keystore.SpecHMAC512: "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
	} {
		key := make([]byte, macHashes[spec].Size())
		copy(key, bytes.Repeat([]byte{0x0b}, 20))
		m := importMaterial(t, v, "mac", spec, key)
		got, err := v.MAC(patient(t), &m, macHashes[spec], []byte("Hi There"))
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v", spec, got, err)
		}
		if _, err := v.MAC(patient(t), &m, crypto.SHA1, nil); !errors.Is(err, keystore.ErrMaterialSpec) {
			t.Errorf("%s with SHA-1: %v", spec, err)
		}
	}
}

// ecVectors are the keys of RFC 6979, appendix A.2.5 to A.2.7, and, for
// secp256k1, the private key 1, whose public key is the generator (SEC 2, section
// 2.4.1).
var ecVectors = map[keystore.Spec]struct {
	oid             asn1.ObjectIdentifier
	private, public string
}{
	keystore.SpecP256: {
		asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7},
		"c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
		"0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
	},
	keystore.SpecP384: {
		asn1.ObjectIdentifier{1, 3, 132, 0, 34},
		"6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
		"04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc138015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720",
	},
	keystore.SpecP521: {
		asn1.ObjectIdentifier{1, 3, 132, 0, 35},
		"00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
		"0401894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a400493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5",
	},
	keystore.SpecSecp256k1: {
		asn1.ObjectIdentifier{1, 3, 132, 0, 10},
		"0000000000000000000000000000000000000000000000000000000000000001",
		"0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
	},
}

// ecPKCS8 encodes a private key; point may be nil.
func ecPKCS8(t testing.TB, oid asn1.ObjectIdentifier, scalar, point []byte) []byte {
	t.Helper()
	type algorithm struct{ Kind, Curve asn1.ObjectIdentifier }
	inner, err := asn1.Marshal(struct {
		Version int
		Private []byte
	}{1, scalar})
	if point != nil {
		inner, err = asn1.Marshal(struct {
			Version int
			Private []byte
			Public  asn1.BitString `asn1:"explicit,tag:1"`
		}{1, scalar, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, oid}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestImportedEC(t *testing.T) {
	v, _, _ := newVault(t)
	other := openVault(t, v.Token())
	for spec, vector := range ecVectors {
		scalar, point := unhex(t, vector.private), unhex(t, vector.public)
		for name, der := range map[string][]byte{
			"with public": ecPKCS8(t, vector.oid, scalar, point), "without": ecPKCS8(t, vector.oid, scalar, nil),
			"short": ecPKCS8(t, vector.oid, bytes.TrimLeft(scalar, "\x00"), nil),
		} {
			m := importMaterial(t, v, "ec", spec, der)
			if !bytes.HasSuffix(m.Public, point) {
				t.Errorf("%s %s: public key %x", spec, name, m.Public)
			}
			useMaterial(t, v, other, &m)
		}
		wrong := bytes.Clone(point)
		wrong[7] ^= 1
		order := bytes.Repeat([]byte{0xff}, len(scalar))
		for name, bad := range map[string][]byte{
			"another's public": ecPKCS8(t, vector.oid, scalar, wrong), "zero": ecPKCS8(t, vector.oid, make([]byte, len(scalar)), nil),
			"over the order": ecPKCS8(t, vector.oid, order, nil), "long": ecPKCS8(t, vector.oid, append([]byte{1}, scalar...), nil),
			"empty": nil, "truncated": ecPKCS8(t, vector.oid, scalar, point)[:30], "trailing": append(ecPKCS8(t, vector.oid, scalar, point), 0),
		} {
			if _, err := v.Import(patient(t), "bad", spec, bad); !errors.Is(err, keystore.ErrInvalidMaterial) {
				t.Errorf("%s %s: %v", spec, name, err)
			}
		}
	}
}

// RFC 8032, section 7.1, test 3.
func TestImportedEd25519(t *testing.T) {
	v, _, _ := newVault(t)
	key := ed25519.NewKeyFromSeed(unhex(t, "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
	der := pkcs8(t, key)
	m := importMaterial(t, v, "ed", keystore.SpecEd25519, der)
	signature, err := v.Sign(patient(t), &m, keystore.SignEd25519, 0, []byte{0xaf, 0x82})
	want := "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
	if err != nil || hex.EncodeToString(signature) != want || !m.Resident() {
		t.Errorf("%x, %v", signature, err)
	}
	if _, err := v.Import(patient(t), "ed", keystore.SpecEd25519, der); !errors.Is(err, keystore.ErrKeyExists) {
		t.Errorf("twice: %v", err)
	}
	if err := v.Destroy(patient(t), m); err != nil {
		t.Error(err)
	}
	again := importMaterial(t, v, "ed", keystore.SpecEd25519, der)
	if !bytes.Equal(again.Digest, m.Digest) {
		t.Error("the same material has two digests")
	}
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestImportedRSA(t *testing.T) {
	v, _, _ := newVault(t)
	key := rsaKey(t, 2048)
	der := pkcs8(t, key)
	m := importMaterial(t, v, "rsa", keystore.SpecRSA2048, der)
	if !bytes.Equal(m.Public, spki(t, key.Public())) {
		t.Error("the public key is another")
	}
	useRSA(t, v, &m)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	inconsistent := bytes.Clone(der)
	inconsistent[len(inconsistent)-5] ^= 1 // the last of the numbers in it
	for name, c := range map[string]struct {
		spec keystore.Spec
		der  []byte
		want error
	}{
		"another length": {keystore.SpecRSA3072, der, keystore.ErrMaterialSpec},
		"1024 bits":      {keystore.SpecRSA2048, pkcs8(t, rsaKey(t, 1024)), keystore.ErrMaterialSpec},
		"EC for RSA":     {keystore.SpecRSA2048, pkcs8(t, p256), keystore.ErrMaterialSpec},
		"RSA for EC":     {keystore.SpecP256, der, keystore.ErrMaterialSpec},
		"P-256 for 384":  {keystore.SpecP384, pkcs8(t, p256), keystore.ErrMaterialSpec},
		"RSA for Ed":     {keystore.SpecEd25519, der, keystore.ErrMaterialSpec},
		"inconsistent":   {keystore.SpecRSA2048, inconsistent, keystore.ErrInvalidMaterial},
		"PKCS #1":        {keystore.SpecRSA2048, x509.MarshalPKCS1PrivateKey(key), keystore.ErrInvalidMaterial},
		"AES of 31":      {keystore.SpecAES256, make([]byte, 31), keystore.ErrMaterialSpec},
		"HMAC of 33":     {keystore.SpecHMAC256, make([]byte, 33), keystore.ErrMaterialSpec},
	} {
		if _, err := v.Import(patient(t), "bad", c.spec, c.der); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A digest names material: the same however it came to be in whichever token.
func TestDigests(t *testing.T) {
	a, _, _ := newVault(t)
	b, _, _ := newVault(t)
	seen := map[string]string{}
	for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC256, keystore.SpecHMAC512} {
		size := 32
		if spec == keystore.SpecHMAC512 {
			size = 64
		}
		for _, fill := range []byte{0, 1} {
			secret := bytes.Repeat([]byte{fill}, size)
			one, two := importMaterial(t, a, "one", spec, secret), importMaterial(t, b, "two", spec, secret)
			if !bytes.Equal(one.Digest, two.Digest) || len(one.Digest) != 32 {
				t.Errorf("%s: %x and %x", spec, one.Digest, two.Digest)
			}
			if other, ok := seen[string(one.Digest)]; ok {
				t.Errorf("%s has the digest of %s", spec, other)
			}
			seen[string(one.Digest)] = string(spec)
		}
	}
}

// kwp wraps by RFC 5649, section 4.1.
func kwp(t testing.TB, key, plain []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.BigEndian.AppendUint32(unhex(t, "a65959a6"), uint32(len(plain)))
	out = append(out, plain...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	if len(out) == 16 {
		block.Encrypt(out, out)
		return out
	}
	n := len(out)/8 - 1
	a := bytes.Clone(out[:8])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			b := append(bytes.Clone(a), out[8*i:8*i+8]...)
			block.Encrypt(b, b)
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(b)^uint64(n*j+i))
			copy(out[8*i:], b[8:])
		}
	}
	copy(out, a)
	return out
}

// encryptFor encrypts material for an import.
func encryptFor(t testing.TB, key *rsa.PublicKey, algorithm keystore.ImportAlgorithm, secret []byte) []byte {
	t.Helper()
	hash := sha1.New()
	if algorithm == keystore.ImportOAEPSHA256 || algorithm == keystore.ImportKeyWrapSHA256 {
		hash = sha256.New()
	}
	var rest []byte
	if algorithm == keystore.ImportKeyWrapSHA1 || algorithm == keystore.ImportKeyWrapSHA256 {
		aesKey := make([]byte, 32)
		_, _ = rand.Read(aesKey)
		secret, rest = aesKey, kwp(t, aesKey, secret)
	}
	block, err := rsa.EncryptOAEP(hash, rand.Reader, key, secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(block, rest...)
}

var importAlgorithms = []keystore.ImportAlgorithm{
	keystore.ImportOAEPSHA1, keystore.ImportOAEPSHA256, keystore.ImportKeyWrapSHA1, keystore.ImportKeyWrapSHA256,
}

// importSamples returns material of every kind that can be imported.
func importSamples(t testing.TB) map[keystore.Spec][]byte {
	t.Helper()
	samples := map[keystore.Spec][]byte{
		keystore.SpecAES256: bytes.Repeat([]byte{1}, 32), keystore.SpecRSA2048: pkcs8(t, rsaKey(t, 2048)),
		keystore.SpecEd25519: pkcs8(t, ed25519.NewKeyFromSeed(make([]byte, 32))),
	}
	for spec, hash := range macHashes {
		samples[spec] = bytes.Repeat([]byte{2}, hash.Size())
	}
	for spec, vector := range ecVectors {
		samples[spec] = ecPKCS8(t, vector.oid, unhex(t, vector.private), unhex(t, vector.public))
	}
	return samples
}

// All that can be encrypted for an import comes in, and is the same as if it had
// been imported in the clear.
func TestImportEncrypted(t *testing.T) {
	v, tok, _ := newVault(t)
	other := openVault(t, tok)
	wrapping := material(t, v, "wrapping", keystore.SpecRSA3072)
	key := publicKey(t, &wrapping).(*rsa.PublicKey)
	for spec, secret := range importSamples(t) {
		plain := importMaterial(t, v, "plain", spec, secret)
		for _, algorithm := range importAlgorithms {
			if spec == keystore.SpecRSA2048 && (algorithm == keystore.ImportOAEPSHA1 || algorithm == keystore.ImportOAEPSHA256) {
				continue // too long
			}
			if err := v.Destroy(patient(t), plain); err != nil {
				t.Fatal(err)
			}
			m, err := v.ImportEncrypted(patient(t), "plain", spec, wrapping, algorithm, encryptFor(t, key, algorithm, secret))
			if err != nil {
				t.Errorf("%s by %s: %v", spec, algorithm, err)
				continue
			}
			if !bytes.Equal(m.Digest, plain.Digest) || !bytes.Equal(m.Public, plain.Public) || m.Spec != spec {
				t.Errorf("%s by %s is another: %+v", spec, algorithm, m)
			}
			useMaterial(t, v, other, &m)
		}
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// A token that takes no private key from outside has one unwrapped, once its parts
// were looked at.
func TestImportWhereTheTokenDecryptsItself(t *testing.T) {
	module := tokentest.NewFaulty(t)
	v := openVault(t, tokentest.Open(t, &modules, tokentest.Options(module.Token(t, &modules))))
	wrapping := material(t, v, "wrapping", keystore.SpecRSA2048)
	key := publicKey(t, &wrapping).(*rsa.PublicKey)
	private := rsaKey(t, 2048)
	for name, code := range map[string]string{"CKR_ACTION_PROHIBITED": "0x1b", "CKR_TEMPLATE_INCONSISTENT": "0xd1"} {
		module.Set(t, "fail C_CreateObject "+code)
		m, err := v.ImportEncrypted(patient(t), "rsa", keystore.SpecRSA2048, wrapping, keystore.ImportKeyWrapSHA1, encryptFor(t, key, keystore.ImportKeyWrapSHA1, pkcs8(t, private)))
		if err != nil || !bytes.Equal(m.Public, spki(t, private.Public())) {
			t.Fatalf("%s: %v", name, err)
		}
		useRSA(t, v, &m)
		bad := brokenRSA(t)
		if _, err := v.ImportEncrypted(patient(t), "bad", keystore.SpecRSA2048, wrapping, keystore.ImportKeyWrapSHA1, encryptFor(t, key, keystore.ImportKeyWrapSHA1, bad)); !errors.Is(err, keystore.ErrInvalidMaterial) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is encrypted wrongly, or is not what it should be, is told apart from a
// sick token, and nothing is left of it.
func TestImportEncryptedRefuses(t *testing.T) {
	v, tok, _ := newVault(t)
	wrapping := material(t, v, "wrapping", keystore.SpecRSA2048)
	key := publicKey(t, &wrapping).(*rsa.PublicKey)
	secret := bytes.Repeat([]byte{1}, 32)
	rsaDER := pkcs8(t, rsaKey(t, 2048))
	broken := brokenRSA(t)
	try := func(name string, spec keystore.Spec, algorithm keystore.ImportAlgorithm, encrypted []byte, want ...error) {
		t.Helper()
		_, err := v.ImportEncrypted(patient(t), "bad", spec, wrapping, algorithm, encrypted)
		if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
			t.Errorf("%s by %s: %v", name, algorithm, err)
		}
	}
	for _, algorithm := range importAlgorithms {
		good := encryptFor(t, key, algorithm, secret)
		for i, other := range importAlgorithms {
			if other != algorithm {
				try("encrypted otherwise", keystore.SpecAES256, importAlgorithms[i], good, keystore.ErrInvalidCiphertext)
			}
		}
		for _, at := range []int{0, 100, 255, len(good) - 1} {
			flipped := bytes.Clone(good)
			flipped[at] ^= 1
			try("flipped", keystore.SpecAES256, algorithm, flipped, keystore.ErrInvalidCiphertext)
		}
		for name, bad := range map[string][]byte{
			"nil": nil, "short": good[1:], "truncated": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "zeros": make([]byte, len(good)),
			"ones": bytes.Repeat([]byte{0xff}, len(good)),
		} {
			try(name, keystore.SpecAES256, algorithm, bad, keystore.ErrInvalidCiphertext)
		}
		for _, size := range []int{1, 8, 16, 24, 31, 33, 64} {
			other := encryptFor(t, key, algorithm, bytes.Repeat([]byte{1}, size))
			for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC224, keystore.SpecHMAC256, keystore.SpecHMAC384} {
				try("of another length", spec, algorithm, other, keystore.ErrMaterialSpec)
			}
		}
		try("HMAC of another length", keystore.SpecHMAC384, algorithm, good, keystore.ErrMaterialSpec)
		try("no private key", keystore.SpecP256, algorithm, good, keystore.ErrInvalidMaterial)
		try("no private key", keystore.SpecEd25519, algorithm, good, keystore.ErrInvalidMaterial)
	}
	for _, algorithm := range importAlgorithms[2:] {
		try("no RSA key", keystore.SpecRSA2048, algorithm, encryptFor(t, key, algorithm, secret), keystore.ErrInvalidMaterial)
		try("another length of RSA", keystore.SpecRSA3072, algorithm, encryptFor(t, key, algorithm, rsaDER), keystore.ErrMaterialSpec)
		try("a broken RSA key", keystore.SpecRSA2048, algorithm, encryptFor(t, key, algorithm, broken), keystore.ErrInvalidMaterial)
		try("RSA for EC", keystore.SpecP256, algorithm, encryptFor(t, key, algorithm, rsaDER), keystore.ErrMaterialSpec, keystore.ErrInvalidMaterial)
		p256 := ecPKCS8(t, ecVectors[keystore.SpecP256].oid, unhex(t, ecVectors[keystore.SpecP256].private), nil)
		try("P-256 for P-384", keystore.SpecP384, algorithm, encryptFor(t, key, algorithm, p256), keystore.ErrMaterialSpec)
		zero := ecPKCS8(t, ecVectors[keystore.SpecP256].oid, make([]byte, 32), nil)
		try("a private key of 0", keystore.SpecP256, algorithm, encryptFor(t, key, algorithm, zero), keystore.ErrInvalidMaterial)
		for i := 0; i < len(p256); i += 3 {
			try("truncated", keystore.SpecP256, algorithm, encryptFor(t, key, algorithm, p256[:max(i, 1)]), keystore.ErrInvalidMaterial, keystore.ErrMaterialSpec)
		}
		try("EC for RSA", keystore.SpecRSA2048, algorithm, encryptFor(t, key, algorithm, p256), keystore.ErrInvalidMaterial, keystore.ErrMaterialSpec)
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
	if got, err := v.Residents(patient(t)); err != nil || len(got) != 0 {
		t.Errorf("left: %v, %v", got, err)
	}
	try("unknown", keystore.SpecAES256, "RSAES_PKCS1_V1_5", nil, keystore.ErrUnsupported)
	aesKey := material(t, v, "aes", keystore.SpecAES256)
	if _, err := v.ImportEncrypted(patient(t), "bad", keystore.SpecAES256, aesKey, keystore.ImportOAEPSHA1, nil); !errors.Is(err, keystore.ErrMaterialSpec) {
		t.Errorf("wrapped by AES: %v", err)
	}
}

// brokenRSA encodes a private key whose numbers do not fit together.
func brokenRSA(t testing.TB) []byte {
	t.Helper()
	key := rsaKey(t, 2048)
	spoil := func(n *big.Int) *big.Int { return new(big.Int).Add(n, big.NewInt(2)) }
	inner, err := asn1.Marshal(struct {
		Version                      int
		N                            *big.Int
		E                            int
		D, P, Q, Dp, Dq, Coefficient *big.Int
	}{0, key.N, key.E, spoil(key.D), key.Primes[0], key.Primes[1], spoil(key.Precomputed.Dp), spoil(key.Precomputed.Dq), key.Precomputed.Qinv})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A caller's own key pair is whole, and Go and OpenSSL read it.
func TestGenerateDataKeyPair(t *testing.T) {
	v, tok, _ := newVault(t)
	for _, spec := range quickSpecs() {
		if spec == keystore.SpecAES256 || macHashes[spec] != 0 {
			continue
		}
		private, public, err := v.GenerateDataKeyPair(patient(t), spec)
		if err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		if m, err := v.Import(patient(t), "pair", spec, private); err != nil || !bytes.Equal(m.Public, public) {
			t.Errorf("%s: the keys do not belong together: %v", spec, err)
		} else if err := v.Destroy(patient(t), m); err != nil {
			t.Error(err)
		}
		if text := openssl(t, private); !bytes.Equal(text, public) {
			t.Errorf("%s: OpenSSL finds another public key: %x", spec, text)
		}
		if spec != keystore.SpecSecp256k1 {
			if _, err := x509.ParsePKCS8PrivateKey(private); err != nil {
				t.Errorf("%s: %v", spec, err)
			}
		}
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// openssl returns the public key that OpenSSL sees in a private one.
func openssl(t testing.TB, private []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.der")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "pkey", "-inform", "DER", "-in", file, "-pubout", "-outform", "DER").Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	return out
}
