package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"hash"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// Behaviours of the faulty module that make it a token of another make.
const (
	noPad        = "hide 0x210a" // CKM_AES_KEY_WRAP_PAD
	noRawRSA     = "hide 0x3"    // CKM_RSA_X_509
	noOAEP       = "hide 0x9"    // CKM_RSA_PKCS_OAEP
	noECDSA      = "hide 0x1041"
	noEdDSA      = "hide 0x1057"
	wantsNSSDB   = "unwrap-refused 0x3 CKR_TEMPLATE_INCOMPLETE unless 0xd5a0db00"
	noECUnwrap   = "unwrap-refused 0x3 CKR_TEMPLATE_INCOMPLETE"
	withKWP      = "wrap kwp"
	padDiffers   = "wrap pad-differs"
	noGenericGen = "hide 0x350" // CKM_GENERIC_SECRET_KEY_GEN
)

// become has the module be a token of another make, which is opened anew, as one
// that was found so.
func become(t *testing.T, m *tokentest.Faulty, u keystore.URI, behaviours ...string) *keystore.Vault {
	t.Helper()
	m.Set(t, behaviours...)
	return openVault(t, tokentest.Open(t, &modules, tokentest.Options(u)))
}

// wrappedSpecs are of all families that SoftHSM2 wraps.
func wrappedSpecs() []keystore.Spec {
	return []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC224, keystore.SpecHMAC512, keystore.SpecRSA2048, keystore.SpecP256, keystore.SpecP521, keystore.SpecSecp256k1}
}

// Each token wraps by what it lists, CKM_AES_KEY_WRAP_KWP first, and the material
// tells by which. What one token wrapped is opened where any key wrap opens it.
func TestKeyWraps(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	softhsm2 := openVault(t, tok)
	other := become(t, m, u, padDiffers)
	both := become(t, m, u, padDiffers, withKWP)
	kwp := become(t, m, u, noPad, withKWP)
	made := map[string][]keystore.Material{}
	for name, c := range map[string]struct {
		v          *keystore.Vault
		behaviours []string
		want       keystore.KeyWrap
		size       int // of a wrapped AES key
	}{
		"SoftHSM2": {softhsm2, nil, keystore.WrapPad, 40}, "other padding": {other, []string{padDiffers}, keystore.WrapPad, 48},
		"both": {both, []string{padDiffers, withKWP}, keystore.WrapKWP, 40}, "KWP": {kwp, []string{noPad, withKWP}, keystore.WrapKWP, 40},
	} {
		m.Set(t, c.behaviours...)
		for _, spec := range wrappedSpecs() {
			one := material(t, c.v, "k", spec)
			if one.Resident() || one.Wrap != c.want || spec == keystore.SpecAES256 && len(one.Wrapped) != c.size {
				t.Errorf("%s, %s: wrapped by %q in %d bytes", name, spec, one.Wrap, len(one.Wrapped))
			}
			made[name] = append(made[name], one)
		}
	}
	for _, c := range []struct {
		v          *keystore.Vault
		behaviours []string
		opens      []string
		refuses    string
	}{
		{softhsm2, nil, []string{"SoftHSM2", "both", "KWP"}, "other padding"},
		{other, []string{padDiffers}, []string{"other padding"}, "KWP"},
		{both, []string{padDiffers, withKWP}, []string{"SoftHSM2", "other padding", "both", "KWP"}, ""},
		{kwp, []string{noPad, withKWP}, []string{"SoftHSM2", "both", "KWP"}, "other padding"},
	} {
		m.Set(t, c.behaviours...)
		for _, name := range c.opens {
			for i := range made[name] {
				useMaterial(t, c.v, c.v, &made[name][i])
			}
		}
		for i := range made[c.refuses] {
			err := c.v.Opens(patient(t), &made[c.refuses][i])
			if !errors.Is(err, keystore.ErrWrappedKey) && !errors.Is(err, keystore.ErrUnsupported) || !strings.Contains(err.Error(), made[c.refuses][i].Wrap.Mechanism()) {
				t.Errorf("%v: what %s wrapped: %v", c.behaviours, c.refuses, err)
			}
		}
	}
}

// What a later version wraps in its own way is refused, not tried.
func TestUnknownKeyWrap(t *testing.T) {
	v, _, _ := newVault(t)
	m := material(t, v, "k", keystore.SpecAES256)
	m.Wrap = "XYZ"
	if _, err := v.Encrypt(patient(t), &m, []byte("p"), nil); !errors.Is(err, keystore.ErrUnsupported) || !strings.Contains(err.Error(), "XYZ") {
		t.Error(err)
	}
}

// Without a key wrap all is resident, and the vault says what is missing.
func TestNoKeyWrap(t *testing.T) {
	tok, _, _ := newFaulty(t, "softhsm2", []string{noPad})
	v := openVault(t, tok)
	if err := v.CheckWrapping(patient(t)); !errors.Is(err, keystore.ErrUnsupported) ||
		!strings.Contains(err.Error(), "CKM_AES_KEY_WRAP_KWP") || !strings.Contains(err.Error(), "CKM_AES_KEY_WRAP_PAD") {
		t.Error(err)
	}
	for i, spec := range wrappedSpecs() {
		if wraps, err := v.Wraps(patient(t), spec); wraps || err != nil {
			t.Errorf("%s is wrapped: %v, %v", spec, wraps, err)
		}
		m := material(t, v, "k-"+string(rune('0'+i)), spec)
		if !m.Resident() {
			t.Errorf("%s is wrapped", spec)
		}
		useMaterial(t, v, v, &m)
	}
	if again, _, _ := newVault(t); again.CheckWrapping(patient(t)) != nil {
		t.Error("SoftHSM2 has no key wrap")
	}
}

// A token that lists a key wrap and does not do it is as one without.
func TestListedKeyWrap(t *testing.T) {
	tok, _, _ := newFaulty(t, "softhsm2", []string{"list 0x210b", noPad})
	v := openVault(t, tok)
	if m := material(t, v, "k", keystore.SpecAES256); !m.Resident() {
		t.Errorf("wrapped by %q", m.Wrap)
	}
	tok, _, _ = newFaulty(t, "softhsm2", []string{"list 0x210b"})
	if m := material(t, openVault(t, tok), "k", keystore.SpecAES256); m.Resident() || m.Wrap != keystore.WrapPad {
		t.Errorf("resident: %v, wrapped by %q", m.Resident(), m.Wrap)
	}
}

// A token that wants a pair's public value with its private key gets it. One that
// unwraps no such keys has them resident. One that cannot use them has none.
func TestElusivePairs(t *testing.T) {
	for name, c := range map[string]struct {
		behaviours        []string
		resident, refused bool
	}{
		"as NSS":           {[]string{wantsNSSDB}, false, false},
		"not unwrapped":    {[]string{noECUnwrap}, true, false},
		"not used":         {[]string{noECDSA}, false, true},
		"neither":          {[]string{noECUnwrap, noECDSA}, false, true},
		"lost in the wrap": {[]string{"fail C_UnwrapKey CKR_MECHANISM_INVALID"}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil)
			v := openVault(t, tok)
			m.Set(t, c.behaviours...)
			for i, spec := range []keystore.Spec{keystore.SpecP256, keystore.SpecSecp256k1} {
				got, err := v.Generate(patient(t), "k-"+string(rune('0'+i)), spec)
				if c.refused {
					if !errors.Is(err, keystore.ErrUnsupported) {
						t.Errorf("%s: %v", spec, err)
					}
					continue
				}
				if err != nil || got.Resident() != c.resident {
					t.Fatalf("%s: resident %v, %v", spec, got.Resident(), err)
				}
				if err := v.Forget(patient(t)); err != nil {
					t.Fatal(err)
				}
				useMaterial(t, v, v, &got)
			}
			if ids, err := v.Residents(patient(t)); err != nil || c.refused && len(ids) > 0 {
				t.Errorf("%v stay, %v", ids, err)
			}
			if n := tok.Stats().Failures; n != 0 {
				t.Errorf("%d failures of the token", n)
			}
		})
	}
}

// What the token lacks is said so, whatever it answers, and leaves nothing.
func TestLackingSpecs(t *testing.T) {
	for behaviour, specs := range map[string][]keystore.Spec{
		"hide 0x1040":    {keystore.SpecP256, keystore.SpecP384, keystore.SpecSecp256k1},
		"hide 0x0":       {keystore.SpecRSA2048},
		noGenericGen:     {keystore.SpecHMAC256},
		"hide 0x1055":    {keystore.SpecEd25519},
		noEdDSA:          {keystore.SpecEd25519},
		"hide 0x251 0x1": {keystore.SpecHMAC256, keystore.SpecRSA2048}, // CKM_SHA256_HMAC, CKM_RSA_PKCS
		"hide 0x1081":    {keystore.SpecAES256},                        // CKM_AES_ECB
		"fail C_GenerateKeyPair CKR_DOMAIN_PARAMS_INVALID": {keystore.SpecSecp256k1, keystore.SpecEd25519},
		"fail C_GenerateKeyPair 0x140":                     {keystore.SpecSecp256k1}, // CKR_CURVE_NOT_SUPPORTED
		"fail C_GenerateKeyPair 0x62":                      {keystore.SpecRSA2048},   // CKR_KEY_SIZE_RANGE
		"fail C_GenerateKey CKR_FUNCTION_NOT_SUPPORTED":    {keystore.SpecAES256, keystore.SpecHMAC384},
	} {
		t.Run(behaviour, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil)
			v := openVault(t, tok, cacheSize(0))
			m.Set(t, behaviour)
			for _, spec := range specs {
				var te *keystore.TokenError
				if _, err := v.Generate(patient(t), "k", spec); !errors.Is(err, keystore.ErrUnsupported) || !errors.As(err, &te) {
					t.Errorf("%s: %v", spec, err)
				}
				if _, err := v.GenerateResident(patient(t), "k", spec); !errors.Is(err, keystore.ErrUnsupported) {
					t.Errorf("resident %s: %v", spec, err)
				}
			}
			if s := tok.Stats(); s.Failures != 0 || s.Trips != 0 {
				t.Errorf("%+v", s)
			}
			m.Set(t)
			if ids, err := v.Residents(patient(t)); err != nil || len(ids) > 0 {
				t.Errorf("%v stay, %v", ids, err)
			}
			for _, spec := range specs { // it was no judgement for good
				material(t, v, "k-"+strings.ToLower(strings.ReplaceAll(string(spec), "_", "-")), spec)
			}
		})
	}
}

func encoded(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A vault is of no use where no AES key encrypts.
func TestVaultWithoutGCM(t *testing.T) {
	tok, _, _ := newFaulty(t, "softhsm2", []string{"hide 0x1087"})
	if _, err := tok.OpenVault(patient(t), keystore.VaultOptions{Name: "test"}); !errors.Is(err, keystore.ErrUnsupported) {
		t.Error(err)
	}
}

// Ed25519 keys that the token stores and cannot sign with are not imported.
func TestImportOfNoUse(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := encoded(t, key)
	m.Set(t, noEdDSA)
	if _, err := v.Import(patient(t), "ed", keystore.SpecEd25519, der); !errors.Is(err, keystore.ErrUnsupported) {
		t.Error(err)
	}
	m.Set(t)
	if ids, err := v.Residents(patient(t)); err != nil || len(ids) > 0 {
		t.Errorf("%v stay, %v", ids, err)
	}
	importMaterial(t, v, "ed", keystore.SpecEd25519, der)
}

// A new pair does what it is for, not another thing.
func TestProvenUse(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	for _, c := range []struct {
		behaviour string
		spec      keystore.Spec
		use       keystore.Use
		fails     bool
	}{
		{"hide 0x1050", keystore.SpecP256, keystore.UseAgree, true}, // CKM_ECDH1_DERIVE
		{"hide 0x1050", keystore.SpecP256, keystore.UseSign, false},
		{noECDSA, keystore.SpecP384, keystore.UseAgree, false},
		{"hide 0x3 0x9", keystore.SpecRSA2048, keystore.UseDecrypt, true},
		{"hide 0x3 0x9", keystore.SpecRSA2048, keystore.UseSign, false},
	} {
		m.Set(t, c.behaviour)
		_, err := v.Generate(patient(t), "k", c.spec, c.use)
		if c.fails != errors.Is(err, keystore.ErrUnsupported) || !c.fails && err != nil {
			t.Errorf("%s, to %v, %s: %v", c.spec, c.use, c.behaviour, err)
		}
	}
}

// A key that comes out of its wrapping as another one is not handed out.
func TestWrongAfterUnwrap(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	m.Set(t, "corrupt ciphertext")
	var te *keystore.TokenError
	if _, err := v.Import(patient(t), "k", keystore.SpecAES256, make([]byte, 32)); !errors.As(err, &te) {
		t.Error(err)
	}
	m.Set(t)
	importMaterial(t, v, "k", keystore.SpecAES256, make([]byte, 32))
}

// What is made costs one unwrapping, which serves the first use too.
func TestCreationUnwrapsOnce(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok, cacheSize(4))
	for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC384, keystore.SpecP256} {
		before := m.Count(t, "C_UnwrapKey")
		one, err := v.Generate(patient(t), "k", spec)
		if err == nil {
			err = useAny(t, v, &one)
		}
		if n := m.Count(t, "C_UnwrapKey") - before; err != nil || n != 1 {
			t.Errorf("%s was unwrapped %d times, %v", spec, n, err)
		}
	}
	unwrapped, destroyed, made := m.Count(t, "C_UnwrapKey"), m.Count(t, "C_DestroyObject"), 20
	for range made {
		if _, err := v.Generate(patient(t), "k-"+strings.ToLower(rand.Text()), keystore.SpecAES256); err != nil {
			t.Fatal(err)
		}
	}
	// Each key and its unwrapped twin are destroyed, but for those in the cache.
	if n := m.Count(t, "C_DestroyObject") - destroyed; m.Count(t, "C_UnwrapKey")-unwrapped != made || n < 2*made-4 || v.Stats().Cached != 4 {
		t.Errorf("%d destroyed, %+v", n, v.Stats())
	}
}

// RSAES-OAEP is the token's own where it does it, and a wrong ciphertext is one
// either way.
func TestOAEPWays(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	key := material(t, openVault(t, tok), "rsa", keystore.SpecRSA2048)
	public := publicKey(t, &key).(*rsa.PublicKey)
	hashes := map[crypto.Hash]func() hash.Hash{crypto.SHA1: sha1.New, crypto.SHA256: sha256.New}
	for behaviour, lacks := range map[string]crypto.Hash{"": 0, noOAEP: 0, noRawRSA: crypto.SHA256} {
		v := become(t, m, u, behaviour)
		for h, newHash := range hashes {
			good, err := rsa.EncryptOAEP(newHash(), rand.Reader, public, []byte("text"), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.DecryptOAEP(patient(t), &key, h, good)
			if h == lacks {
				if !errors.Is(err, keystore.ErrUnsupported) {
					t.Errorf("%q, %v: %v", behaviour, h, err)
				}
				continue
			}
			if err != nil || string(got) != "text" {
				t.Errorf("%q, %v: %q, %v", behaviour, h, got, err)
			}
			bad := bytes.Clone(good)
			bad[len(bad)-1] ^= 1
			if _, err := v.DecryptOAEP(patient(t), &key, h, bad); !errors.Is(err, keystore.ErrInvalidCiphertext) {
				t.Errorf("%q, %v, wrong: %v", behaviour, h, err)
			}
			before := m.Count(t, "C_DecryptInit")
			if _, err := v.DecryptOAEP(patient(t), &key, h, good); err != nil || m.Count(t, "C_DecryptInit") != before+1 {
				t.Errorf("%q, %v: %d calls for what is known, %v", behaviour, h, m.Count(t, "C_DecryptInit")-before, err)
			}
			m.Set(t, behaviour, "fail C_Decrypt CKR_GENERAL_ERROR")
			var te *keystore.TokenError
			if _, err := v.DecryptOAEP(patient(t), &key, h, bad); !errors.As(err, &te) || errors.Is(err, keystore.ErrInvalidCiphertext) {
				t.Errorf("%q, %v, sick: %v", behaviour, h, err)
			}
			m.Set(t, behaviour)
		}
	}
}

// An import succeeds whatever the token unwraps by itself; what it refuses is never
// called the caller's fault.
func TestImportWays(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	wrapping := material(t, openVault(t, tok), "wrapping", keystore.SpecRSA2048)
	public := publicKey(t, &wrapping).(*rsa.PublicKey)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := encoded(t, key)
	secret := bytes.Repeat([]byte{7}, 32)
	for _, behaviours := range [][]string{
		{}, {padDiffers}, {padDiffers, withKWP}, {noPad, withKWP}, {noOAEP}, {wantsNSSDB}, {noECUnwrap}, {"hide 0x1050"},
		{noPad}, // all is resident
	} {
		v := become(t, m, u, behaviours...)
		own, ownPublic := wrapping, public
		if v.Opens(patient(t), &own) != nil { // it was wrapped by another token
			own = material(t, v, "wrapping", keystore.SpecRSA2048)
			ownPublic = publicKey(t, &own).(*rsa.PublicKey)
		}
		for _, algorithm := range importAlgorithms {
			for spec, text := range map[keystore.Spec][]byte{keystore.SpecAES256: secret, keystore.SpecP256: p256} {
				id := "k-" + strings.ToLower(rand.Text())
				got, err := v.ImportEncrypted(patient(t), id, spec, own, algorithm, encryptFor(t, ownPublic, algorithm, text))
				if err != nil {
					t.Errorf("%v: %s by %s: %v", behaviours, spec, algorithm, err)
					continue
				}
				if err := useAny(t, v, &got); err != nil {
					t.Errorf("%v: %s by %s: %v", behaviours, spec, algorithm, err)
				}
			}
		}
	}
	v := become(t, m, u)
	if err := v.Forget(patient(t)); err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"CKR_MECHANISM_INVALID", "CKR_TEMPLATE_INCOMPLETE", "CKR_FUNCTION_NOT_SUPPORTED"} {
		m.Set(t, "fail C_UnwrapKey "+code)
		_, err := v.ImportEncrypted(patient(t), "k", keystore.SpecAES256, wrapping, keystore.ImportOAEPSHA1, encryptFor(t, public, keystore.ImportOAEPSHA1, secret))
		if !errors.Is(err, keystore.ErrUnsupported) || errors.Is(err, keystore.ErrInvalidMaterial) || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// CKR_DEVICE_ERROR is some tokens' answer to a wrong padding, and others' when they
// fail.
func TestImportDeviceError(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	wrapping, err := v.Generate(patient(t), "wrapping", keystore.SpecRSA2048)
	if err != nil {
		t.Fatal(err)
	}
	in := func(algorithm keystore.ImportAlgorithm) error {
		_, err := v.ImportEncrypted(patient(t), "k", keystore.SpecAES256, wrapping, algorithm,
			encryptFor(t, publicKey(t, &wrapping).(*rsa.PublicKey), algorithm, make([]byte, 32)))
		return err
	}
	var te *keystore.TokenError
	for name, c := range map[string]struct {
		behaviours []string
		check      func(error) bool
	}{
		"once":              {[]string{"fail C_UnwrapKey CKR_DEVICE_ERROR count 1"}, func(err error) bool { return err == nil }},
		"always":            {[]string{"fail C_UnwrapKey CKR_DEVICE_ERROR"}, func(err error) bool { return errors.As(err, &te) && !errors.Is(err, keystore.ErrInvalidCiphertext) }},
		"for this one only": {[]string{"fail C_UnwrapKey CKR_DEVICE_ERROR count 1", "fail C_UnwrapKey CKR_DEVICE_ERROR skip 1 count 1"}, func(err error) bool { return errors.Is(err, keystore.ErrInvalidCiphertext) }},
	} {
		// What the token does is known, and the wrapping key unwrapped.
		if err := in(keystore.ImportOAEPSHA1); err != nil {
			t.Fatal(err)
		}
		before := tok.Stats().Failures
		m.Set(t, c.behaviours...)
		err := in(keystore.ImportOAEPSHA1)
		m.Set(t)
		if !c.check(err) || name != "always" && tok.Stats().Failures != before {
			t.Errorf("%s: %v, %d failures", name, err, tok.Stats().Failures-before)
		}
	}
}
