package softhsm_test

import (
	"context"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// Where SoftHSM2 cannot write to the token's folder, the keys that are there work
// on, and when there is room again, keys are made as before. The limit of a file's
// size fails writes as a full disk does.
func TestTokenFolderFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	var modules keystore.Modules
	u := tokentest.NewToken(t, &modules)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tok := tokentest.Open(t, &modules, tokentest.Options(u))
	both := keystore.KeyUsage{Encrypt: true, Decrypt: true}
	if err := tok.GenerateKey(ctx, "before", both); err != nil {
		t.Fatal(err)
	}
	works := func(id string) {
		t.Helper()
		k, err := tok.Find(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := k.Encrypt(ctx, 1, []byte("precious"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := k.Decrypt(ctx, 1, sealed, nil); err != nil || string(plain) != "precious" {
			t.Fatalf("%q, %v", plain, err)
		}
	}
	works("before")
	limit(syscall.Rlimit{Cur: 64, Max: before.Max})
	defer limit(before)
	_ = tok.GenerateKey(ctx, "during", both) // SoftHSM2 may say that it succeeded, and has stored half of it
	works("before")
	limit(before)
	works("before")
	if err := tok.GenerateKey(ctx, "after", both); err != nil {
		t.Fatal(err)
	}
	works("after")
}
