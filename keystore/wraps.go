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
	if wraps, known := v.wrappable.of(s.family); known {
		return wraps, nil
	}
	_, err = v.generateWrapped(ctx, v.trial(spec, s))
	if err != nil && !errors.Is(err, errNotWrappable) {
		return false, err
	}
	v.wrappable.note(s.family, err == nil)
	return err == nil, nil
}

// trial is the order of material that is wrapped, unwrapped and used once to see
// whether that can be done.
func (v *Vault) trial(spec Spec, s shape) *order {
	return &order{id: "trial", spec: spec, shape: s, trial: true, drop: func() {}, produce: func(w *worker) (product, error) {
		return w.generateSpec(s, storage{extractable: true})
	}}
}

// of returns whether keys of a family are wrapped, if that is known.
func (n *wrappable) of(f family) (wraps, known bool) {
	if f == familyEdwards {
		return false, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	wraps, known = n.known[f]
	return wraps, known
}

func (n *wrappable) note(f family, wraps bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[family]bool{}
	}
	n.known[f] = wraps
}
