package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
)

// The object of a key whose creation was cut short is destroyed in the cluster's
// token when its store is connected the next time, and no other is.
func TestLeftoversInACluster(t *testing.T) {
	r := newClusterRig(t)
	cut := new(cutStore)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k := clusterKey(t, c, storeID)
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	f.close()

	f.openOn(cut)
	c = f.client()
	settled(t, c, storeID)
	cut.after.Store(1) // the intent, and no more
	if _, err := c.CreateKey(t.Context(), clusterKeyInput(storeID)); err == nil {
		t.Fatal("a key that was not stored")
	}
	cut.after.Store(0)
	// The process could still tidy up; it is as if it had been killed before.
	if n := countKeys(t, r.current(), residentPart); n > 2 {
		t.Fatalf("%d keys", n)
	}
	f.reopen()
	c = f.client()
	settled(t, c, storeID)
	err := eventuallyFails(t, func() error {
		if countKeys(t, r.current(), residentPart) == 1 {
			return errTidy
		}
		return nil
	})
	if err != errTidy {
		t.Fatal("the object of a key that was never made stays")
	}
	wantPlaintext(t, c, blob, nil, "hello")
}

var errTidy = errors.New("one key is left")

// cutStore fails all changes but the first few, as if the process had ended.
type cutStore struct {
	store.Store
	after atomic.Int32 // 0: none fails
	n     atomic.Int32
}

func (s *cutStore) Apply(ctx context.Context, changes ...store.Change) error {
	if after := s.after.Load(); after > 0 && s.n.Add(1) > after {
		return errors.New("the process was killed")
	}
	return s.Store.Apply(ctx, changes...)
}

func (f *fixture) openOn(s *cutStore) {
	f.t.Helper()
	db, err := store.OpenSQLite(f.t.Context(), f.path, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	s.Store = db
	f.config.Store = s
	if f.Engine, err = engine.Open(f.t.Context(), f.config); err != nil {
		f.t.Fatal(err)
	}
}
