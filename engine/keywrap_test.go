package engine_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/testlog"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// otherToken is an engine on a token of another make than SoftHSM2.
type otherToken struct {
	*fixture
	module *tokentest.Faulty
	uri    keystore.URI
	log    testlog.Buffer
}

func onOtherToken(t *testing.T, behaviours ...string) *otherToken {
	t.Helper()
	o := &otherToken{module: tokentest.NewFaulty(t)}
	o.uri = o.module.Token(t, &modules)
	o.module.Set(t, behaviours...)
	o.fixture = newEngine(t, func(c *engine.Config) {
		o.openToken(t, c)
		c.Logger = slog.New(slog.NewTextHandler(&o.log, nil))
	})
	return o
}

// openToken opens the token as it is now.
func (o *otherToken) openToken(t *testing.T, c *engine.Config) {
	t.Helper()
	c.Token = tokentest.Open(t, &modules, tokentest.Options(o.uri))
	c.Vault = must(c.Token.OpenVault(t.Context(), keystore.VaultOptions{Name: "test", Existing: o.fixture != nil}))
}

// kindsOfVersion1 are the kinds of record that every hyok knows; each refuses others.
var kindsOfVersion1 = []string{"key", "alias", "grant", "keystore", "import", "usage", "intent", "meta"}

// A store with material that was wrapped in the newer way has a record that an older
// hyok refuses to load; one without has none.
func TestOlderVersionsRefuseKeyWrap(t *testing.T) {
	for behaviour, want := range map[string]bool{"": false, "wrap kwp": true} {
		o := onOtherToken(t, behaviour)
		must(o.client().CreateKey(t.Context(), &kms.CreateKeyInput{}))
		o.close()
		unknown := slices.ContainsFunc(o.edit(nil), func(r store.Record) bool { return !slices.Contains(kindsOfVersion1, r.Kind) })
		if unknown != want {
			t.Errorf("%q: an older version refuses the store: %v", behaviour, unknown)
		}
		o.open()
	}
}

// A database goes with its keys to a token of another make where that opens them, and
// is refused with the reason where it does not.
func TestDatabaseMovesBetweenMakes(t *testing.T) {
	o := onOtherToken(t, "hide 0x210a", "wrap kwp")
	var ids []*string
	for _, in := range []*kms.CreateKeyInput{{}, {KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify}} {
		ids = append(ids, must(o.client().CreateKey(t.Context(), in)).KeyMetadata.KeyId)
	}
	blob := must(o.client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: ids[0], Plaintext: []byte("text")})).CiphertextBlob
	o.close()
	for _, c := range []struct {
		behaviours []string
		refused    bool
	}{
		{nil, false}, // SoftHSM2's CKM_AES_KEY_WRAP_PAD is the same
		{[]string{"wrap pad-differs"}, true},
		{[]string{"hide 0x210a"}, true},
		{[]string{"wrap pad-differs", "wrap kwp"}, false},
	} {
		o.module.Set(t, c.behaviours...)
		o.openToken(t, &o.config)
		if c.refused {
			o.config.Store = must(store.OpenSQLite(t.Context(), o.path, slog.New(slog.DiscardHandler)))
			_, err := engine.Open(t.Context(), o.config)
			if !errors.Is(err, keystore.ErrUnsupported) || !strings.Contains(err.Error(), "CKM_AES_KEY_WRAP_KWP") {
				t.Errorf("%v: %v", c.behaviours, err)
			}
			if err := o.config.Store.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		o.open()
		if got, err := o.client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob}); err != nil || string(got.Plaintext) != "text" {
			t.Errorf("%v: %v", c.behaviours, err)
		}
		if _, err := o.client().Sign(t.Context(), &kms.SignInput{
			KeyId: ids[1], Message: []byte("message"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		}); err != nil {
			t.Errorf("%v: %v", c.behaviours, err)
		}
		o.close()
	}
	o.open()
}

// What the token lacks is no error of the server, which SDKs repeat, and the log has
// what the token answered.
func TestTokenLacks(t *testing.T) {
	o := onOtherToken(t)
	c := o.client()
	create := func(spec types.KeySpec, usage types.KeyUsageType) error {
		_, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
		return err
	}
	rsaKey := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify})).KeyMetadata.KeyId
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := createExternal(t, c, types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify)
	edImport := wrapped(t, c, ed, types.AlgorithmSpecRsaesOaepSha256, must(x509.MarshalPKCS8PrivateKey(private)))
	edImport.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	keys := len(must(c.ListKeys(t.Context(), &kms.ListKeysInput{})).Keys)
	for _, f := range []struct {
		name, behaviour, code string
		do                    func() error
	}{
		{"a curve", "fail C_GenerateKeyPair CKR_DOMAIN_PARAMS_INVALID", "0x130", func() error { return create(types.KeySpecEccSecgP256k1, types.KeyUsageTypeSignVerify) }},
		{"a mechanism", "fail C_GenerateKeyPair CKR_MECHANISM_INVALID", "0x70", func() error { return create(types.KeySpecRsa2048, types.KeyUsageTypeSignVerify) }},
		{"a function", "fail C_GenerateKey CKR_FUNCTION_NOT_SUPPORTED", "0x54", func() error { return create(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac) }},
		{"agreement", "hide 0x1050", "0x70", func() error { return create(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement) }},
		{"Ed25519", "hide 0x1057", "0x70", func() error { return create(types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify) }},
		{"an imported Ed25519 key", "hide 0x1057", "0x70", func() error { _, err := c.ImportKeyMaterial(t.Context(), edImport); return err }},
		{"RSA decryption", "hide 0x3 0x9", "0x70", func() error { return create(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt) }},
		{"parameters for import", "hide 0x3 0x9", "0x70", func() error {
			_, err := c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
				KeyId: &ed, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
			})
			return err
		}},
		{"a way to sign", "hide 0xd", "0x70", func() error { // CKM_RSA_PKCS_PSS
			_, err := c.Sign(t.Context(), &kms.SignInput{KeyId: rsaKey, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256})
			return err
		}},
	} {
		o.module.Set(t, f.behaviour)
		before := len(o.log.String())
		err := f.do()
		o.module.Set(t)
		var refused *types.UnsupportedOperationException
		if !errors.As(err, &refused) || refused.Message == nil || strings.Contains(*refused.Message, f.code) {
			t.Errorf("%s: %v", f.name, err)
		}
		if line := o.log.String()[before:]; !strings.Contains(line, f.code) {
			t.Errorf("%s: the log has %q", f.name, line)
		}
		if n := len(must(c.ListKeys(t.Context(), &kms.ListKeysInput{})).Keys); n != keys {
			t.Errorf("%s: %d keys became %d", f.name, keys, n)
		}
	}
	if _, err := c.ImportKeyMaterial(t.Context(), edImport); err != nil { // nothing of the refused one is left
		t.Error(err)
	}
	if residents := must(o.config.Vault.Residents(t.Context())); len(residents) != 1 {
		t.Errorf("the token has %v", residents)
	}
}

// What the token answers of our own wrapped key is never called the caller's fault.
func TestUnwrapFailureIsNotTheCallers(t *testing.T) {
	o := onOtherToken(t)
	c := o.client()
	id := createExternal(t, c, "", "")
	in := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{1}, 32))
	in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	key := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata.KeyId
	blob := must(c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: key, Plaintext: []byte("text")})).CiphertextBlob
	for code, number := range map[string]string{"CKR_MECHANISM_INVALID": "0x70", "CKR_TEMPLATE_INCOMPLETE": "0xD0", "CKR_GENERAL_ERROR": "0x5"} {
		o.module.Set(t)
		o.reopenVault(t)
		c = o.client()
		o.module.Set(t, "fail C_UnwrapKey "+code)
		for name, do := range map[string]func() error{
			"ImportKeyMaterial": func() error { _, err := c.ImportKeyMaterial(t.Context(), in); return err },
			"Decrypt": func() error {
				_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
				return err
			},
		} {
			before := len(o.log.String())
			err := do()
			var wrong *types.InvalidCiphertextException
			if err == nil || errors.As(err, &wrong) {
				t.Errorf("%s, %s: %v", name, code, err)
			}
			if line := o.log.String()[before:]; !strings.Contains(line, number+": ") {
				t.Errorf("%s, %s: the log has %q", name, code, line)
			}
		}
	}
	o.module.Set(t)
	if _, err := c.ImportKeyMaterial(t.Context(), in); err != nil {
		t.Error(err)
	}
}

// reopenVault restarts the engine with no key unwrapped.
func (o *otherToken) reopenVault(t *testing.T) {
	t.Helper()
	o.close()
	o.openToken(t, &o.config)
	o.open()
}

// A token without a key wrap is told of at the start, and serves.
func TestStartWithoutKeyWrap(t *testing.T) {
	o := onOtherToken(t, "hide 0x210a")
	if log := o.log.String(); !strings.Contains(log, "CKM_AES_KEY_WRAP_KWP") || !strings.Contains(log, "CKM_AES_KEY_WRAP_PAD") {
		t.Errorf("the log has %q", log)
	}
	key := must(o.client().CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata.KeyId
	blob := must(o.client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: key, Plaintext: []byte("text")})).CiphertextBlob
	if got, err := o.client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob}); err != nil || string(got.Plaintext) != "text" {
		t.Error(err)
	}
}
