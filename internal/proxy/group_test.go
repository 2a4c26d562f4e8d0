package proxy_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// newGroupRig is newRig with a store of two tokens that have the key k. Both are
// open by another program too.
func newGroupRig(t *testing.T) (r *rig, second *keystore.Token) {
	t.Helper()
	r = newRig(t)
	u := tokentest.NewToken(t, &modules)
	second = tokentest.Open(t, &modules, tokentest.Options(u))
	for _, tok := range []*keystore.Token{r.token, second} {
		if err := tok.ImportKey(patient(t), "k", both, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Replace(basicConfig, "stores:\n", fmt.Sprintf("  second: {uri: \"pkcs11:token=%s?module-path=%s&pin-source=file:pin\"}\nstores:\n", u.Token, u.ModulePath), 1)
	r.configure(strings.Replace(text, "[main]", "[main, second]", 1))
	return r, second
}

func isNotFound(err error) bool {
	var e *xks.Error
	return errors.As(err, &e) && e.Name == xks.KeyNotFoundException
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// A key store of two tokens: both serve, what one forbids the store forbids, also
// after a restart, until it is taken out of the configuration.
func TestStoreOfTwoTokens(t *testing.T) {
	r, second := newGroupRig(t)
	r.start()
	encrypt := func() (*xks.EncryptResponse, error) {
		return r.client().Encrypt(patient(t), "k", encryptRequest("p", ""))
	}
	waitFor(t, "both tokens serve", func() bool {
		sealed, err := encrypt()
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := r.client().Decrypt(patient(t), "k", decryptRequest(sealed, "")); err != nil || string(opened.Plaintext) != "p" {
			t.Fatal(err)
		}
		return strings.Contains(r.log.String(), `"token":"main"`) && strings.Contains(r.log.String(), `"token":"second"`)
	})
	if _, body := r.get("/metrics"); !strings.Contains(body, `hyok_group_tokens_usable{store="default"} 2`) {
		t.Error("the metrics do not tell of two usable tokens")
	}
	health, err := r.client().GetHealthStatus(patient(t), metadata)
	if err != nil || len(health.EKMFleet) != 2 {
		t.Errorf("%+v, %v", health, err)
	}
	if err := second.DestroyKey(patient(t), "k", 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is refused", func() bool { _, err := encrypt(); return isNotFound(err) })
	r.stop()
	r.start()
	if _, err := encrypt(); !isNotFound(err) {
		t.Errorf("after a restart: %v", err)
	}
	two, err := os.ReadFile(filepath.Join(r.dir, "hyok.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Replace(string(two), "[main, second]", "[main]", 1), string(two)} {
		r.write("hyok.yaml", text)
		if err := r.proxy.Reload(patient(t), r.load()); err != nil {
			t.Fatal(err)
		}
		if _, err := encrypt(); err != nil {
			t.Errorf("with other tokens: %v", err)
		}
	}
	if code, body := r.get("/readyz"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}

// A damaged file of known answers is an error that says what to do.
func TestDamagedKnownAnswers(t *testing.T) {
	r, _ := newGroupRig(t)
	r.write("known-answers/default.json", "{")
	p, err := proxy.Start(patient(t), r.load(), "test", slog.New(slog.DiscardHandler))
	if err == nil {
		_ = p.Shutdown(patient(t))
		t.Fatal("it starts")
	}
	if !strings.Contains(err.Error(), "known-answers/default.json") || !strings.Contains(err.Error(), "delete it") {
		t.Error(err)
	}
}
