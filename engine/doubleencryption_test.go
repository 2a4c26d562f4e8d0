package engine_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// The promise: whoever holds the token of the external key can stop the KMS key,
// and start it again.
func TestDisablingTheExternalKeyStopsTheKey(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external", "unused")
	k := externalKey(t, c, r.connected(c, "xks"), "external")
	blob := encrypt(t, c, k.KeyId, "hello", nil)

	if err := r.token.SetEnabled(t.Context(), "external", false); err != nil {
		t.Fatal(err)
	}
	_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, "KMSInvalidStateException", "is not enabled in the external key manager")
	_, err = c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
	wantError(t, err, "KMSInvalidStateException", "is not enabled in the external key manager")
	_, err = c.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: types.DataKeySpecAes256})
	wantError(t, err, "KMSInvalidStateException", "is not enabled in the external key manager")

	if err := r.token.SetEnabled(t.Context(), "external", true); err != nil {
		t.Fatal(err)
	}
	wantPlaintext(t, c, blob, nil, "hello")

	if err := r.token.DestroyKey(t.Context(), "external", 1); err != nil {
		t.Fatal(err)
	}
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantError(t, err, "KMSInvalidStateException", "was not found in its external key manager")
}

func TestExternalKeyMetadata(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	r.asked()
	m := externalKey(t, c, storeID, "external")
	want := &types.KeyMetadata{
		AWSAccountId: aws.String(account), Arn: m.Arn, CreationDate: aws.Time(f.clock.now()), CustomKeyStoreId: storeID,
		//nolint:staticcheck // deprecated, and answered.
		CustomerMasterKeySpec: types.CustomerMasterKeySpecSymmetricDefault, Description: aws.String(""), Enabled: true,
		EncryptionAlgorithms: []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault}, KeyId: m.KeyId,
		KeyManager: types.KeyManagerTypeCustomer, KeySpec: types.KeySpecSymmetricDefault, KeyState: types.KeyStateEnabled,
		KeyUsage: types.KeyUsageTypeEncryptDecrypt, MultiRegion: aws.Bool(false), Origin: types.OriginTypeExternalKeyStore,
		XksKeyConfiguration: &types.XksKeyConfigurationType{Id: aws.String("external")},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
	asked := r.asked()
	if len(asked) != 1 || asked[0].path != prefixA+xks.APIPath+"/keys/external/metadata" {
		t.Fatalf("%+v", asked)
	}
	metadata := decode(t, asked[0].body)["requestMetadata"].(map[string]any)
	if _, has := metadata["kmsKeyArn"]; has || metadata["kmsOperation"] != "CreateKey" || metadata["awsPrincipalArn"] != "arn:aws:iam::"+account+":user/alice" {
		t.Error(metadata)
	}
}

// What the proxy is told of an operation, and what it must not be.
func TestProxyRequests(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("one", "two")
	storeID := r.connected(c, "xks")
	one, two := externalKey(t, c, storeID, "one"), externalKey(t, c, storeID, "two")
	context := map[string]string{"customer": "a secret of nobody else", "empty": ""}
	ctx := engine.WithRequestID(t.Context(), "request-4711")
	r.asked()
	encrypted, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: one.KeyId, Plaintext: []byte("the plaintext"), EncryptionContext: context})
	if err != nil {
		t.Fatal(err)
	}
	blob := encrypted.CiphertextBlob
	must(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context}))
	must(c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: context, DestinationKeyId: two.Arn}))
	must(c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: one.KeyId, KeySpec: types.DataKeySpecAes256}))
	must(c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: one.KeyId, KeySpec: types.DataKeySpecAes256}))
	asked := r.asked()
	for i, want := range []struct {
		path, op string
		key      *types.KeyMetadata
	}{
		{"one/encrypt", "Encrypt", one}, {"one/decrypt", "Decrypt", one}, {"one/decrypt", "ReEncrypt", one}, {"two/encrypt", "ReEncrypt", two},
		{"one/encrypt", "GenerateDataKey", one}, {"one/encrypt", "GenerateDataKeyWithoutPlaintext", one},
	} {
		got := asked[i]
		body := decode(t, got.body)
		metadata := map[string]any{
			"awsPrincipalArn": "arn:aws:iam::" + account + ":user/alice", "kmsKeyArn": *want.key.Arn,
			"kmsOperation": want.op, "kmsRequestId": "request-4711",
		}
		if !strings.HasSuffix(got.path, "/keys/"+want.path) || !reflect.DeepEqual(body["requestMetadata"], metadata) {
			t.Errorf("request %d: %s %s", i, got.path, got.body)
		}
		aad, err := base64.StdEncoding.DecodeString(body["additionalAuthenticatedData"].(string))
		if err != nil || len(aad) != 32 {
			t.Errorf("request %d: additional data of %d bytes, %v", i, len(aad), err)
		}
		if strings.HasSuffix(got.path, "encrypt") && body["ciphertextDataIntegrityValueAlgorithm"] != xks.CDIVSHA256 {
			t.Errorf("request %d: %s", i, got.body)
		}
		for _, secret := range []string{"the plaintext", "a secret of nobody else"} {
			if encoded := base64.StdEncoding.EncodeToString([]byte(secret)); bytes.Contains(got.body, []byte(encoded[:12])) || bytes.Contains(got.body, []byte(secret)) {
				t.Errorf("request %d has %q: %s", i, secret, got.body)
			}
		}
	}
	if len(asked) != 6 {
		t.Errorf("%d requests", len(asked))
	}
}

// Both layers are there: the outer one alone opens to no plaintext, and without
// either key there is no way in.
func TestBothLayersAreNeeded(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	k := externalKey(t, c, storeID, "external")
	plaintext := strings.Repeat("known plaintext ", 256) // 4,096 bytes, the most there is
	r.asked()
	blob := encrypt(t, c, k.KeyId, plaintext, map[string]string{"a": "b"})
	wantPlaintext(t, c, blob, map[string]string{"a": "b"}, plaintext)

	asked := r.asked()
	inner, err := base64.StdEncoding.DecodeString(decode(t, asked[0].body)["plaintext"].(string))
	if err != nil {
		t.Fatal(err)
	}
	// What the proxy is given to encrypt, and gives back, is ciphertext too.
	if bytes.Contains(inner, []byte("known plaintext")) || bytes.Contains(blob, inner[20:52]) || len(inner) <= len(plaintext) {
		t.Error("there is one layer only")
	}
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: map[string]string{"a": "c"}})
	wantError(t, err, "KMSInvalidStateException", "rejected the request because the specified ciphertext or encryption context is corrupted")
	changed := bytes.Clone(blob)
	changed[len(changed)-1] ^= 1
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: changed, EncryptionContext: map[string]string{"a": "b"}})
	wantError(t, err, "KMSInvalidStateException", "rejected the request because the specified ciphertext or encryption context is corrupted")
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob[:60], EncryptionContext: map[string]string{"a": "b"}})
	wantCode(t, err, "InvalidCiphertextException")
}

// Without the main token's part of the material the external key is of no use.
func TestMaterialGoneFromTheMainToken(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	k := externalKey(t, c, r.connected(c, "xks"), "external")
	plain := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	blob, plainBlob := encrypt(t, c, k.KeyId, "hello", nil), encrypt(t, c, plain.KeyId, "hello", nil)
	destroyKeys(t, f.config.Token, "hyok.root.") // that alone: a token without all of its keys is taken for a sick one
	for _, b := range [][]byte{blob, plainBlob} {
		// Refused within the second that is promised. That all is gone at once is believed
		// when the token has confirmed it.
		decrypt := func() error {
			_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: b})
			return err
		}
		err := eventuallyFails(t, decrypt)
		var api smithy.APIError
		for end := time.Now().Add(time.Minute); errors.As(err, &api) && api.ErrorCode() == "DependencyTimeoutException" && time.Now().Before(end); err = decrypt() {
			time.Sleep(5 * time.Millisecond)
		}
		wantError(t, err, "KMSInvalidStateException", "is not in its token")
	}
}

// eventuallyFails returns the first error of do.
func eventuallyFails(t testing.TB, do func() error) error {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

func TestExternalKeyIsUsedOnce(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	made := make(chan error)
	const tries = 8
	for range tries {
		go func() {
			_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, "external"))
			made <- err
		}()
	}
	succeeded := 0
	for range tries {
		if err := <-made; err == nil {
			succeeded++
		} else {
			wantCode(t, err, "XksKeyAlreadyInUseException")
		}
	}
	if succeeded != 1 {
		t.Errorf("%d keys over one external key", succeeded)
	}
	f.reopen()
	settled(t, f.client(), storeID)
	_, err := f.client().CreateKey(t.Context(), externalKeyInput(storeID, "external"))
	wantCode(t, err, "XksKeyAlreadyInUseException")
}

func TestUnfitExternalKeys(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.connected(c, "xks")
	for id, usage := range map[string]keystore.KeyUsage{"encrypts": {Encrypt: true}, "disabled": {Encrypt: true, Decrypt: true}} {
		if err := r.token.GenerateKey(t.Context(), id, usage); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.token.SetEnabled(t.Context(), "disabled", false); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ id, code, message string }{
		{"encrypts", "XksKeyInvalidConfigurationException", "The key use of specified external key is ENCRYPT."},
		{"disabled", "XksKeyInvalidConfigurationException", "The status of specified external key is DISABLED."},
		{"missing", "XksKeyNotFoundException", "was not found in its external key manager"},
	} {
		_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, x.id))
		wantError(t, err, x.code, x.message)
	}
}
