package engine_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// Who can write to the database, but not use the token, cannot have a key used as
// another's, nor change anything else unseen.
func TestForgedRecordsAreRefused(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	victim := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	mine := must(f.as("999988887777", region).CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	must(c.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: victim.KeyId}))
	must(c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/a"), TargetKeyId: victim.KeyId}))
	f.close()
	defer f.open() // for the close at the end

	records := f.edit(nil)
	find := func(kind, part string) store.Record {
		for _, r := range records {
			if r.Kind == kind && strings.Contains(r.ID, part) {
				return r
			}
		}
		t.Fatalf("no %s %s", kind, part)
		return store.Record{}
	}
	key, alias := find("key", *victim.KeyId), find("alias", "alias/a")
	enabled := key
	if enabled.Data = bytes.Replace(bytes.Clone(key.Data), []byte(`"off":true,`), nil, 1); bytes.Equal(enabled.Data, key.Data) {
		t.Fatalf("a disabled key looks otherwise: %q", key.Data)
	}
	stolen := key
	stolen.ID = strings.Replace(key.ID, account, "999988887777", 1)
	stolen.Data = bytes.Replace(bytes.Clone(key.Data), []byte(account), []byte("999988887777"), 1)
	swapped := key
	swapped.Data = find("key", *mine.KeyId).Data
	moved := alias
	moved.ID = strings.Replace(alias.ID, "alias/a", "alias/b", 1)
	bare := key
	bare.Data = key.Data[:len(key.Data)-32]
	empty := key
	empty.Data = nil
	meta := find("meta", "")
	meta.Data = bytes.Replace(bytes.Clone(meta.Data), []byte(`"d":`), []byte(`"D":`), 1)

	for name, forged := range map[string]store.Record{
		"enabled": enabled, "stolen": stolen, "swapped": swapped, "moved": moved, "bare": bare, "empty": empty, "meta": meta,
	} {
		t.Run(name, func(t *testing.T) {
			f.edit(&forged)
			wantUnopened(t, f.config, f.path, "seal is broken")
			for _, r := range records { // as it was
				if r.Kind == forged.Kind && r.ID == forged.ID {
					f.edit(&r)
					return
				}
			}
			f.drop(forged)
		})
	}
	f.open()
	if out := must(f.client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: victim.KeyId})); out.KeyMetadata.Enabled {
		t.Error("the key was enabled")
	}
	f.close()
}

// A database is of no use to another token, which is told before anything is made
// there.
func TestDatabaseOfAnotherToken(t *testing.T) {
	f := newEngine(t)
	must(f.client().CreateKey(t.Context(), &kms.CreateKeyInput{}))
	f.close()
	defer f.open()
	other := f.config
	vault := must(other.Token.OpenVault(t.Context(), keystore.VaultOptions{Name: "other"}))
	other.Vault = vault
	for range 2 {
		wantUnopened(t, other, f.path, "the token that the database belongs to")
	}
	must(vault.SealSecret(t.Context(), "another's", true))
	wantUnopened(t, other, f.path, "seal is broken")
}

func wantUnopened(t *testing.T, config engine.Config, path, text string) {
	t.Helper()
	s := must(store.OpenSQLite(t.Context(), path, slog.New(slog.DiscardHandler)))
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	config.Store = s
	if _, err := engine.Open(t.Context(), config); err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("opened with %v, want an error with %q", err, text)
	}
}

// edit writes a record to the closed database, unless it is nil, and returns all
// that were there.
func (f *fixture) edit(r *store.Record) []store.Record {
	f.t.Helper()
	if r == nil {
		return f.change()
	}
	return f.change(store.Change{Record: *r})
}

func (f *fixture) drop(r store.Record) {
	f.t.Helper()
	f.change(store.Change{Record: r, Delete: true})
}

func (f *fixture) change(changes ...store.Change) (before []store.Record) {
	f.t.Helper()
	s := must(store.OpenSQLite(f.t.Context(), f.path, slog.New(slog.DiscardHandler)))
	err := s.Load(f.t.Context(), func(r store.Record) error {
		before = append(before, r)
		return nil
	})
	if err == nil && len(changes) > 0 {
		err = s.Apply(f.t.Context(), changes...)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.t.Fatal(err)
	}
	return before
}

// New secrets are not made for a database that has records but lost the one that
// names its secrets. One whose first start was cut short is new still.
func TestDatabaseWithoutItsOwnRecord(t *testing.T) {
	f := newEngine(t)
	must(f.client().CreateKey(t.Context(), &kms.CreateKeyInput{}))
	f.close()
	var meta store.Record
	records := f.edit(nil)
	for _, r := range records {
		if r.Kind == "meta" {
			meta = r
		}
	}
	f.drop(meta)
	wantUnopened(t, f.config, f.path, "restore the database from a backup")
	if left := f.edit(nil); len(left) != len(records)-1 {
		t.Errorf("%d records of %d after a refused start", len(left), len(records)-1)
	}
	f.edit(&meta)
	f.open()
}

func TestFirstStartCutShort(t *testing.T) {
	cut := new(cutStore)
	f := newEngine(t)
	f.close()
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	cut.after.Store(1) // the first intent, and no more
	db := must(store.OpenSQLite(t.Context(), f.path, slog.New(slog.DiscardHandler)))
	cut.Store = db
	config := f.config
	config.Store = cut
	if _, err := engine.Open(t.Context(), config); err == nil {
		t.Fatal("opened without a record of itself")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	must(f.client().CreateKey(t.Context(), &kms.CreateKeyInput{}))
}
