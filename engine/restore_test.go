package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
)

// backingUp is a store of which a backup is taken after every change.
type backingUp struct {
	*store.SQLite
	t      *testing.T
	folder string
	n      atomic.Int32
}

func (s *backingUp) Apply(ctx context.Context, changes ...store.Change) error {
	err := s.SQLite.Apply(ctx, changes...)
	if path := s.backup(int(s.n.Add(1)) - 1); err == nil {
		if err := s.Backup(context.Background(), path); err != nil {
			s.t.Error(err)
		}
	}
	return err
}

func (s *backingUp) backup(n int) string { return filepath.Join(s.folder, fmt.Sprint(n)) }

// ed25519Key makes a key whose material is a token object.
func ed25519Key(t testing.TB, c *engine.Client) *types.KeyMetadata {
	t.Helper()
	return must(c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify})).KeyMetadata
}

func signEd25519(t testing.TB, c *engine.Client, id *string) error {
	t.Helper()
	_, err := c.Sign(t.Context(), &kms.SignInput{KeyId: id, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEd25519Sha512})
	return err
}

// A backup that was taken at whatever moment, started from, and replaced by a newer
// one again, has destroyed nothing that the newer one has: neither what was being
// made at that moment, nor what was to be deleted then.
func TestRestoredBackupDestroysNothing(t *testing.T) {
	f := newEngine(t)
	f.close()
	db := must(store.OpenSQLite(t.Context(), f.path, slog.New(slog.DiscardHandler)))
	backups := &backingUp{SQLite: db, t: t, folder: t.TempDir()}
	f.config.Store = backups
	f.Engine = must(engine.Open(t.Context(), f.config))

	c := f.client()
	kept := []*string{ed25519Key(t, c).KeyId}
	spared := ed25519Key(t, c).KeyId
	must(c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: spared, PendingWindowInDays: aws.Int32(7)}))
	gone := ed25519Key(t, c).KeyId
	must(c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: gone, PendingWindowInDays: aws.Int32(7)}))
	f.clock.advance(6 * 24 * time.Hour)
	must(c.CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: spared}))
	must(c.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: spared}))
	f.clock.advance(2 * 24 * time.Hour)
	f.sweep()
	kept = append(kept, spared, ed25519Key(t, c).KeyId)
	f.close()
	newest := must(os.ReadFile(f.path))

	for n := range int(backups.n.Load()) {
		older := must(os.ReadFile(backups.backup(n)))
		f.put(older)
		f.open()
		f.sweep()
		f.close()
		f.put(newest)
		f.open()
		for _, id := range kept {
			if err := signEd25519(t, f.client(), id); err != nil {
				t.Fatalf("after backup %d was started from: %v", n, err)
			}
		}
		f.close()
	}
	f.put(newest)
	f.open()
}

// put has the closed database consist of one file.
func (f *fixture) put(database []byte) {
	f.t.Helper()
	if err := os.Remove(f.path + "-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path, database, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// An intent that a former version of the database had, put back into the present
// one, destroys nothing that is in use, and is dropped with an error in the log.
func TestOldIntentPutBack(t *testing.T) {
	r := newClusterRig(t)
	var log bytes.Buffer
	f := newEngine(t, r.use, func(c *engine.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	f.close()
	db := must(store.OpenSQLite(t.Context(), f.path, slog.New(slog.DiscardHandler)))
	intents := &intentKeeper{SQLite: db}
	f.config.Store = intents
	f.Engine = must(engine.Open(t.Context(), f.config))
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	inCluster, here := clusterKey(t, c, storeID), ed25519Key(t, c)
	blob := encrypt(t, c, inCluster.KeyId, "hello", nil)
	f.close()
	if len(intents.seen) != 2 {
		t.Fatalf("%d intents", len(intents.seen))
	}

	for _, old := range intents.seen {
		f.change(store.Change{Record: old})
	}
	f.open()
	c = f.client()
	settled(t, c, storeID)
	f.sweep()
	if err := signEd25519(t, c, here.KeyId); err != nil {
		t.Errorf("the key in the main token: %v", err)
	}
	wantPlaintext(t, c, blob, nil, "hello")
	f.close()
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 || !strings.Contains(log.String(), "it stays") {
		t.Errorf("%d errors in the log: %s", n, &log)
	}
	for _, record := range f.edit(nil) {
		if record.Kind == "intent" {
			t.Errorf("the intent %s is there still", record.ID)
		}
	}
	f.open()
}

// intentKeeper is a store that remembers the intents that are stored.
type intentKeeper struct {
	*store.SQLite
	seen []store.Record
}

func (s *intentKeeper) Apply(ctx context.Context, changes ...store.Change) error {
	for _, c := range changes {
		if c.Kind == "intent" && !c.Delete {
			c.Record.Data = bytes.Clone(c.Data)
			s.seen = append(s.seen, c.Record)
		}
	}
	return s.SQLite.Apply(ctx, changes...)
}
