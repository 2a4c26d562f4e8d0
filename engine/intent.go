package engine

import (
	"context"
	"fmt"

	"github.com/hyok-kms/hyok/keystore"
)

// intent is stored before a token object is made or destroyed, and removed with
// the change that it belongs to. What a killed process leaves of one says which
// objects of the token belong to no key, so that none need be guessed at: after
// an older copy of the store was restored, the token has objects that it does
// not know, and those must not be touched.
type intent struct {
	Material string `json:"m"`          // id of the resident key material
	Cluster  string `json:"c,omitzero"` // whose token it is in; empty: the main one
}

func (i intent) ref() string { return i.Cluster + "/" + i.Material }

// reconcile finishes what intents tell of: the object of each is destroyed,
// since no key refers to it, or none any more.
func (e *Engine) reconcile(ctx context.Context) error {
	for _, i := range e.unfinished {
		if i.Cluster != "" {
			continue // done when its key store is connected again
		}
		if err := e.finish(ctx, e.vault, i); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) finish(ctx context.Context, v *keystore.Vault, i intent) error {
	if err := v.Destroy(ctx, keystore.Material{ID: i.Material}); err != nil {
		return fmt.Errorf("destroy key material %s that was left in the token: %w", i.Material, err)
	}
	e.log.Info("key material that belongs to no key was destroyed in the token", "material", i.Material)
	b := new(batch)
	b.dropIntent(i)
	return e.commit(ctx, b)
}
