package engine

import (
	"context"
	"slices"
)

// take locks a key with all that are related to it and returns copies of them to
// change, the key that a KeyId parameter names first. check refuses kinds of key
// that the operation is not for, in any state. Related keys whose time has come
// are gone for good by then. The keys may be changed until release is called.
func (c *Client) take(ctx context.Context, op string, keyID *string, check func(*key) error) (family []*key, release func(), err error) {
	named, err := c.findKey(op, keyID)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := c.engine.locks.lock(ctx, named.family())
	if err != nil {
		return nil, nil, err
	}
	if family, err = c.taken(ctx, op, keyID, check); err != nil {
		unlock()
		return nil, nil, err
	}
	return family, unlock, nil
}

func (c *Client) taken(ctx context.Context, op string, keyID *string, check func(*key) error) ([]*key, error) {
	present, err := c.findKey(op, keyID)
	if err != nil {
		return nil, err
	}
	if err := c.engine.destroyGone(ctx, c.engine.state.related(present)); err != nil {
		return nil, err
	}
	if present, err = c.findKey(op, keyID); err != nil { // as it is now
		return nil, err
	}
	if err := check(present); err != nil {
		return nil, err
	}
	if err := c.permitted(op, present); err != nil {
		return nil, err
	}
	return c.engine.state.copies(present), nil
}

// anyKind is the check of operations that are for keys of all kinds.
func anyKind(*key) error { return nil }

// related returns the other keys of a multi-Region key, also those whose time
// has come.
func (s *state) related(k *key) []*key {
	if k.MultiRegion == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var others []*key
	for _, region := range k.MultiRegion.regions() {
		if other, ok := s.keys.Get(string(newKeyRef(k.Account, region, k.ID))); ok && region != k.Region {
			others = append(others, other)
		}
	}
	return others
}

// copies returns copies of a key and of all that are related to it, itself
// first.
func (s *state) copies(k *key) []*key {
	family := []*key{k.clone()}
	for _, other := range s.related(k) {
		family = append(family, other.clone())
	}
	return family
}

// regions returns the Regions of all related keys, that of the primary first.
func (m *multiRegion) regions() []string {
	return append([]string{m.Primary}, m.Replicas...)
}

// without returns what relates the keys that remain when the one in a Region is
// gone.
func (m *multiRegion) without(region string) *multiRegion {
	rest := *m
	rest.Replicas = slices.DeleteFunc(slices.Clone(m.Replicas), func(r string) bool { return r == region })
	return &rest
}

// with returns what relates the keys when there is a replica in one more Region.
func (m *multiRegion) with(region string) *multiRegion {
	more := *m
	more.Replicas = append(slices.Clone(m.Replicas), region)
	slices.Sort(more.Replicas)
	return &more
}

// relate gives each key its own copy of what relates them all.
func relate(family []*key, m *multiRegion) {
	for _, k := range family {
		own := *m
		own.Replicas = slices.Clone(m.Replicas)
		k.MultiRegion = &own
	}
}

// commitKeys makes changed keys durable and visible together.
func (e *Engine) commitKeys(ctx context.Context, keys ...*key) error {
	b := new(batch)
	for _, k := range keys {
		b.putKey(k)
	}
	return e.commit(ctx, b)
}

// requirePrimary refuses what is controlled at the primary key to a replica. A
// single-Region key is its own master.
func requirePrimary(k *key) error {
	if k.MultiRegion == nil || k.isPrimary() {
		return nil
	}
	return notPrimary(k)
}

func notPrimary(k *key) error { return unsupported("%s is not a multi-region primary key.", k.arn()) }
