package engine_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/kmstest"
)

func pkcs8(t testing.TB, private any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// createExternal makes a key whose material is to be imported.
func createExternal(t testing.TB, c *engine.Client, spec types.KeySpec, usage types.KeyUsageType) string {
	t.Helper()
	out, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage, Origin: types.OriginTypeExternal})
	if err != nil {
		t.Fatal(err)
	}
	if m := out.KeyMetadata; m.KeyState != types.KeyStatePendingImport || m.Enabled || m.ExpirationModel != "" || m.CurrentKeyMaterialId != nil {
		t.Fatalf("a key without material: %+v", m)
	}
	return *out.KeyMetadata.KeyId
}

// importKey makes a key and imports material that does not expire.
func importKey(t testing.TB, c *engine.Client, spec types.KeySpec, usage types.KeyUsageType, material []byte) string {
	t.Helper()
	id := createExternal(t, c, spec, usage)
	algorithm := types.AlgorithmSpecRsaesOaepSha256
	if spec == types.KeySpecRsa2048 || spec == types.KeySpecRsa3072 || spec == types.KeySpecRsa4096 {
		algorithm = types.AlgorithmSpecRsaAesKeyWrapSha256
	}
	in := wrapped(t, c, id, algorithm, material)
	in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	if _, err := c.ImportKeyMaterial(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	return id
}

// wrapped asks for a wrapping key and returns the input that imports material
// under it.
func wrapped(t testing.TB, c *engine.Client, id string, algorithm types.AlgorithmSpec, material []byte) *kms.ImportKeyMaterialInput {
	t.Helper()
	p, err := c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
		KeyId: &id, WrappingAlgorithm: algorithm, WrappingKeySpec: types.WrappingKeySpecRsa2048,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &kms.ImportKeyMaterialInput{KeyId: &id, ImportToken: p.ImportToken, EncryptedKeyMaterial: kmstest.Wrap(t, p.PublicKey, algorithm, material)}
}

// Material of each kind comes in by each algorithm that may wrap it, and works:
// the key decrypts, signs or computes what the same material does elsewhere.
func TestImportAlgorithms(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	symmetric := make([]byte, 32)
	_, _ = rand.Read(symmetric)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	oaep1, oaep256 := types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaesOaepSha256
	aes1, aes256 := types.AlgorithmSpecRsaAesKeyWrapSha1, types.AlgorithmSpecRsaAesKeyWrapSha256
	for _, test := range []struct {
		spec       types.KeySpec
		usage      types.KeyUsageType
		material   []byte
		algorithms []types.AlgorithmSpec
		public     any
	}{
		{types.KeySpecSymmetricDefault, types.KeyUsageTypeEncryptDecrypt, symmetric, []types.AlgorithmSpec{oaep1, oaep256}, nil},
		{types.KeySpecRsa2048, types.KeyUsageTypeSignVerify, pkcs8(t, private), []types.AlgorithmSpec{aes1, aes256}, private.Public()},
		{types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify, pkcs8(t, ec), []types.AlgorithmSpec{oaep1, oaep256, aes1, aes256}, ec.Public()},
	} {
		for _, algorithm := range test.algorithms {
			t.Run(string(test.spec)+"/"+string(algorithm), func(t *testing.T) {
				id := createExternal(t, c, test.spec, test.usage)
				in := wrapped(t, c, id, algorithm, test.material)
				in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
				out, err := c.ImportKeyMaterial(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				described := must(c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})).KeyMetadata
				if described.KeyState != types.KeyStateEnabled || described.ExpirationModel != types.ExpirationModelTypeKeyMaterialDoesNotExpire {
					t.Errorf("after the import: %+v", described)
				}
				if symmetric := test.public == nil; symmetric != (out.KeyMaterialId != nil) {
					t.Errorf("KeyMaterialId %v", out.KeyMaterialId)
				}
				if test.public == nil {
					roundTrip(t, c, id)
					return
				}
				public := must(c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &id}))
				want, err := x509.MarshalPKIXPublicKey(test.public)
				if err != nil || !bytes.Equal(public.PublicKey, want) {
					t.Errorf("another public key than that of the material: %v", err)
				}
				a := must(c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &id})).SigningAlgorithms[0]
				s, err := c.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: []byte("m"), SigningAlgorithm: a})
				if err != nil {
					t.Fatal(err)
				}
				if err := opensslVerify(t, want, a, []byte("m"), s.Signature); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func roundTrip(t testing.TB, c *engine.Client, id string) {
	t.Helper()
	sealed, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &id, Plaintext: []byte("plaintext"), EncryptionContext: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if string(opened.Plaintext) != "plaintext" {
		t.Errorf("decrypted to %q", opened.Plaintext)
	}
}

// The life of imported symmetric material: it expires, is imported again with the
// same id, is deleted, and no other is taken in its place.
func TestImportedMaterialLife(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	material := bytes.Repeat([]byte{7}, 32)
	id := createExternal(t, c, "", "")
	validTo := f.clock.now().Add(time.Hour)
	in := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, material)
	in.ValidTo = &validTo
	in.KeyMaterialDescription = aws.String("first")
	first := must(c.ImportKeyMaterial(ctx, in))
	state := func() types.KeyState {
		t.Helper()
		return must(c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id})).KeyMetadata.KeyState
	}
	m := must(c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id})).KeyMetadata
	if m.KeyState != types.KeyStateEnabled || m.ExpirationModel != types.ExpirationModelTypeKeyMaterialExpires || !m.ValidTo.Equal(validTo) ||
		aws.ToString(m.CurrentKeyMaterialId) != *first.KeyMaterialId {
		t.Fatalf("after the import: %+v", m)
	}
	sealed := must(c.Encrypt(ctx, &kms.EncryptInput{KeyId: &id, Plaintext: []byte("p")}))

	f.clock.advance(time.Hour)
	if got := state(); got != types.KeyStatePendingImport {
		t.Errorf("state %s when the material has expired", got)
	}
	_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	wantCode(t, err, "KMSInvalidStateException")
	f.sweep()
	f.reopen()
	c = f.client()

	other := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{8}, 32))
	other.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	_, err = c.ImportKeyMaterial(ctx, other)
	wantCode(t, err, "IncorrectKeyMaterialException")

	again := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha1, material)
	again.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	again.KeyMaterialId = first.KeyMaterialId
	second := must(c.ImportKeyMaterial(ctx, again))
	if *second.KeyMaterialId != *first.KeyMaterialId {
		t.Error("the same material has another id")
	}
	if out := must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})); string(out.Plaintext) != "p" {
		t.Errorf("decrypted to %q", out.Plaintext)
	}

	deleted := must(c.DeleteImportedKeyMaterial(ctx, &kms.DeleteImportedKeyMaterialInput{KeyId: &id}))
	if aws.ToString(deleted.KeyMaterialId) != *first.KeyMaterialId || state() != types.KeyStatePendingImport {
		t.Errorf("deleted %+v, state %s", deleted, state())
	}
	must(c.DeleteImportedKeyMaterial(ctx, &kms.DeleteImportedKeyMaterialInput{KeyId: &id})) // no effect
}

// A key has its own material ids, although the material is the same.
func TestImportedMaterialID(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	var ids []string
	for range 2 {
		id := createExternal(t, c, "", "")
		in := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{1}, 32))
		in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
		ids = append(ids, *must(c.ImportKeyMaterial(t.Context(), in)).KeyMaterialId)
	}
	if ids[0] == ids[1] {
		t.Error("two keys have a material id in common")
	}
}

// A second material waits for its rotation, beside the first.
func TestImportNewMaterial(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	id := importKey(t, c, "", "", bytes.Repeat([]byte{1}, 32))
	importNew := func(b byte) error {
		in := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{b}, 32))
		in.ImportType = types.ImportTypeNewKeyMaterial
		in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
		_, err := c.ImportKeyMaterial(ctx, in)
		return err
	}
	wantCode(t, importNew(1), "IncorrectKeyMaterialException")
	if err := importNew(2); err != nil {
		t.Fatal(err)
	}
	wantCode(t, importNew(3), "KMSInvalidStateException")
	roundTrip(t, c, id)
}

// What is wrong with an import is told, and changes nothing.
func TestImportRefused(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	ctx := t.Context()
	id := createExternal(t, c, "", "")
	another := createExternal(t, c, "", "")
	made := createKey(t, c, "", "")
	material := bytes.Repeat([]byte{7}, 32)
	good := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, material)
	good.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	short := wrapped(t, c, id, types.AlgorithmSpecRsaesOaepSha256, material[1:])
	short.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	soon := f.clock.now().Add(time.Hour)
	for name, test := range map[string]struct {
		code   string
		change func(*kms.ImportKeyMaterialInput)
	}{
		"token of another key":     {"InvalidImportTokenException", func(in *kms.ImportKeyMaterialInput) { in.KeyId = &another }},
		"no such token":            {"InvalidImportTokenException", func(in *kms.ImportKeyMaterialInput) { in.ImportToken = []byte("x") }},
		"key with material of KMS": {"UnsupportedOperationException", func(in *kms.ImportKeyMaterialInput) { in.KeyId = &made }},
		"not wrapped":              {"InvalidCiphertextException", func(in *kms.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = material }},
		"broken":                   {"InvalidCiphertextException", func(in *kms.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = bytes.Repeat([]byte{1}, 256) }},
		"too short":                {"IncorrectKeyMaterialException", func(in *kms.ImportKeyMaterialInput) { *in = *short }},
		"no date":                  {"ValidationException", func(in *kms.ImportKeyMaterialInput) { in.ExpirationModel = "" }},
		"date without expiry":      {"ValidationException", func(in *kms.ImportKeyMaterialInput) { in.ValidTo = &soon }},
		"date in the past": {"ValidationException", func(in *kms.ImportKeyMaterialInput) {
			in.ExpirationModel, in.ValidTo = "", aws.Time(f.clock.now())
		}},
		"date too far": {"ValidationException", func(in *kms.ImportKeyMaterialInput) {
			in.ExpirationModel, in.ValidTo = "", aws.Time(f.clock.now().Add(366*24*time.Hour))
		}},
		"existing material of a new key": {"IncorrectKeyMaterialException", func(in *kms.ImportKeyMaterialInput) { in.ImportType = types.ImportTypeExistingKeyMaterial }},
		"new material with an id": {"ValidationException", func(in *kms.ImportKeyMaterialInput) {
			in.ImportType, in.KeyMaterialId = types.ImportTypeNewKeyMaterial, aws.String(string(bytes.Repeat([]byte("a"), 64)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in := *good
			test.change(&in)
			_, err := c.ImportKeyMaterial(ctx, &in)
			wantCode(t, err, test.code)
			if m := must(c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id})).KeyMetadata; m.KeyState != types.KeyStatePendingImport {
				t.Errorf("the key is %s", m.KeyState)
			}
		})
	}
	f.clock.advance(24 * time.Hour)
	_, err := c.ImportKeyMaterial(ctx, good)
	wantCode(t, err, "ExpiredImportTokenException")
	f.sweep()
	_, err = c.ImportKeyMaterial(ctx, good)
	wantCode(t, err, "InvalidImportTokenException")
}

// Which algorithm may wrap what, as AWS KMS has it.
func TestWrappingAlgorithms(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	p521 := createExternal(t, c, types.KeySpecEccNistP521, types.KeyUsageTypeSignVerify)
	rsaKey := createExternal(t, c, types.KeySpecRsa2048, types.KeyUsageTypeSignVerify)
	symmetric := createExternal(t, c, "", "")
	made := createKey(t, c, "", "")
	for _, test := range []struct {
		id        string
		algorithm types.AlgorithmSpec
		wrapping  types.WrappingKeySpec
	}{
		{p521, types.AlgorithmSpecRsaesOaepSha256, types.WrappingKeySpecRsa2048},
		{rsaKey, types.AlgorithmSpecRsaesOaepSha256, types.WrappingKeySpecRsa4096},
		{symmetric, types.AlgorithmSpecRsaAesKeyWrapSha256, types.WrappingKeySpecRsa2048},
		{symmetric, types.AlgorithmSpecRsaesPkcs1V15, types.WrappingKeySpecRsa2048},
		{symmetric, types.AlgorithmSpecSm2pke, types.WrappingKeySpecSm2},
		{made, types.AlgorithmSpecRsaesOaepSha256, types.WrappingKeySpecRsa2048},
	} {
		_, err := c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
			KeyId: &test.id, WrappingAlgorithm: test.algorithm, WrappingKeySpec: test.wrapping,
		})
		wantCode(t, err, "UnsupportedOperationException")
	}
}
