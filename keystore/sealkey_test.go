package keystore_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// The secret is one of the vault and the purpose, in every process and for ever,
// and its key is made only when that is asked for.
func TestSealSecret(t *testing.T) {
	v, tok, u := newVault(t)
	if _, err := v.SealSecret(patient(t), "a", false); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Fatalf("without a key: %v", err)
	}
	secret, err := v.SealSecret(patient(t), "a", true)
	if err != nil || len(secret) != 32 {
		t.Fatalf("%d bytes, %v", len(secret), err)
	}
	for _, again := range []*keystore.Vault{v, openVault(t, tok), openVault(t, tokentest.Open(t, &modules, tokentest.Options(u)))} {
		for _, create := range []bool{false, true} {
			if got, err := again.SealSecret(patient(t), "a", create); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("again: another secret, or %v", err)
			}
		}
	}
	if got, err := v.SealSecret(patient(t), "b", false); err != nil || bytes.Equal(got, secret) {
		t.Errorf("for another purpose: the same secret, or %v", err)
	}
	other := openVault(t, tok, func(o *keystore.VaultOptions) { o.Name = "other" })
	if got, err := other.SealSecret(patient(t), "a", true); err != nil || bytes.Equal(got, secret) {
		t.Errorf("in another vault: the same secret, or %v", err)
	}
	if ids, err := v.Residents(patient(t)); err != nil || len(ids) != 0 {
		t.Errorf("the key is taken for material: %v, %v", ids, err)
	}
	tool(t, u, "--delete-object", "--type", "secrkey", "--label", "hyok.seal.test")
	if _, err := v.SealSecret(patient(t), "a", false); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("its key was deleted: %v", err)
	}
}

// Those who want the first secret at once get the same.
func TestSealSecretAtOnce(t *testing.T) {
	_, tok, _ := newVault(t)
	var wg sync.WaitGroup
	secrets := make([][]byte, 4)
	for i := range secrets {
		v := openVault(t, tok)
		wg.Go(func() {
			secret, err := v.SealSecret(patient(t), "a", true)
			if err != nil {
				t.Error(err)
			}
			secrets[i] = secret
		})
	}
	wg.Wait()
	for _, s := range secrets {
		if !bytes.Equal(s, secrets[0]) {
			t.Error("two secrets")
		}
	}
}
