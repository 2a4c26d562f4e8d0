package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// What tests do to keys that would take another token or long preparations to
// reach through the API.

// MakeUnavailable puts a key into a custom key store that is not connected.
func (e *Engine) MakeUnavailable(ctx context.Context, account, region, keyID string) error {
	k := e.state.key(newKeyRef(account, region, keyID), e.now()).clone()
	old := k.clone()
	cks := &customStore{
		Account: account, Region: region, ID: "cks-0123456789abcdef0", Name: "elsewhere", Type: types.CustomKeyStoreTypeAwsCloudhsm,
		Created: e.now(), State: types.ConnectionStateTypeDisconnected, ClusterID: "cluster-2222222222a",
	}
	k.StoreID, k.Origin = cks.ID, types.OriginTypeAwsCloudhsm
	b := new(batch)
	b.putStore(cks)
	b.dropKey(old) // so that the key is counted as one of the store
	b.putKey(k)
	return e.commit(ctx, b)
}

// AddImported gives a key material as an import of new material does, and returns
// its id. Related keys that are named have it imported too.
func (e *Engine) AddImported(ctx context.Context, account, keyID string, regions ...string) (string, error) {
	made, err := e.vault.Generate(ctx, "imported-"+randomHex(8), keystore.SpecAES256)
	if err != nil {
		return "", err
	}
	m := material{ID: materialID(keyID, made), Vault: &made}
	b := new(batch)
	for _, region := range regions {
		k := e.state.key(newKeyRef(account, region, keyID), e.now()).clone()
		if k.Current == "" {
			first := m
			first.Since, k.Current = e.now(), m.ID
			k.Materials = []material{first}
		} else {
			k.Materials = append(k.Materials, m)
		}
		b.putKey(k)
	}
	return m.ID, e.commit(ctx, b)
}

// IntendToDestroy stores what a process leaves that is killed between deleting a
// key and destroying its material.
func (e *Engine) IntendToDestroy(ctx context.Context, account, region, keyID string) error {
	k := e.state.key(newKeyRef(account, region, keyID), e.now())
	b := new(batch)
	b.dropKey(k)
	for _, m := range k.lastMaterials(nil) {
		b.putIntent(intent{Material: m.ID, Spec: m.Spec, GivenUp: true})
	}
	return e.commit(ctx, b)
}

// Records counts what the state has of a key beside the key itself.
func (e *Engine) Records(account, region, keyID string) (aliases, grants, imports int) {
	ref := newKeyRef(account, region, keyID)
	e.state.mu.RLock()
	defer e.state.mu.RUnlock()
	for _, t := range e.state.imports {
		if newKeyRef(t.Account, t.Region, t.KeyID) == ref {
			imports++
		}
	}
	return len(below(&e.state.keyAliases, string(ref)+"/")), len(below(&e.state.grants, string(ref)+"/")), imports
}
