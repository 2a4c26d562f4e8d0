package engine_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// What an operation asks of the token does not grow with the number of keys: no
// key is searched for, whatever is made or used; a start unwraps none; and
// DescribeKey leaves the token alone.
func TestManyKeysAskNoMoreOfTheToken(t *testing.T) {
	const n = 30
	module := tokentest.NewFaulty(t) // it does nothing wrong here, and counts
	tok := tokentest.Open(t, &modules, tokentest.Options(module.Token(t, &modules)))
	vault := must(tok.OpenVault(t.Context(), keystore.VaultOptions{Name: "many"}))
	f := newEngine(t, func(c *engine.Config) { c.Token, c.Vault = tok, vault })
	c := f.client()
	// quiet fails if f calls one of the functions once for every key. A probe in the
	// background may call some of them now and then.
	quiet := func(what string, f func(), functions ...string) {
		t.Helper()
		before := map[string]int{}
		for _, name := range functions {
			before[name] = module.Count(t, name)
		}
		f()
		for _, name := range functions {
			if calls := module.Count(t, name) - before[name]; calls >= n {
				t.Errorf("%s called %s %d times for %d keys", what, name, calls, n)
			}
		}
	}
	var keys []*string
	var blobs [][]byte
	quiet("making keys", func() {
		for range n {
			keys = append(keys, must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata.KeyId)
		}
	}, "C_FindObjectsInit", "C_CreateObject", "C_CopyObject")
	quiet("using keys", func() {
		for _, k := range keys {
			blobs = append(blobs, must(c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k, Plaintext: []byte("text")})).CiphertextBlob)
		}
	}, "C_FindObjectsInit")
	if unwrapped := module.Count(t, "C_UnwrapKey"); unwrapped < n {
		t.Fatalf("%d keys were used, and %d calls of C_UnwrapKey counted", n, unwrapped)
	}
	quiet("using keys again", func() {
		for _, b := range blobs {
			must(c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: b}))
		}
	}, "C_FindObjectsInit", "C_UnwrapKey")
	quiet("a start", f.reopen, "C_FindObjectsInit", "C_UnwrapKey", "C_GetAttributeValue")
	c = f.client()
	quiet("describing keys", func() {
		for _, k := range keys {
			must(c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: k}))
		}
	}, "C_FindObjectsInit", "C_UnwrapKey", "C_GetAttributeValue", "C_EncryptInit", "C_DecryptInit")
}
