package store_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/engine/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() (store.Store, error) {
		path := filepath.Join(t.TempDir(), "data", "store.db")
		return func() (store.Store, error) {
			return store.OpenSQLite(context.Background(), path, slog.New(slog.DiscardHandler))
		}
	})
}
