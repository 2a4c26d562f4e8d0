package softhsm_test

import (
	"context"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/fulldisk"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// Where SoftHSM2 cannot write to the token's folder, the keys that are there work
// on, and when there is room again, keys are made as before. The limit of a file's
// size fails writes as a full disk does.
func TestTokenFolderFull(t *testing.T) {
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
	lift := fulldisk.Limit(t, 64)
	_ = tok.GenerateKey(ctx, "during", both) // SoftHSM2 may say that it succeeded, and has stored half of it
	works("before")
	lift()
	works("before")
	if err := tok.GenerateKey(ctx, "after", both); err != nil {
		t.Fatal(err)
	}
	works("after")
}
