package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func TestGeneratedKeyIsProtected(t *testing.T) {
	tok, _ := newToken(t)
	generate(t, tok, "k", both)
	info, err := tok.Describe(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	v := info.Newest()
	if !v.Sensitive || v.Extractable || !v.AlwaysSensitive || !v.NeverExtractable || !v.Local || !v.Modifiable || !v.Marked || v.Number != 1 {
		t.Errorf("%+v", v)
	}
}

func TestCreateRefuses(t *testing.T) {
	tok, _ := newToken(t)
	generate(t, tok, "k", both)
	if err := tok.GenerateKey(patient(t), "k", both); !errors.Is(err, keystore.ErrKeyExists) {
		t.Errorf("twice: %v", err)
	}
	if err := tok.ImportKey(patient(t), "i", both, make([]byte, 31)); err == nil {
		t.Error("31 bytes were imported")
	}
	for _, id := range []string{"", "a b", "ä", "hyok.probe", "a/b", strings.Repeat("a", 129)} {
		if err := tok.GenerateKey(patient(t), id, both); err == nil {
			t.Errorf("%q was created", id)
		}
	}
	keys, err := tok.Keys(patient(t))
	if err != nil || len(keys) != 1 || keys[0].ID != "k" {
		t.Errorf("keys: %v %v", keys, err)
	}
}

func TestRotate(t *testing.T) {
	tok, _ := newToken(t)
	old := generate(t, tok, "k", both)
	s := seal(t, old, "before", "")
	if n, err := tok.RotateKey(patient(t), "k"); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	k := find(t, tok, "k")
	if k.Newest() != 2 {
		t.Errorf("newest is %d", k.Newest())
	}
	if got, err := k.Decrypt(patient(t), 1, s, nil); err != nil || string(got) != "before" {
		t.Errorf("version 1: %q %v", got, err)
	}
	if _, err := k.Decrypt(patient(t), 2, s, nil); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Errorf("version 2 opens what 1 sealed: %v", err)
	}
	// A key value from before the rotation finds the version made since.
	if _, err := old.Encrypt(patient(t), 2, []byte("p"), nil); err != nil {
		t.Errorf("version 2 by the old value: %v", err)
	}
	if _, err := k.Decrypt(patient(t), 3, s, nil); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("version 3: %v", err)
	}
	if err := tok.DestroyKey(patient(t), "k", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Decrypt(patient(t), 1, s, nil); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("destroyed version: %v", err)
	}
	if _, err := tok.RotateKey(patient(t), "nobody"); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("rotate an unknown key: %v", err)
	}
}

// Concurrent rotations must never leave two objects of one number.
func TestConcurrentRotations(t *testing.T) {
	tok, _ := newToken(t)
	generate(t, tok, "k", both)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				_, _ = tok.RotateKey(patient(t), "k") // losing the race is fine
			}
		})
	}
	wg.Wait()
	info, err := tok.Describe(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Versions) < 2 || int(info.Newest().Number) != len(info.Versions) {
		t.Errorf("%d versions, the newest is %d", len(info.Versions), info.Newest().Number)
	}
}

func TestDisableAndEnable(t *testing.T) {
	tok, u := newToken(t)
	generate(t, tok, "made", both)
	foreign(t, u, "foreign", "0badcafe")
	if err := tok.Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"made", "foreign"} {
		k := find(t, tok, id)
		s := seal(t, k, "p", "")
		if err := tok.SetEnabled(patient(t), id, false); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyDisabled) {
			t.Errorf("%s: encrypt while disabled: %v", id, err)
		}
		if _, err := k.Decrypt(patient(t), 1, s, nil); !errors.Is(err, keystore.ErrKeyDisabled) {
			t.Errorf("%s: decrypt while disabled: %v", id, err)
		}
		if _, disabled, err := k.Permissions(patient(t)); !disabled || err != nil {
			t.Errorf("%s: disabled is %v, %v", id, disabled, err)
		}
		for range 2 { // a second time changes nothing
			if err := tok.SetEnabled(patient(t), id, true); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := k.Decrypt(patient(t), 1, s, nil); err != nil || string(got) != "p" {
			t.Errorf("%s: after enabling: %q %v", id, got, err)
		}
	}
	if out := tool(t, u, "--list-objects", "--type", "secrkey"); !strings.Contains(out, "0badcafe") {
		t.Errorf("the foreign key's CKA_ID was not given back:\n%s", out)
	}
}

// A key that other software made is served by its label; two of one label never.
func TestForeignKeys(t *testing.T) {
	tok, u := newToken(t)
	foreign(t, u, "one", "01")
	foreign(t, u, "two", "01")
	foreign(t, u, "two", "02")
	tool(t, u, "--keygen", "--key-type", "aes:16", "--label", "short", "--id", "03")
	if err := tok.Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	k := find(t, tok, "one")
	s := seal(t, k, "p", "")
	if _, err := tok.Find(patient(t), "two"); !errors.Is(err, keystore.ErrKeyAmbiguous) {
		t.Errorf("two keys of one label: %v", err)
	}
	if _, err := tok.Find(patient(t), "short"); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("a 128-bit key: %v", err)
	}
	if n, err := tok.RotateKey(patient(t), "one"); n != 2 || err != nil {
		t.Fatalf("rotating a foreign key: %d %v", n, err)
	}
	if got, err := find(t, tok, "one").Decrypt(patient(t), 1, s, nil); err != nil || string(got) != "p" {
		t.Errorf("its first version: %q %v", got, err)
	}
}

// The kill switch: what another process does to a key in the token counts here
// within a second, also while a session copy of the key is in use.
func TestKillSwitch(t *testing.T) {
	cases := map[string]struct {
		kill func(t *testing.T, u keystore.URI, id string)
		want error
	}{
		"deleted": {func(t *testing.T, u keystore.URI, id string) {
			tool(t, u, "--delete-object", "--type", "secrkey", "--label", id)
		}, keystore.ErrKeyNotFound},
		"withdrawn": {func(t *testing.T, u keystore.URI, id string) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = tokentest.ChildEnv("HYOK_TEST_WITHDRAW="+u.Token, "HYOK_TEST_KEY="+id, "HYOK_TEST_MODULE="+u.ModulePath)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}, keystore.ErrKeyUsage},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tok, u := newToken(t, background)
			foreign(t, u, "doomed", "aa")
			if err := tok.Refresh(patient(t)); err != nil {
				t.Fatal(err)
			}
			k := find(t, tok, "doomed")
			s := seal(t, k, "p", "")
			ctx := patient(t)
			for tok.Stats().Copies == 0 { // until the key has earned its copy
				seal(t, k, "p", "")
				if ctx.Err() != nil {
					t.Fatal("the key never got a session copy")
				}
			}
			c.kill(t, u, "doomed")
			dead := time.Now()
			last := dead // when the last operation that succeeded had begun
			for time.Since(dead) < 3*time.Second {
				begin := time.Now()
				_, encErr := k.Encrypt(ctx, 1, []byte("p"), nil)
				if encErr == nil {
					last = begin
				}
				begin = time.Now()
				_, decErr := k.Decrypt(ctx, 1, s, nil)
				if decErr == nil {
					last = begin
				}
				if encErr == nil || decErr == nil {
					continue
				}
				if !errors.Is(encErr, c.want) || !errors.Is(decErr, c.want) {
					t.Fatalf("%v; %v", encErr, decErr)
				}
				if tok.Stats().Copies == 0 && time.Since(last) > time.Second {
					break
				}
			}
			t.Logf("last success %v after the other process had ended; copies checked at least every %v", last.Sub(dead), tok.Stats().CopyAge)
			if d := last.Sub(dead); d > time.Second {
				t.Errorf("the key worked for %v more", d)
			}
			if n := tok.Stats().Copies; n != 0 {
				t.Errorf("%d copies are left", n)
			}
		})
	}
}

// foreign makes a key with OpenSC's tool, in a process of its own.
func foreign(t *testing.T, u keystore.URI, label, id string) {
	t.Helper()
	tool(t, u, "--keygen", "--key-type", "aes:32", "--label", label, "--id", id)
}

func tool(t *testing.T, u keystore.URI, args ...string) string {
	t.Helper()
	cmd := exec.Command("pkcs11-tool", append([]string{"--module", u.ModulePath, "--token-label", u.Token, "--login", "--pin", tokentest.PIN}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// Keys are made, changed and deleted while others search the same token: not
// one call of either fails, and nothing is left of the keys that were deleted.
func TestKeysChangeUnderSearches(t *testing.T) {
	tok, _ := newToken(t, sessions(4))
	generate(t, tok, "standing", both)
	ctx, stop := context.WithCancel(patient(t))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := tok.Describe(patient(t), "standing")
				if err := errors.Join(err, tok.Refresh(patient(t))); err != nil {
					t.Errorf("search: %v", err)
				}
			}
		})
	}
	for i := range 30 {
		id := fmt.Sprintf("passing-%d", i)
		err := errors.Join(tok.GenerateKey(patient(t), id, both), tok.SetEnabled(patient(t), id, false), tok.DestroyKey(patient(t), id, 0))
		if err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
	stop()
	wg.Wait()
	if keys, err := tok.Keys(patient(t)); err != nil || len(keys) != 1 || keys[0].ID != "standing" {
		t.Errorf("in the token are %+v, %v", keys, err)
	}
}
