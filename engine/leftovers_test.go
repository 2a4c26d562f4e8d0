package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

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

// A key whose time comes while its store is disconnected is deleted; its object
// goes when the token can be reached.
func TestKeysAreDeletedInACluster(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	kept, first, second := clusterKey(t, c, storeID), clusterKey(t, c, storeID), clusterKey(t, c, storeID)
	expire := func(k *types.KeyMetadata) {
		t.Helper()
		must(c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: aws.Int32(7)}))
		f.clock.advance(8 * 24 * time.Hour)
		f.sweep()
		_, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: k.KeyId})
		wantCode(t, err, "NotFoundException")
	}
	expire(first)
	if n := countKeys(t, r.current(), residentPart); n != 2 {
		t.Errorf("%d keys in the cluster", n)
	}
	disconnect(t, c, storeID)
	expire(second)
	connect(t, c, storeID)
	if err := eventuallyFails(t, func() error {
		if countKeys(t, r.current(), residentPart) == 1 {
			return errTidy
		}
		return nil
	}); err != errTidy {
		t.Fatal("the object of a deleted key stays")
	}
	wantPlaintext(t, c, encrypt(t, c, kept.KeyId, "hello", nil), nil, "hello")
}

// What a deleted key had is free again: its external key, and its place in the
// store.
func TestExternalKeyIsFreeAfterDeletion(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external")
	storeID := r.connected(c, "xks")
	for range 2 {
		k := externalKey(t, c, storeID, "external")
		must(c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: aws.Int32(7)}))
		_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, "external"))
		wantCode(t, err, "XksKeyAlreadyInUseException")
		f.clock.advance(8 * 24 * time.Hour) // the worker need not have come by
	}
	f.sweep()
	_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, "external"))
	if err != nil {
		t.Error(err)
	}
	f.sweep()
	disconnect(t, c, storeID)
	_, err = c.DeleteCustomKeyStore(t.Context(), &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: storeID})
	wantCode(t, err, "CustomKeyStoreHasCMKsException")
}
