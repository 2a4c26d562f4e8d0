package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"github.com/hyok-kms/hyok/keystore"
)

// destroyGone destroys those of some keys whose time has come. The keys are of
// one family, which is locked.
func (e *Engine) destroyGone(ctx context.Context, keys []*key) error {
	for _, k := range keys {
		if !k.isGone(e.now()) {
			continue
		}
		if err := e.destroyKey(ctx, k); err != nil {
			return fmt.Errorf("delete %s: %w", k.arn(), err)
		}
	}
	return nil
}

// destroyKey deletes a key, all that refers to it, and its material. Its family
// is locked. What must go from a token is first intended in the same batch, so
// that the object of a key that is no more cannot stay, whenever the process ends.
func (e *Engine) destroyKey(ctx context.Context, k *key) error {
	b := new(batch)
	related := e.state.related(k)
	last := k.lastMaterials(related)
	intents := e.intentsToDestroy(k, last)
	b.dropKey(k)
	wrappingKeys := e.state.dropBelongings(b, k.ref())
	intents = append(intents, residentIntents(wrappingKeys, "")...)
	for _, i := range intents {
		b.putIntent(i)
	}
	leaveFamily(b, k, related, e.now())
	if err := e.commit(ctx, b); err != nil {
		return err
	}
	e.log.InfoContext(ctx, "a key was deleted at the end of its waiting period", "key", k.arn())
	return errors.Join(e.forgetWrapped(ctx, k.arn(), append(last, wrappingKeys...)), e.finishOrLeave(ctx, intents))
}

// lastMaterials returns the materials of k that no related key has.
func (k *key) lastMaterials(related []*key) []keystore.Material {
	shared := map[string]bool{}
	for _, other := range related {
		for i := range other.Materials {
			if v := other.Materials[i].Vault; v != nil {
				shared[v.ID] = true
			}
		}
	}
	var last []keystore.Material
	for i := range k.Materials {
		if v := k.Materials[i].Vault; v != nil && !shared[v.ID] {
			last = append(last, *v)
		}
	}
	return last
}

// intentsToDestroy returns an intent for each of a key's materials that is an
// object of a token.
func (e *Engine) intentsToDestroy(k *key, materials []keystore.Material) []intent {
	cluster := ""
	if k.StoreID != "" && k.XksKeyID == "" {
		if cks := e.state.customStore(k.Account, k.Region, k.StoreID); cks != nil {
			cluster = cks.ClusterID
		}
	}
	return residentIntents(materials, cluster)
}

// residentIntents returns an intent for each material that is an object of a
// token.
func residentIntents(materials []keystore.Material, cluster string) []intent {
	var intents []intent
	for _, m := range materials {
		if m.Wrapped == nil {
			intents = append(intents, intent{Material: m.ID, Spec: m.Spec, Cluster: cluster})
		}
	}
	return intents
}

// dropBelongings drops the aliases, grants and import tokens of a key, and
// returns the wrapping keys of the tokens.
func (s *state) dropBelongings(b *batch, ref keyRef) []keystore.Material {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range below(&s.keyAliases, string(ref)+"/") {
		b.dropAlias(a)
	}
	for _, g := range below(&s.grants, string(ref)+"/") {
		b.dropGrant(g)
	}
	var wrapping []keystore.Material
	for _, t := range s.imports {
		if newKeyRef(t.Account, t.Region, t.KeyID) == ref {
			b.dropImport(t)
			wrapping = append(wrapping, t.Wrapping)
		}
	}
	return wrapping
}

// below returns the items whose references begin with a prefix.
func below[V any](items *btree.Map[string, V], prefix string) []V {
	var list []V
	items.Ascend(prefix, func(ref string, v V) bool {
		if !strings.HasPrefix(ref, prefix) {
			return false
		}
		list = append(list, v)
		return true
	})
	return list
}

// leaveFamily takes a key out of what relates the others. A primary key that
// waited for the last of its replicas begins its own waiting period.
func leaveFamily(b *batch, k *key, related []*key, now time.Time) {
	for _, other := range related {
		rest := other.clone()
		rest.MultiRegion = rest.MultiRegion.without(k.Region)
		if rest.PendingReplicas && len(rest.MultiRegion.Replicas) == 0 {
			rest.scheduleDeletion(rest.DeleteWindow, now)
		}
		b.putKey(rest)
	}
}

// forgetWrapped takes wrapped materials that nobody has any more out of the
// token's memory.
func (e *Engine) forgetWrapped(ctx context.Context, owner string, materials []keystore.Material) error {
	for _, m := range materials {
		if m.Wrapped == nil {
			continue
		}
		if err := e.vault.Destroy(ctx, m); err != nil {
			return fmt.Errorf("forget key material that %s no longer has: %w", owner, err)
		}
	}
	return nil
}
