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
		if e.HoldsBack() {
			return internal("The waiting period of %s is over by the clock, which has not gone steadily for an hour yet. Try again later.", k.arn())
		}
		if err := e.destroyKey(ctx, k); err != nil {
			return fmt.Errorf("delete %s: %w", k.arn(), err)
		}
	}
	return nil
}

// destroyKey deletes a key, all that refers to it, and its material. Its family
// is locked.
func (e *Engine) destroyKey(ctx context.Context, k *key) error {
	b := new(batch)
	related := e.state.related(k)
	gone := append(k.lastMaterials(related), e.state.dropBelongings(b, k.ref())...)
	after := e.destroyAfter(k, b, gone, k.DeleteAt)
	b.dropKey(k)
	leaveFamily(b, k, related, e.now())
	if err := e.commit(ctx, b); err != nil {
		return err
	}
	e.log.InfoContext(ctx, "a key was deleted at the end of its waiting period", "key", k.arn())
	if err := after(ctx); err != nil {
		// The key is deleted; the rest is the worker's to try again.
		e.log.ErrorContext(ctx, "key material of a deleted key could not be destroyed yet", "key", k.arn(), "error", err)
	}
	return nil
}

// destroyAfter adds to the batch what must be known of material that a key gives
// up, and returns what destroys it once the batch is durable; what a token does
// not destroy then is tried again by the worker. So an object of a
// token whose key is no more cannot stay, whenever the process ends.
//
// due is the date that ends the material, zero if a caller does. A date that
// passed before this process began may be one that was changed since, in a newer
// copy of the store: such objects are kept for a while.
func (e *Engine) destroyAfter(k *key, b *batch, gone []keystore.Material, due time.Time) func(context.Context) error {
	var intents []intent
	for _, m := range gone {
		if m.Resident() {
			i := intent{Material: m.ID, Spec: m.Spec, Cluster: e.clusterOf(k), GivenUp: true}
			if !due.IsZero() && due.Before(e.started) {
				i.After = e.keptUntil()
			}
			intents = append(intents, i)
			b.putIntent(i)
		}
	}
	return func(ctx context.Context) error {
		return errors.Join(e.forgetWrapped(ctx, k, gone), e.finishOrLeave(ctx, intents))
	}
}

// clusterOf returns the cluster in whose token the material of a key is, empty if
// it is in the main one.
func (e *Engine) clusterOf(k *key) string {
	if k.StoreID == "" || k.XksKeyID != "" {
		return ""
	}
	if cks := e.state.customStore(k.Account, k.Region, k.StoreID); cks != nil {
		return cks.ClusterID
	}
	return ""
}

// forgetWrapped takes wrapped materials out of the token's memory.
func (e *Engine) forgetWrapped(ctx context.Context, k *key, materials []keystore.Material) error {
	for _, m := range materials {
		if m.Resident() {
			continue
		}
		if err := e.vault.Destroy(ctx, m); err != nil {
			return fmt.Errorf("forget key material of %s: %w", k.arn(), err)
		}
	}
	return nil
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
		if t.target() == ref {
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
		if rest.PendingReplicas {
			rest.scheduleDeletion(rest.DeleteWindow, now)
		}
		b.putKey(rest)
	}
}
