package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// intent is stored before a token object is made or destroyed, and removed with
// the change that it belongs to. What a killed process leaves of one says which
// objects of the token belong to no key, so that none need be guessed at: after
// an older copy of the store was restored, the token has objects that it does
// not know, and those must not be touched.
//
// An intent may be old as well. In a copy of the store that was taken while a key
// was being made, nothing tells whether the key was finished afterwards, and is in
// the store that will take the place of the copy. So an object that was being made
// is kept for a while (Config.KeepLeftovers), and nothing is destroyed that a
// record names.
type intent struct {
	Material string        `json:"m"` // id of the resident key material
	Spec     keystore.Spec `json:"s"`
	Cluster  string        `json:"c,omitzero"` // whose token it is in; empty: the main one
	GivenUp  bool          `json:"g,omitzero"` // a key had it, and has it no more; false: it was being made
	After    time.Time     `json:"a,omitzero"` // when it may be destroyed; zero: at any time
}

func (i intent) ref() string { return i.Cluster + "/" + i.Material }

// keepLeftovers is AWS KMS's shortest waiting period, in which a mistake is noticed.
const keepLeftovers = 7 * 24 * time.Hour

// reconcile begins with what intents tell of: the object of each is destroyed,
// since no key refers to it, or none any more; one that was being made when the
// process ended is kept for a while.
func (e *Engine) reconcile(ctx context.Context) error {
	left, finished := e.takeLeft()
	defer finished()
	for n := range left {
		i := &left[n]
		if i.GivenUp || !i.After.IsZero() || e.inUse(i.Material) {
			continue
		}
		if i.After = e.keptUntil(); i.After.IsZero() {
			continue
		}
		if err := e.intend(ctx, *i); err != nil {
			return fmt.Errorf("keep key material %s that was being made: %w", i.Material, err)
		}
		e.log.WarnContext(ctx, "key material was being made when this database was left; it belongs to no key and is destroyed later, unless a newer copy of the database is put in place",
			"material", i.Material, "after", i.After)
	}
	return e.finishOrLeave(ctx, left)
}

// keptUntil is until when objects are kept of which an older copy of the store
// cannot say whether they are in use; zero: they are not kept.
func (e *Engine) keptUntil() time.Time {
	if e.keepLeftovers < 0 {
		return time.Time{}
	}
	return e.now().Add(e.keepLeftovers)
}

// names reports whether a key or an import token has some key material.
func (s *state) names(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.imports {
		if t.Wrapping.ID == id {
			return true
		}
	}
	found := false
	s.keys.Scan(func(_ string, k *key) bool {
		found = slices.ContainsFunc(k.Materials, func(m material) bool { return m.Vault != nil && m.Vault.ID == id })
		return !found
	})
	return found
}

// inUse reports whether any record has some key material, so that an intent to
// destroy it is not of this store.
func (e *Engine) inUse(id string) bool {
	own := e.meta != nil && (e.meta.Secrets.ID == id || e.meta.Digests.ID == id)
	return own || e.state.names(id) || e.pairs.names(id)
}

// leftovers are intents to finish: those that a former process left, and those of
// deleted keys.
type leftovers struct {
	mu    sync.Mutex
	list  []intent // guarded by mu
	taken int      // from list, and being finished; guarded by mu
}

// leave notes intents, which are stored, for finishLeft.
func (e *Engine) leave(intents ...intent) {
	e.unfinished.mu.Lock()
	defer e.unfinished.mu.Unlock()
	e.unfinished.list = append(e.unfinished.list, intents...)
}

// finishLeft finishes what is left, as far as the tokens can be reached. What
// cannot be finished now stays left.
func (e *Engine) finishLeft(ctx context.Context) error {
	left, finished := e.takeLeft()
	defer finished()
	return e.finishOrLeave(ctx, left)
}

// takeLeft returns what is left, and leaves nothing. Its caller says when what it
// took is finished, or left again.
func (e *Engine) takeLeft() (left []intent, finished func()) {
	u := &e.unfinished
	u.mu.Lock()
	defer u.mu.Unlock()
	left, u.list = u.list, nil
	u.taken += len(left)
	return left, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.taken -= len(left)
	}
}

// finishOrLeave finishes intents, which are stored, and leaves those that cannot
// be finished now.
func (e *Engine) finishOrLeave(ctx context.Context, intents []intent) error {
	var errs []error
	for _, i := range intents {
		if e.isKept(i) {
			e.leave(i)
			continue
		}
		v := e.vaultHolding(i)
		if v == nil {
			e.leave(i) // until its key store is connected
			continue
		}
		if err := e.finish(ctx, v, i); err != nil {
			e.leave(i)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isKept reports whether it is too early to destroy the object of an intent.
func (e *Engine) isKept(i intent) bool {
	return !i.After.IsZero() && (e.HoldsBack() || e.now().Before(i.After)) && !e.inUse(i.Material)
}

// vaultHolding returns the vault in whose token the object of an intent is, nil if
// no custom key store on that token is connected.
func (e *Engine) vaultHolding(i intent) *keystore.Vault {
	if i.Cluster == "" {
		return e.vault
	}
	for _, k := range e.state.storesOn(i.Cluster) {
		if v, err := e.vaultOf(k); err == nil {
			return v
		}
	}
	return nil
}

// storesOn returns a key, in name only, for each connected custom key store on a
// token.
func (s *state) storesOn(cluster string) []*key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*key
	s.stores.Scan(func(_ string, cks *customStore) bool {
		if cks.ClusterID == cluster && cks.State == types.ConnectionStateTypeConnected {
			list = append(list, &key{Account: cks.Account, Region: cks.Region, StoreID: cks.ID})
		}
		return true
	})
	return list
}

// finishPatience is how long a token may take to destroy an object: one that
// hangs must not keep the worker from everything else.
const finishPatience = 10 * time.Second

// finish destroys the object of an intent and removes the intent. The object of one
// that a record names stays, whoever put the intent there.
func (e *Engine) finish(ctx context.Context, v *keystore.Vault, i intent) error {
	b := new(batch)
	b.dropIntent(i)
	if e.inUse(i.Material) {
		e.log.ErrorContext(ctx, "the database says that key material is to be destroyed, and that it is in use: it stays. Was an older record put back, or a copy of the database changed?",
			"material", i.Material)
		return e.commit(ctx, b)
	}
	ctx, cancel := context.WithTimeout(ctx, finishPatience)
	defer cancel()
	if err := v.Destroy(ctx, keystore.Material{ID: i.Material, Spec: i.Spec}); err != nil {
		return fmt.Errorf("destroy key material %s that was left in the token: %w", i.Material, err)
	}
	e.log.Info("key material that belongs to no key was destroyed in the token", "material", i.Material)
	return e.commit(ctx, b)
}
