package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/engine/store"
)

// The kinds of record that the engine stores.
const (
	kindKey    = "key"
	kindAlias  = "alias"
	kindGrant  = "grant"
	kindStore  = "keystore"
	kindImport = "import"
	kindPair   = "pair"
	kindUsage  = "usage"
	kindIntent = "intent"
	kindMeta   = "meta"
	kindWrap   = "wrap"
)

// batch gathers changes that become durable, and then visible, together.
type batch struct {
	changes []store.Change
	publish []func(*state)
	err     error // of encoding
}

func (b *batch) put(kind, id string, value any, publish func(*state)) {
	// A nil slice must not come back as an empty one: keystore.Material tells
	// resident from wrapped by that.
	data, err := json.Marshal(value, json.Deterministic(true), json.FormatNilSliceAsNull(true))
	if err != nil {
		b.err = fmt.Errorf("encode the %s %s: %w", kind, id, err)
		return
	}
	b.changes = append(b.changes, store.Change{Record: store.Record{Kind: kind, ID: id, Data: data}})
	b.publish = append(b.publish, publish)
}

func (b *batch) drop(kind, id string, publish func(*state)) {
	b.changes = append(b.changes, store.Change{Record: store.Record{Kind: kind, ID: id}, Delete: true})
	b.publish = append(b.publish, publish)
}

func (b *batch) putKey(k *key) {
	b.put(kindKey, string(k.ref()), k, func(s *state) { s.putKey(k) })
}

func (b *batch) dropKey(k *key) {
	b.drop(kindKey, string(k.ref()), func(s *state) { s.dropKey(k) })
	b.drop(kindUsage, string(k.ref()), func(*state) {})
}

func (b *batch) putAlias(a *alias) {
	b.put(kindAlias, a.ref(), a, func(s *state) { s.putAlias(a) })
}

func (b *batch) dropAlias(a *alias) {
	b.drop(kindAlias, a.ref(), func(s *state) { s.dropAlias(a) })
}

func (b *batch) putGrant(g *grant) {
	b.put(kindGrant, g.ref(), g, func(s *state) { s.putGrant(g) })
}

func (b *batch) dropGrant(g *grant) {
	b.drop(kindGrant, g.ref(), func(s *state) { s.dropGrant(g) })
}

func (b *batch) putStore(cks *customStore) {
	b.put(kindStore, cks.ref(), cks, func(s *state) { s.stores.Set(cks.ref(), cks) })
}

func (b *batch) dropStore(cks *customStore) {
	b.drop(kindStore, cks.ref(), func(s *state) { s.stores.Delete(cks.ref()) })
}

func (b *batch) putImport(t *importToken) {
	b.put(kindImport, t.ID, t, func(s *state) { s.imports[t.ID] = t })
}

func (b *batch) dropImport(t *importToken) {
	b.drop(kindImport, t.ID, func(s *state) { delete(s.imports, t.ID) })
}

func (b *batch) putUsage(u *lastUsage) {
	// It is in memory already, which is where usage happens first.
	b.put(kindUsage, string(u.ref()), u, func(*state) {})
}

func (b *batch) putIntent(i intent) {
	b.put(kindIntent, i.ref(), i, func(*state) {})
}

func (b *batch) dropIntent(i intent) {
	b.drop(kindIntent, i.ref(), func(*state) {})
}

// commit makes a batch durable and then visible. When it fails nothing of the
// batch is visible; see store.Store.Apply for what may be durable then.
func (e *Engine) commit(ctx context.Context, b *batch) error {
	if b.err != nil {
		return b.err
	}
	if len(b.changes) == 0 {
		return nil
	}
	e.sealer.seal(b.changes)
	if err := e.store.Apply(ctx, b.changes...); err != nil {
		if errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err, store.ErrBroken) {
			e.broken.Store(true) // until the store is opened again
		}
		return err
	}
	e.state.mu.Lock()
	defer e.state.mu.Unlock()
	for _, publish := range b.publish {
		publish(e.state)
	}
	return nil
}

// Broken reports whether changes are refused until the store is opened again,
// since the outcome of one is not known. What changes nothing is served from
// memory all the same.
func (e *Engine) Broken() bool { return e.broken.Load() }

// load reads what is stored into the state.
func (e *Engine) load(ctx context.Context) error {
	s := e.state
	s.mu.Lock()
	defer s.mu.Unlock()
	var used []*lastUsage
	l := newLoading(func(r store.Record) (put func(), err error) {
		if r.Data, err = e.sealer.open(&r); err != nil {
			return nil, err
		}
		switch r.Kind {
		case kindKey:
			return restore(r, s.putKey)
		case kindAlias:
			return restore(r, s.putAlias)
		case kindGrant:
			return restore(r, s.putGrant)
		case kindStore:
			return restore(r, func(cks *customStore) { s.stores.Set(cks.ref(), cks.restored()) })
		case kindImport:
			return restore(r, func(t *importToken) { s.imports[t.ID] = t })
		case kindPair:
			return restore(r, e.pairs.restore)
		case kindUsage:
			return restore(r, func(u *lastUsage) { used = append(used, u) })
		case kindIntent:
			return restore(r, func(i *intent) { e.leave(*i) })
		case kindMeta:
			return restore(r, func(m *meta) { e.meta = m })
		case kindWrap:
			return restoreWrap(r, s)
		}
		return nil, fmt.Errorf("the metadata store has a record of the unknown kind %q: was it written by a newer hyok?", r.Kind)
	})
	if err := errors.Join(e.store.Load(ctx, l.add), l.finish()); err != nil {
		return fmt.Errorf("load the metadata: %w", err)
	}
	for _, u := range used {
		if k, ok := s.keys.Get(string(u.ref())); ok {
			k.used.restore(u)
		}
	}
	return nil
}

// restore decodes a record and returns what puts it where it belongs.
func restore[T any](r store.Record, put func(*T)) (func(), error) {
	v := new(T)
	if err := json.Unmarshal(r.Data, v); err != nil {
		return nil, fmt.Errorf("decode the %s %s: %w", r.Kind, r.ID, err)
	}
	return func() { put(v) }, nil
}
