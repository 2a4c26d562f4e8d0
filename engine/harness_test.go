package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func TestMain(m *testing.M) {
	if plan, ok := os.LookupEnv(crashVariable); ok {
		fmt.Fprintln(os.Stderr, runCrashChild(plan))
		os.Exit(1)
	}
	os.Exit(tokentest.Main(m))
}

const (
	account = "111122223333"
	region  = "eu-central-1"
)

// modules is one for the process, as in the product.
var modules keystore.Modules

// clock is a clock that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fixture is an engine on a real token and a real database.
type fixture struct {
	*engine.Engine
	t      testing.TB
	config engine.Config
	path   string // of the database
	clock  *clock
}

// newEngine opens an engine with a token and a database of its own. Its worker
// is off: the test calls Sweep.
func newEngine(t testing.TB, change ...func(*engine.Config)) *fixture {
	t.Helper()
	u := tokentest.NewToken(t, &modules)
	tok := tokentest.Open(t, &modules, tokentest.Options(u))
	vault, err := tok.OpenVault(t.Context(), keystore.VaultOptions{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{
		t: t, path: filepath.Join(t.TempDir(), "kms.db"),
		clock: &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
	}
	f.config = engine.Config{Token: tok, Vault: vault, Now: f.clock.now, SweepInterval: -1}
	for _, c := range change {
		c(&f.config)
	}
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	s, err := store.OpenSQLite(f.t.Context(), f.path, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	f.config.Store = s
	if f.Engine, err = engine.Open(f.t.Context(), f.config); err != nil {
		f.t.Fatal(errors.Join(err, s.Close()))
	}
}

func (f *fixture) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := errors.Join(f.Close(ctx), f.config.Store.Close()); err != nil {
		f.t.Error(err)
	}
}

// reopen is what a restart of the process does.
func (f *fixture) reopen() {
	f.t.Helper()
	f.close()
	f.open()
}

// sweep does what is due.
func (f *fixture) sweep() {
	f.t.Helper()
	if err := f.Sweep(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// client returns the KMS as a user of the account sees it in the Region.
func (f *fixture) client() *engine.Client { return f.in(region) }

func (f *fixture) in(region string) *engine.Client { return f.as(account, region) }

func (f *fixture) as(account, region string) *engine.Client {
	return f.Client(region, engine.Caller{Account: account, ARN: "arn:aws:iam::" + account + ":user/alice", UserID: "AIDAEXAMPLE"})
}

// wantCode fails unless err is an error of the API with this code.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Fatalf("error %v, want %s", err, code)
	}
}

// must returns v, and fails if there is an error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
