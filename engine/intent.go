package engine

import (
	"context"
	"errors"
	"fmt"
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
type intent struct {
	Material string        `json:"m"` // id of the resident key material
	Spec     keystore.Spec `json:"s"`
	Cluster  string        `json:"c,omitzero"` // whose token it is in; empty: the main one
}

func (i intent) ref() string { return i.Cluster + "/" + i.Material }

// reconcile finishes what intents tell of: the object of each is destroyed,
// since no key refers to it, or none any more.
func (e *Engine) reconcile(ctx context.Context) error { return e.finishLeft(ctx) }

// leftovers are intents to finish: those that a former process left, and those of
// deleted keys.
type leftovers struct {
	mu   sync.Mutex
	list []intent // guarded by mu
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
	e.unfinished.mu.Lock()
	left := e.unfinished.list
	e.unfinished.list = nil
	e.unfinished.mu.Unlock()
	return e.finishOrLeave(ctx, left)
}

// finishOrLeave finishes intents, which are stored, and leaves those that cannot
// be finished now.
func (e *Engine) finishOrLeave(ctx context.Context, intents []intent) error {
	var errs []error
	for _, i := range intents {
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

// finish destroys the object of an intent and removes the intent.
func (e *Engine) finish(ctx context.Context, v *keystore.Vault, i intent) error {
	ctx, cancel := context.WithTimeout(ctx, finishPatience)
	defer cancel()
	if err := v.Destroy(ctx, keystore.Material{ID: i.Material, Spec: i.Spec}); err != nil {
		return fmt.Errorf("destroy key material %s that was left in the token: %w", i.Material, err)
	}
	e.log.Info("key material that belongs to no key was destroyed in the token", "material", i.Material)
	b := new(batch)
	b.dropIntent(i)
	return e.commit(ctx, b)
}
