package engine

import (
	"slices"

	"github.com/hyok-kms/hyok/keystore"
)

// What the test that kills the process must see of an engine.

// MaterialSeen is a material of a key.
type MaterialSeen struct {
	ID    string // KeyMaterialId
	There bool
	Since bool // it is or was current
}

// MaterialsSeen returns the materials of a key, and the id of the current one; ok
// is false if there is no such key at this time.
func (e *Engine) MaterialsSeen(account, region, id string) (list []MaterialSeen, current string, ok bool) {
	k := e.state.key(newKeyRef(account, region, id), e.now())
	if k == nil {
		return nil, "", false
	}
	for i := range k.Materials {
		m := &k.Materials[i]
		list = append(list, MaterialSeen{ID: m.ID, There: m.isThere(e.now()), Since: !m.Since.IsZero()})
	}
	return list, k.Current, true
}

// ResidentsKnown returns the ids of the token objects that keys have, sorted: in
// the main token, and in those of custom key stores.
func (e *Engine) ResidentsKnown() (main, clusters []string) {
	e.eachKey(func(k *key) bool {
		for i := range k.Materials {
			switch v := k.Materials[i].Vault; {
			case v == nil || !v.Resident():
			case k.StoreID == "":
				main = append(main, v.ID)
			default:
				clusters = append(clusters, v.ID)
			}
		}
		return true
	})
	for _, own := range []keystore.Material{e.meta.Secrets, e.meta.Digests} {
		if own.Resident() {
			main = append(main, own.ID)
		}
	}
	e.state.mu.RLock()
	for _, t := range e.state.imports {
		if t.Wrapping.Resident() {
			main = append(main, t.Wrapping.ID)
		}
	}
	e.state.mu.RUnlock()
	e.pairs.mu.Lock()
	defer e.pairs.mu.Unlock()
	for _, list := range e.pairs.stock {
		for _, p := range list {
			if p.Material != nil && p.Material.Resident() {
				main = append(main, p.ID)
			}
		}
	}
	slices.Sort(main)
	slices.Sort(clusters)
	return slices.Compact(main), slices.Compact(clusters)
}

// PairsKept returns the public keys of the pairs that wait for a request.
func (e *Engine) PairsKept() [][]byte {
	e.pairs.mu.Lock()
	defer e.pairs.mu.Unlock()
	var kept [][]byte
	for _, list := range e.pairs.stock {
		for _, p := range list {
			if p.Material != nil {
				kept = append(kept, p.Material.Public)
			} else {
				kept = append(kept, p.Public)
			}
		}
	}
	return kept
}

// PairsHeld returns the public keys of the RSA pairs that are keys, or the wrapping
// keys of import tokens.
func (e *Engine) PairsHeld() [][]byte {
	var held [][]byte
	e.eachKey(func(k *key) bool {
		for i := range k.Materials {
			if v := k.Materials[i].Vault; v != nil && isSlow(v.Spec) {
				held = append(held, v.Public)
			}
		}
		return true
	})
	e.state.mu.RLock()
	defer e.state.mu.RUnlock()
	for _, t := range e.state.imports {
		held = append(held, t.Wrapping.Public)
	}
	return held
}

// PairsWanted returns how many requests wait for pairs.
func (e *Engine) PairsWanted() int {
	e.pairs.mu.Lock()
	defer e.pairs.mu.Unlock()
	return len(e.pairs.waiting)
}

// LeftoversKnown returns how many intents are yet to be finished.
func (e *Engine) LeftoversKnown() int {
	e.unfinished.mu.Lock()
	defer e.unfinished.mu.Unlock()
	return len(e.unfinished.list) + e.unfinished.taken
}
