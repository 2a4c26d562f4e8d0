package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

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
	// With none at all it starts, too.
	m.Set(t, "fail C_OpenSession 0x30")
	r.configure(strings.ReplaceAll(strings.Replace(text, "[main]", "[second]", 1), "  main: {uri: \"TOKEN\"}\n", ""))
	r.start()
	if why := r.proxy.Unopened(); len(why) != 1 || !strings.Contains(why[0].Error(), "second") || !strings.Contains(why[0].Error(), "CKR_DEVICE_ERROR") {
		t.Errorf("why the token is missing: %v", why)
	}
	m.Set(t)
	waitFor(t, "the only token is in use", func() bool { return encrypt("k") == nil })
}

// awayConfig has a key store and the embedded KMS on a token behind the faulty
// module, beside the key store of another token, and a token that is not there.
func awayConfig(t *testing.T, r *rig) *tokentest.Faulty {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	r.write("ca.crt", string(r.ca.PEM()))
	r.write("away.pin", tokentest.PIN)
	r.identity("first", "secret-of-the-first")
	r.credentials("other", xks.NewCredential())
	r.configure(strings.NewReplacer(
		"stores:\n", fmt.Sprintf("  away: {uri: \"pkcs11:token=%s?module-path=%s&pin-source=file:away.pin\"}\n"+
			"  nowhere: {uri: \"pkcs11:token=nowhere?module-path=%s&pin-source=file:pin\"}\nstores:\n"+
			"  other: {prefix: /other, tokens: [main], key_pattern: \"*\", credentials: credentials/other.json}\n", u.Token, u.ModulePath, u.ModulePath),
		"tokens: [main]", "tokens: [away]", "token: main", "token: away").Replace(kmsConfig))
	return m
}

// A token that does not answer at the start keeps neither the key stores of other
// tokens from being served nor the KMS from being there when it does.
func TestStartWithoutTheTokenOfAStoreAndTheKMS(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	r.generate("k", both)
	m.Set(t, "fail C_OpenSession 0x30")
	r.start()
	ctx := patient(t)
	if _, err := r.clientOf("other").Encrypt(ctx, "k", encryptRequest("p", "")); err != nil {
		t.Errorf("the key store of the other token: %v", err)
	}
	var failed *xks.Error
	if _, err := r.client().Encrypt(ctx, "k", encryptRequest("p", "")); !errors.As(err, &failed) || failed.Name != xks.DependencyTimeoutException {
		t.Errorf("the key store without its token: %v", err)
	}
	if _, err := r.client().GetHealthStatus(ctx, metadata); err == nil {
		t.Error("a key store without its token is said to be healthy")
	}
	status, reason := r.get("/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(reason, "default") || !strings.Contains(reason, "KMS") || strings.Contains(reason, "other") {
		t.Errorf("%d %s", status, reason)
	}
	_, metrics := r.get("/metrics")
	for _, token := range []string{"away", "away/kms", "nowhere"} {
		if !strings.Contains(metrics, fmt.Sprintf(`hyok_token_health{state="unavailable",token=%q} 1`, token)) {
			t.Errorf("metrics do not say that the token %s is unavailable", token)
		}
	}
	if err := r.proxy.Reload(ctx, r.load()); err != nil {
		t.Errorf("the configuration cannot be loaded meanwhile: %v", err)
	}
	c := r.kms("first", "secret-of-the-first")
	if _, err := c.CreateKey(ctx, &kms.CreateKeyInput{}); code(err) != "DependencyTimeoutException" {
		t.Errorf("the KMS without its token: %v", err)
	}
	m.Set(t)
	waitFor(t, "all is there", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	if _, err := c.CreateKey(ctx, &kms.CreateKeyInput{}); err != nil {
		t.Errorf("the KMS with its token: %v", err)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\nhyok_kms_database_broken 0\n") {
		t.Error("metrics lack the KMS")
	}
}

// A token that was missing and then refuses the PIN is asked once, however often it
// is looked for and the configuration loaded again, until somebody says that the PIN
// was mended.
func TestMissingTokenRefusesThePIN(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	m.Set(t, "fail C_OpenSession 0x30")
	r.write("away.pin", "a wrong PIN")
	r.start()
	m.Set(t)
	triedOnce(t, r, m)
}

// triedOnce waits until the PIN of awayConfig's token is given up, which must be
// after one login, and puts the right one in its place.
func triedOnce(t *testing.T, r *rig, m *tokentest.Faulty) {
	t.Helper()
	waitFor(t, "it is given up", func() bool { return strings.Contains(r.log.String(), "cannot be used") })
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	looked := m.Count(t, "C_GetSlotList")
	waitFor(t, "the other one is looked for again", func() bool { return m.Count(t, "C_GetSlotList") > looked+2 })
	if n := m.Count(t, "C_Login"); n != 1 {
		t.Errorf("%d logins", n)
	}
	r.write("away.pin", tokentest.PIN)
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	r.proxy.RetryPINs()
	waitFor(t, "it is in use", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
}

// A PIN that is refused just after a configuration was put in force, by an attempt
// that had begun before, is not the PIN of that configuration.
func TestReloadWhileAMissingTokenRefusesThePIN(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	m.Set(t, "fail C_OpenSession 0x30")
	r.write("away.pin", "a wrong PIN")
	r.start()
	m.Set(t, "hang C_Login")
	waitFor(t, "the PIN is tried", func() bool { return m.Count(t, tokentest.HangingCalls) == 1 })
	r.write("away.pin", tokentest.PIN)
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	m.Set(t)
	waitFor(t, "it is in use", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
}

// The end of the process is no reason why a token cannot be used.
func TestShutdownWhileAMissingTokenIsOpened(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	m.Set(t, "fail C_OpenSession 0x30")
	r.start()
	m.Set(t, "hang C_OpenSession")
	waitFor(t, "it is opened", func() bool { return m.Count(t, tokentest.HangingCalls) == 1 })
	r.stop()
	m.Set(t)
	if strings.Contains(r.log.String(), "cannot be used") {
		t.Error(r.log.String())
	}
}

// What is wrong with the files of a configuration that is in force keeps no token
// that was missing from being put in use.
func TestMissingTokenComesWhileACertificateIsBroken(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	m.Set(t, "fail C_OpenSession 0x30")
	r.start()
	for _, name := range []string{"server.crt", "ca.crt", "hyok.yaml"} {
		r.write(name, "half of it")
	}
	m.Set(t)
	waitFor(t, "it is in use", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
}

// A database that is damaged keeps the KMS away, not the key store on its token.
func TestMissingTokenComesWhileTheDatabaseIsDamaged(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	tokentest.Open(t, &modules, tokentest.Options(m.Token(t, &modules))) // so that the module counts on between attempts
	r.write("kms/kms.db", strings.Repeat("This is no database. ", 1000))
	m.Set(t, "fail C_OpenSession 0x30")
	r.start()
	// The key store's attempt fails once more, the KMS's after it does not.
	m.Set(t, "fail C_OpenSession 0x30 count 2")
	waitFor(t, "the KMS is given up", func() bool { return strings.Contains(r.log.String(), "cannot be used") })
	waitFor(t, "the key store has its token", func() bool {
		_, reason := r.get("/readyz")
		return !strings.Contains(reason, "default")
	})
}

// A token that hangs while the KMS is opened does not keep the start for ever.
func TestStartWhileTheKMSHangs(t *testing.T) {
	for _, function := range []string{"C_WrapKey", "C_Sign"} { // in the vault, and in the engine
		t.Run(function, func(t *testing.T) {
			r := newRig(t)
			m := awayConfig(t, r)
			m.Set(t, "hang "+function)
			t.Parallel() // it takes ten seconds
			type result struct {
				p   *proxy.Proxy
				err error
			}
			started := make(chan result, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				p, err := proxy.Start(ctx, r.load(), "test", slog.New(slog.NewJSONHandler(r.log, nil)))
				started <- result{p, err}
			}()
			select {
			case s := <-started:
				if s.err != nil {
					t.Fatal(s.err)
				}
				r.proxy = s.p
				t.Cleanup(r.stop)
			case <-patient(t).Done():
				m.Set(t)
				t.Fatal("it has not started yet")
			}
			m.Set(t)
			waitFor(t, "all is there", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
		})
	}
}

// A login that hangs at the start may end by a refusal when nobody waits for it any
// more: the PIN is not tried again all the same.
func TestStartWhileTheLoginHangs(t *testing.T) {
	r := newRig(t)
	m := awayConfig(t, r)
	r.write("away.pin", "a wrong PIN")
	m.Set(t, "hang C_Login")
	r.start() // after ten seconds
	m.Set(t)
	triedOnce(t, r, m)
}
