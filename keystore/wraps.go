package keystore

import (
	"context"
	"errors"
	"sync"
)

// wrappable is what a vault has found out about what its token wraps.
type wrappable struct {
	mu    sync.Mutex
	known map[family]bool    // guarded by mu
	ways  map[family]KeyWrap // by which the newest material was wrapped; guarded by mu
}

// way returns the key wrap that material of a family was wrapped by last, else the
// one of the standard.
func (n *wrappable) way(f family) KeyWrap {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k, ok := n.ways[f]; ok {
		return k
	}
	return WrapKWP
}

func (n *wrappable) noteWay(f family, k KeyWrap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ways == nil {
		n.ways = map[family]KeyWrap{}
	}
	n.ways[f] = k
}

// Wraps reports whether the token wraps material of a spec and uses it when it is
// unwrapped, so that Generate and Import keep it outside the token; otherwise they
// make it resident. The first time a kind of material is asked for, the token is
// made to do so with one.
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
	_, err = v.wrapNew(ctx, v.trial(spec, s))
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

// trial is the order of material that is wrapped, unwrapped and used once to see
// whether that can be done.
func (v *Vault) trial(spec Spec, s shape) *order {
	return &order{id: "trial", spec: spec, shape: s, trial: true, drop: func() {}, produce: func(w *worker) (product, error) {
		return w.generateSpec(s, storage{extractable: true})
	}}
}
