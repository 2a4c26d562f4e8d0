package proxy_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

// A proxy starts without a token that does not answer if another has the keys, and
// puts it in use once it does. What it has forbidden before holds meanwhile.
func TestStartWithoutAToken(t *testing.T) {
	r := newRig(t)
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	path := u.ModulePath
	u.ModulePath = tokentest.Module(t)
	second := tokentest.Open(t, &modules, tokentest.Options(u))
	for _, id := range []string{"k", "revoked"} {
		for _, tok := range []*keystore.Token{r.token, second} {
			if err := tok.ImportKey(patient(t), id, both, make([]byte, 32)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := strings.Replace(basicConfig, "stores:\n", fmt.Sprintf("  second: {uri: \"pkcs11:token=%s?module-path=%s&pin-source=file:pin\"}\nstores:\n", u.Token, path), 1)
	r.configure(strings.Replace(text, "[main]", "[main, second]", 1))
	encrypt := func(id string) error {
		_, err := r.client().Encrypt(patient(t), id, encryptRequest("p", ""))
		return err
	}
	usable := func(n int) func() bool {
		return func() bool {
			_, body := r.get("/metrics")
			return strings.Contains(body, fmt.Sprintf(`hyok_group_tokens_usable{store="default"} %d`, n)) && strings.Contains(body, `hyok_group_tokens{store="default"} 2`)
		}
	}
	r.start()
	for _, id := range []string{"k", "revoked"} {
		waitFor(t, "both tokens have proven "+id, func() bool { return encrypt(id) == nil && usable(2)() })
	}
	waitFor(t, "it is remembered that both have both", func() bool {
		data, err := os.ReadFile(filepath.Join(r.dir, "known-answers", "default.json"))
		return err == nil && strings.Count(string(data), "second/") == 2
	})
	if err := second.DestroyKey(patient(t), "revoked", 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the key is refused", func() bool { return isNotFound(encrypt("revoked")) })
	r.stop()
	m.Set(t, "fail C_OpenSession 0x30")
	r.start()
	if err := encrypt("k"); err != nil {
		t.Errorf("without the second token: %v", err)
	}
	for range 10 {
		if err := encrypt("revoked"); !isNotFound(err) {
			t.Fatalf("what the missing token has revoked: %v", err)
		}
	}
	health, err := r.client().GetHealthStatus(patient(t), metadata)
	unavailable := func(m xks.ExternalKeyManager) bool { return m.ID == "second" && m.Health == xks.HealthUnavailable }
	if err != nil || len(health.EKMFleet) != 2 || !slices.ContainsFunc(health.EKMFleet, unavailable) {
		t.Errorf("%+v, %v", health, err)
	}
	if status, body := r.get("/readyz"); status != http.StatusOK {
		t.Errorf("it is not ready: %d %s", status, body)
	}
	if !usable(1)() {
		t.Error("the metrics do not tell that a token is missing")
	}
	m.Set(t)
	waitFor(t, "both are in use", usable(2))
	if err := encrypt("revoked"); !isNotFound(err) {
		t.Errorf("now that the token is back: %v", err)
	}
	r.stop()
	// Without any other one, there is nothing to serve.
	m.Set(t, "fail C_OpenSession 0x30")
	r.configure(strings.Replace(text, "[main]", "[second]", 1))
	if _, err := proxy.Start(patient(t), r.load(), "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "none of its tokens") {
		t.Errorf("a store without a token: %v", err)
	}
	m.Set(t)
}
