package keystore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// switchVariable names the token on which a child of TestKilledInChange works.
const switchVariable = "HYOK_TEST_SWITCH"

// switchForEver disables, enables and rotates a key until it is killed, and prints a
// line when it begins.
func switchForEver(uri, module string) error {
	u, err := keystore.ParseURI(uri)
	if err != nil {
		return err
	}
	u.ModulePath = module
	ctx := context.Background()
	tok, err := keystore.Open(ctx, &modules, tokentest.Options(u))
	if err != nil {
		return err
	}
	for n := 0; err == nil; n++ {
		if n == 0 {
			fmt.Println("it begins")
		}
		err = errors.Join(tok.SetEnabled(ctx, "k", false), tok.SetEnabled(ctx, "k", true))
		if err == nil && n%2 == 1 {
			_, err = tok.RotateKey(ctx, "k")
		}
	}
	return err
}

// Processes that do nothing but disable, enable and rotate a key are killed in the
// midst of it: the key and its first version are there each time, one command brings
// the key back into use, and each version works. HYOK_TEST_CRASH_ROUNDS sets how
// often.
func TestKilledInChange(t *testing.T) {
	rounds := 12
	if text, ok := os.LookupEnv("HYOK_TEST_CRASH_ROUNDS"); ok {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var ms keystore.Modules
	u := tokentest.NewToken(t, &ms)
	use := func(f func(tok *keystore.Token)) {
		t.Helper()
		if _, err := softhsm.KeepTokens(); err != nil {
			t.Fatal(err)
		}
		tok, err := keystore.Open(patient(t), &ms, tokentest.Options(u))
		if err != nil {
			t.Fatal(err)
		}
		f(tok)
		if err := tok.Close(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
	var s keystore.Sealed
	use(func(tok *keystore.Token) { s = seal(t, generate(t, tok, "k", both), "p", "") })
	disabled, versions := 0, 0
	for range rounds {
		killSwitcher(t, u)
		use(func(tok *keystore.Token) {
			info, err := tok.Describe(patient(t), "k")
			if err != nil || info.Versions[0].Number != 1 {
				t.Fatalf("%+v, %v", info, err)
			}
			if info.Disabled {
				disabled++
			}
			if err := tok.SetEnabled(patient(t), "k", true); err != nil {
				t.Fatal(err)
			}
			opensIn(t, tok, "k", 1, s, "p")
			k := find(t, tok, "k")
			for _, v := range info.Versions {
				sealed, err := k.Encrypt(patient(t), v.Number, []byte("q"), nil)
				if err != nil {
					t.Fatalf("version %d: %v", v.Number, err)
				}
				opensIn(t, tok, "k", v.Number, sealed, "q")
				if v.Number > 4 { // few, so that the switching is what is killed
					if err := tok.DestroyKey(patient(t), "k", v.Number); err != nil {
						t.Fatal(err)
					}
				}
				versions++
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, after %d of which the key was disabled; %d versions used", rounds, disabled, versions)
}

// killSwitcher runs a child and kills it some moments after it has begun.
func killSwitcher(t *testing.T, u keystore.URI) {
	t.Helper()
	child := exec.CommandContext(patient(t), os.Args[0])
	child.Env = tokentest.ChildEnv(switchVariable+"="+u.String(), "HYOK_TEST_MODULE="+u.ModulePath)
	var complaints bytes.Buffer
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		t.Fatal(err, &complaints)
	}
	time.AfterFunc(rand.N(80*time.Millisecond), func() { _ = child.Process.Kill() })
	if err := child.Wait(); child.ProcessState.Exited() || complaints.Len() > 0 {
		t.Fatalf("the process was not killed: %v: %s", err, &complaints)
	}
}
