package engine_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// Who reads the database cannot try out there what imported material is.
func TestImportedMaterialCannotBeGuessed(t *testing.T) {
	f := newEngine(t)
	guess := bytes.Repeat([]byte{1}, 32)
	importKey(t, f.client(), "", "", guess)
	same := must(f.config.Vault.Import(t.Context(), "guess", keystore.SpecAES256, guess))
	f.close()
	defer f.open()
	known := base64.StdEncoding.EncodeToString(same.Digest)
	for _, r := range f.edit(nil) {
		if strings.Contains(string(r.Data), known) {
			t.Errorf("the %s tells the digest of the material", r.Kind)
		}
	}
}

// Nothing of a wrapping key stays once nobody can use it, also where the token
// has to keep such keys.
func TestWrappingKeysGo(t *testing.T) {
	module := tokentest.NewFaulty(t)
	u := module.Token(t, &modules)
	module.Set(t, "fail C_WrapKey 0x69") // CKR_KEY_NOT_WRAPPABLE
	tok := tokentest.Open(t, &modules, tokentest.Options(u))
	vault := must(tok.OpenVault(t.Context(), keystore.VaultOptions{Name: "test"}))
	f := newEngine(t, func(c *engine.Config) { c.Token, c.Vault = tok, vault })
	c := f.client()
	id := createExternal(t, c, "", "")
	before := must(vault.Residents(t.Context()))
	out := must(c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
		KeyId: &id, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
	}))
	if after := must(vault.Residents(t.Context())); len(after) != len(before)+1 {
		t.Fatalf("%v became %v", before, after)
	}
	clear(out.PublicKey) // the caller's own
	f.clock.advance(25 * time.Hour)
	f.sweep()
	if after := must(vault.Residents(t.Context())); !slices.Equal(after, before) {
		t.Errorf("%v became %v", before, after)
	}
}
