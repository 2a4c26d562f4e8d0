// Package tokentest gives tests real SoftHSM2 tokens in a temporary folder.
package tokentest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// PIN is the user PIN of every test token.
const PIN = "test-user-pin-4711"

// Main runs a package's tests with SoftHSM2 pointed at a temporary folder; a
// package's TestMain calls it. A child process that a test starts inherits the
// folder.
func Main(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == keystore.ModuleCommand {
		fmt.Fprintln(os.Stderr, keystore.ServeModule())
		return 1
	}
	if os.Getenv(softhsm.ConfigVariable) == "" || os.Getenv(childVariable) == "" {
		dir, err := os.MkdirTemp("", "hyok-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		conf, err := softhsm.Configure(dir)
		if err != nil {
			panic(err)
		}
		if err := os.Setenv(softhsm.ConfigVariable, conf); err != nil {
			panic(err)
		}
	}
	return m.Run()
}

// childVariable is set in processes that a test starts from its own binary.
const childVariable = "HYOK_TEST_CHILD"

// ChildEnv returns the environment for a child process of a test that is to
// share the token folder.
func ChildEnv(extra ...string) []string {
	return append(append(os.Environ(), childVariable+"=1"), extra...)
}

// Number returns the number in an environment variable, by which a test can be made
// longer or repeated.
func Number(tb testing.TB, name string, otherwise int) int {
	tb.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return n
}

// Module returns the path of SoftHSM2's module.
func Module(tb testing.TB) string {
	tb.Helper()
	path, err := softhsm.Module()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// NewToken initializes a token under a random label and returns its URI.
func NewToken(tb testing.TB, ms *keystore.Modules) keystore.URI {
	tb.Helper()
	label := "test-" + rand.Text()[:12]
	module := Module(tb)
	if _, err := ms.InitToken(module, "", label, "test-so-pin-4711", PIN); err != nil {
		tb.Fatal(err)
	}
	u, err := keystore.ParseURI(fmt.Sprintf("pkcs11:token=%s?module-path=%s", label, module))
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// Options returns options that open the token of u.
func Options(u keystore.URI) keystore.Options {
	return keystore.Options{
		Name: "test", URI: u, Profile: keystore.Profiles()[0],
		PIN:    func() (string, error) { return PIN, nil },
		Logger: slog.New(slog.DiscardHandler),
		// How fast the machine is must not decide whether a token counts as well.
		SlowProbe: time.Minute,
	}
}

// Open opens a token and closes it when the test ends.
func Open(tb testing.TB, ms *keystore.Modules, o keystore.Options) *keystore.Token {
	tb.Helper()
	tok, err := keystore.Open(context.Background(), ms, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := tok.Close(ctx); err != nil {
			tb.Errorf("close the token: %v", err)
		}
	})
	return tok
}
