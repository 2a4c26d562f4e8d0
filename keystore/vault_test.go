package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/hyok-kms/hyok/keystore"
)

func openVault(t testing.TB, tok *keystore.Token, change ...func(*keystore.VaultOptions)) *keystore.Vault {
	t.Helper()
	o := keystore.VaultOptions{Name: "test"}
	for _, c := range change {
		c(&o)
	}
	v, err := tok.OpenVault(patient(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newVault(t testing.TB, change ...func(*keystore.Options)) (*keystore.Vault, *keystore.Token, keystore.URI) {
	t.Helper()
	tok, u := newToken(t, change...)
	return openVault(t, tok), tok, u
}

// material makes a key, which is not unwrapped afterwards.
func material(t testing.TB, v *keystore.Vault, id string, spec keystore.Spec) keystore.Material {
	t.Helper()
	m, err := v.Generate(patient(t), id, spec)
	if err == nil {
		err = v.Forget(patient(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func resident(t testing.TB, v *keystore.Vault, id string, spec keystore.Spec) keystore.Material {
	t.Helper()
	m, err := v.GenerateResident(patient(t), id, spec)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func allSpecs() []keystore.Spec {
	return []keystore.Spec{
		keystore.SpecAES256, keystore.SpecHMAC224, keystore.SpecHMAC256, keystore.SpecHMAC384, keystore.SpecHMAC512,
		keystore.SpecRSA2048, keystore.SpecRSA3072, keystore.SpecRSA4096,
		keystore.SpecP256, keystore.SpecP384, keystore.SpecP521, keystore.SpecSecp256k1, keystore.SpecEd25519,
	}
}

// quickSpecs are those whose generation takes no seconds.
func quickSpecs() []keystore.Spec {
	var quick []keystore.Spec
	for _, s := range allSpecs() {
		if s != keystore.SpecRSA3072 && s != keystore.SpecRSA4096 {
			quick = append(quick, s)
		}
	}
	return quick
}

var macHashes = map[keystore.Spec]crypto.Hash{
	keystore.SpecHMAC224: crypto.SHA224, keystore.SpecHMAC256: crypto.SHA256, keystore.SpecHMAC384: crypto.SHA384, keystore.SpecHMAC512: crypto.SHA512,
}

// Every kind of key, wrapped or resident, does all that it is for, and does it
// still when the vault is opened again.
func TestVaultSpecs(t *testing.T) {
	v, tok, _ := newVault(t)
	var made []keystore.Material
	for _, spec := range allSpecs() {
		if spec == keystore.SpecRSA3072 {
			continue // TestImportEncrypted has one
		}
		made = append(made, material(t, v, "wrapped", spec))
		if m := made[len(made)-1]; m.Resident() != (spec == keystore.SpecEd25519) || len(m.Digest) != 32 || m.Spec != spec || m.ID != "wrapped" {
			t.Errorf("%+v", m)
		}
	}
	for _, spec := range quickSpecs() {
		id := "resident-" + string(bytes.ToLower(bytes.ReplaceAll([]byte(spec), []byte("_"), []byte("-"))))
		m := resident(t, v, id, spec)
		if !m.Resident() {
			t.Errorf("%s is not resident", spec)
		}
		made = append(made, m)
	}
	again := openVault(t, tok)
	for _, m := range made {
		useMaterial(t, v, again, &m)
	}
	for _, v := range []*keystore.Vault{v, again} {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if _, err := v.Encrypt(patient(t), &made[0], []byte("p"), nil); !errors.Is(err, keystore.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}

// useMaterial does with a key in one vault, and undoes in another, what its spec
// is for.
func useMaterial(t *testing.T, v, other *keystore.Vault, m *keystore.Material) {
	t.Helper()
	switch m.Spec {
	case keystore.SpecAES256:
		s, err := v.Encrypt(patient(t), m, []byte("plaintext"), []byte("aad"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := other.Decrypt(patient(t), m, s, []byte("aad"))
		if err != nil || string(got) != "plaintext" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := other.Decrypt(patient(t), m, s, []byte("other")); !errors.Is(err, keystore.ErrInvalidCiphertext) {
			t.Errorf("other aad: %v", err)
		}
	case keystore.SpecHMAC224, keystore.SpecHMAC256, keystore.SpecHMAC384, keystore.SpecHMAC512:
		useMAC(t, v, other, m)
	case keystore.SpecRSA2048, keystore.SpecRSA3072, keystore.SpecRSA4096:
		useRSA(t, v, m)
		useRSA(t, other, m)
	case keystore.SpecEd25519:
		signature, err := v.Sign(patient(t), m, keystore.SignEd25519, 0, []byte("message"))
		if err != nil || !ed25519.Verify(publicKey(t, m).(ed25519.PublicKey), []byte("message"), signature) {
			t.Errorf("%s: %v", m.ID, err)
		}
	default:
		useEC(t, v, m)
		useEC(t, other, m)
	}
}

func useMAC(t *testing.T, v, other *keystore.Vault, m *keystore.Material) {
	t.Helper()
	hash := macHashes[m.Spec]
	a, err := v.MAC(patient(t), m, hash, []byte("message"))
	if err != nil || len(a) != hash.Size() {
		t.Fatalf("%s: %x %v", m.Spec, a, err)
	}
	b, err := other.MAC(patient(t), m, hash, []byte("message"))
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s: %x %x %v", m.Spec, a, b, err)
	}
	c, err := other.MAC(patient(t), m, hash, []byte("another"))
	if err != nil || bytes.Equal(a, c) {
		t.Errorf("%s: %x %x %v", m.Spec, a, c, err)
	}
}

func publicKey(t testing.TB, m *keystore.Material) any {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(m.Public)
	if err != nil {
		t.Fatalf("%s: %v", m.Spec, err)
	}
	return key
}

func digestOf(hash crypto.Hash, text string) []byte {
	h := hash.New()
	h.Write([]byte(text))
	return h.Sum(nil)
}

var signHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

func useRSA(t *testing.T, v *keystore.Vault, m *keystore.Material) {
	t.Helper()
	key := publicKey(t, m).(*rsa.PublicKey)
	for _, hash := range signHashes {
		digest := digestOf(hash, "message")
		signature, err := v.Sign(patient(t), m, keystore.SignPSS, hash, digest)
		if err != nil || rsa.VerifyPSS(key, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) != nil {
			t.Errorf("%s %v PSS: %v", m.Spec, hash, err)
		}
		signature, err = v.Sign(patient(t), m, keystore.SignPKCS1v15, hash, digest)
		if err != nil || rsa.VerifyPKCS1v15(key, hash, digest, signature) != nil {
			t.Errorf("%s %v PKCS1: %v", m.Spec, hash, err)
		}
	}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, size := range []int{0, 1, 100, key.Size() - 2*hash.Size() - 2} {
			text := bytes.Repeat([]byte{1}, size)
			ciphertext, err := rsa.EncryptOAEP(hash.New(), rand.Reader, key, text, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.DecryptOAEP(patient(t), m, hash, ciphertext)
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s OAEP %v of %d bytes: %x, %v", m.Spec, hash, size, got, err)
			}
		}
	}
}

func useEC(t *testing.T, v *keystore.Vault, m *keystore.Material) {
	t.Helper()
	if m.Spec == keystore.SpecSecp256k1 {
		useSecp256k1(t, v, m)
		return
	}
	key := publicKey(t, m).(*ecdsa.PublicKey)
	for _, hash := range signHashes {
		digest := digestOf(hash, "message")
		signature, err := v.Sign(patient(t), m, keystore.SignECDSA, hash, digest)
		if err != nil || !ecdsa.VerifyASN1(key, digest, signature) {
			t.Errorf("%s %v: %v", m.Spec, hash, err)
		}
	}
	public, err := key.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := v.SharedSecret(patient(t), m, spki(t, peer.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := peer.ECDH(public); err != nil || !bytes.Equal(secret, want) {
		t.Errorf("%s: shared secret %x, %x, %v", m.Spec, secret, want, err)
	}
}

func spki(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func useSecp256k1(t *testing.T, v *keystore.Vault, m *keystore.Material) {
	t.Helper()
	// SubjectPublicKeyInfo of secp256k1 ends in the uncompressed point.
	key, err := secp256k1.ParsePubKey(m.Public[len(m.Public)-65:])
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(crypto.SHA256, "message")
	der, err := v.Sign(patient(t), m, keystore.SignECDSA, crypto.SHA256, digest)
	if err != nil {
		t.Fatal(err)
	}
	if !verifySecp256k1(t, key, digest, der) {
		t.Error("a secp256k1 signature is wrong")
	}
	secret, err := v.SharedSecret(patient(t), m, m.Public)
	if err != nil || len(secret) != 32 {
		t.Errorf("shared secret: %x, %v", secret, err)
	}
}

func verifySecp256k1(t *testing.T, key *secp256k1.PublicKey, digest, der []byte) bool {
	t.Helper()
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		t.Fatal(err)
	}
	// decred's parser demands the smaller s of the two.
	var r, s secp256k1.ModNScalar
	r.SetByteSlice(numbers.R.Bytes())
	s.SetByteSlice(numbers.S.Bytes())
	return secpecdsa.NewSignature(&r, &s).Verify(digest, key)
}

// The peer's key must be one of the same curve, or nothing is computed.
func TestSharedSecretRefuses(t *testing.T) {
	v, tok, _ := newVault(t)
	m := material(t, v, "k", keystore.SpecP256)
	p384, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	off := bytes.Clone(m.Public)
	off[len(off)-1] ^= 1
	infinity := append(bytes.Clone(m.Public[:len(m.Public)-65]), 0)
	for name, peer := range map[string][]byte{
		"nil": nil, "another curve": spki(t, p384.PublicKey()), "off the curve": off, "trailing": append(bytes.Clone(m.Public), 0),
		"infinity": infinity, "short": m.Public[:40], "RSA": material(t, v, "r", keystore.SpecRSA2048).Public,
	} {
		if secret, err := v.SharedSecret(patient(t), &m, peer); !errors.Is(err, keystore.ErrInvalidPublicKey) || secret != nil {
			t.Errorf("%s: %x, %v", name, secret, err)
		}
	}
	secp := material(t, v, "s", keystore.SpecSecp256k1)
	hybrid := bytes.Clone(secp.Public) // ANSI X9.62, section 4.3.6; not in SEC 1, version 2
	hybrid[len(hybrid)-65] = 6 + hybrid[len(hybrid)-1]&1
	if secret, err := v.SharedSecret(patient(t), &secp, hybrid); !errors.Is(err, keystore.ErrInvalidPublicKey) || secret != nil {
		t.Errorf("hybrid form: %x, %v", secret, err)
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// A wrong ciphertext is told from a sick token, whichever way RSA decrypts.
func TestDecryptOAEPRefuses(t *testing.T) {
	v, tok, _ := newVault(t)
	m := material(t, v, "k", keystore.SpecRSA2048)
	key := publicKey(t, &m).(*rsa.PublicKey)
	good, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, []byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, []byte("text"), []byte("label"))
	if err != nil {
		t.Fatal(err)
	}
	modulus := key.N.Bytes()
	for name, ciphertext := range map[string][]byte{
		"nil": nil, "short": good[1:], "long": append([]byte{0}, good...), "zero": make([]byte, 256), "modulus": modulus,
		"all ones": bytes.Repeat([]byte{0xff}, 256), "label": labelled, "one": append(make([]byte, 255), 1),
	} {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			if got, err := v.DecryptOAEP(patient(t), &m, hash, ciphertext); !errors.Is(err, keystore.ErrInvalidCiphertext) || got != nil {
				t.Errorf("%s, %v: %x, %v", name, hash, got, err)
			}
		}
	}
	if _, err := v.DecryptOAEP(patient(t), &m, crypto.SHA1, good); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Errorf("the other hash: %v", err)
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// What does not fit the key is refused before the token is asked.
func TestVaultRefuses(t *testing.T) {
	v, tok, _ := newVault(t)
	aes, ec := material(t, v, "a", keystore.SpecAES256), material(t, v, "e", keystore.SpecP256)
	calls := tok.Stats().Calls
	digest := make([]byte, 32)
	for name, err := range map[string]error{
		"encrypt with EC":     second(v.Encrypt(patient(t), &ec, []byte("p"), nil)),
		"decrypt with EC":     second(v.Decrypt(patient(t), &ec, keystore.Sealed{}, nil)),
		"sign with AES":       second(v.Sign(patient(t), &aes, keystore.SignECDSA, crypto.SHA256, digest)),
		"RSA with EC":         second(v.Sign(patient(t), &ec, keystore.SignPSS, crypto.SHA256, digest)),
		"unknown scheme":      second(v.Sign(patient(t), &ec, "RAW", crypto.SHA256, digest)),
		"MAC with AES":        second(v.MAC(patient(t), &aes, crypto.SHA256, digest)),
		"agree with AES":      second(v.SharedSecret(patient(t), &aes, ec.Public)),
		"OAEP with EC":        second(v.DecryptOAEP(patient(t), &ec, crypto.SHA1, digest)),
		"unknown spec":        second(v.Generate(patient(t), "x", "DES")),
		"data pair of secret": third(v.GenerateDataKeyPair(patient(t), keystore.SpecAES256)),
	} {
		if !errors.Is(err, keystore.ErrMaterialSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"short digest":    second(v.Sign(patient(t), &ec, keystore.SignECDSA, crypto.SHA256, digest[1:])),
		"SHA-1":           second(v.Sign(patient(t), &ec, keystore.SignECDSA, crypto.SHA1, digest[:20])),
		"empty id":        second(v.Generate(patient(t), "", keystore.SpecAES256)),
		"bad id":          second(v.Generate(patient(t), "A.b", keystore.SpecAES256)),
		"vault name":      second(tok.OpenVault(patient(t), keystore.VaultOptions{Name: "a.b"})),
		"no vault name":   second(tok.OpenVault(patient(t), keystore.VaultOptions{})),
		"negative random": second(tok.Random(patient(t), -1)),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if n := tok.Stats().Calls; n != calls {
		t.Errorf("%d calls of the token", n-calls)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }
