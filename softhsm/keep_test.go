package softhsm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

// A token whose file SoftHSM2 left empty is lost to it; the copy brings it back
// with its keys.
func TestKeepTokens(t *testing.T) {
	var modules keystore.Modules
	u := tokentest.NewToken(t, &modules)
	use := func(f func(ctx context.Context, tok *keystore.Token) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		tok, err := keystore.Open(ctx, &modules, tokentest.Options(u))
		if err != nil {
			return err
		}
		return errors.Join(f(ctx, tok), tok.Close(ctx))
	}
	find := func(ctx context.Context, tok *keystore.Token) error {
		_, err := tok.Find(ctx, "key")
		return err
	}
	wantRestored := func(n int) {
		t.Helper()
		if restored, err := softhsm.KeepTokens(); err != nil || len(restored) != n {
			t.Fatalf("restored %v: %v", restored, err)
		}
	}
	if err := use(func(ctx context.Context, tok *keystore.Token) error {
		return tok.GenerateKey(ctx, "key", keystore.KeyUsage{Encrypt: true, Decrypt: true})
	}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfigVariable)), "tokens", "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}

	whole, err := os.ReadFile(files[0])
	if err == nil {
		err = os.Truncate(files[0], 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.KeepTokens(); err == nil {
		t.Error("a token without a copy is not protected, and nothing tells")
	}
	for _, damaged := range [][]byte{nil, whole[:8], whole[:100], make([]byte, len(whole))} {
		if err := os.WriteFile(files[0], whole, 0o600); err != nil {
			t.Fatal(err)
		}
		wantRestored(0)
		wantRestored(0)
		if err := os.WriteFile(files[0], damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(find); err == nil {
			t.Errorf("a token whose file has %d bytes works: nothing need be protected", len(damaged))
		}
		wantRestored(1)
		if err := use(find); err != nil {
			t.Error(err)
		}
	}
}

// A token appears when it is whole; one whose making fails, or is stopped, does not.
func TestStage(t *testing.T) {
	dir := t.TempDir()
	if _, err := softhsm.Configure(dir); err != nil {
		t.Fatal(err)
	}
	before := os.Getenv(softhsm.ConfigVariable)
	tokens := func() int {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "tokens", "*", "token.object"))
		if err != nil || os.Getenv(softhsm.ConfigVariable) != before {
			t.Fatal(err, os.Getenv(softhsm.ConfigVariable))
		}
		return len(files)
	}
	var modules keystore.Modules
	make := func() error {
		_, err := modules.InitToken(tokentest.Module(t), "", "staged", "test-so-pin-4711", tokentest.PIN)
		return err
	}
	stopped := errors.New("stopped")
	if err := softhsm.Stage(dir, func() error { return errors.Join(make(), stopped) }); !errors.Is(err, stopped) || tokens() != 0 {
		t.Errorf("%v, %d tokens", err, tokens())
	}
	if err := softhsm.Stage(dir, make); err != nil || tokens() != 1 {
		t.Errorf("%v, %d tokens", err, tokens())
	}
	if _, err := os.Stat(filepath.Join(dir, "tokens.new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the staging folder stays: %v", err)
	}
	t.Setenv(softhsm.ConfigVariable, filepath.Join(dir, "softhsm2.conf"))
	u, err := keystore.ParseURI("pkcs11:token=staged?module-path=" + tokentest.Module(t))
	if err != nil {
		t.Fatal(err)
	}
	tokentest.Open(t, &modules, tokentest.Options(u))
}
