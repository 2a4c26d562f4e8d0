package keystore

import (
	"context"
	"errors"
	"sync"
)

// wrappable is what a vault has found out about what its token wraps.
type wrappable struct {
	mu    sync.Mutex
	known map[family]bool // guarded by mu
}

// Wraps reports whether the token wraps material of a spec, so that Generate and
// Import keep it outside the token; otherwise they make it resident. The first
// time a kind of material is asked for, the token is made to wrap one.
func (v *Vault) Wraps(ctx context.Context, spec Spec) (bool, error) {
	s, err := spec.shape()
	if err != nil {
		return false, err
	}
	if s.family == familyEdwards {
		return false, nil // as Generate has it
	}
	v.wrappable.mu.Lock()
	wraps, known := v.wrappable.known[s.family]
	v.wrappable.mu.Unlock()
	if known {
		return wraps, nil
	}
	_, err = v.wrapNew(ctx, "trial", spec, s, func(w *worker) (product, error) {
		return w.generateSpec(s, storage{extractable: true})
	}, func() {})
	if err != nil && !errors.Is(err, errNotWrappable) {
		return false, err
	}
	v.wrappable.mu.Lock()
	defer v.wrappable.mu.Unlock()
	if v.wrappable.known == nil {
		v.wrappable.known = map[family]bool{}
	}
	v.wrappable.known[s.family] = err == nil
	return err == nil, nil
}
