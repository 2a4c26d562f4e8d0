package proxy_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/xks"
)

// Reloads under load fail no request and drop no connection.
func TestReloadUnderLoad(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	r.configure(patientConfig)
	r.start()
	c := r.client()
	stop := make(chan struct{})
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Encrypt(patient(t), "k", encryptRequest("p", "aad")); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range 20 {
		sessions := []string{"sessions: 4", "sessions: 5"}[i%2] // opens the token anew
		r.configure(strings.Replace(patientConfig, `{uri: "TOKEN"}`, `{uri: "TOKEN", `+sessions+`}`, 1))
		if err := r.proxy.Reload(patient(t), r.load()); err != nil {
			t.Fatal(err)
		}
		for before := done.Load(); done.Load() < before+10 && !t.Failed(); {
			if patient(t).Err() != nil {
				t.Fatal("no request is answered any more")
			}
		}
	}
	close(stop)
	wg.Wait()
}

func TestReloadTakesEffect(t *testing.T) {
	r := newRig(t)
	r.generate("a-key", both)
	r.generate("b-key", both)
	r.start()
	old := r.client()
	if _, err := old.Encrypt(patient(t), "b-key", encryptRequest("p", "")); err != nil {
		t.Fatal(err)
	}
	r.configure(strings.Replace(basicConfig, `"*"`, `"a-*"`, 1))
	first, second := r.load().Stores[0].Credentials[0].Credential, xks.NewCredential()
	r.credentials("default", first, second)
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	wantError(t, second2(old.Encrypt(patient(t), "b-key", encryptRequest("p", ""))), xks.KeyNotFoundException)
	if _, err := old.Encrypt(patient(t), "a-key", encryptRequest("p", "")); err != nil {
		t.Errorf("the first of two credentials: %v", err)
	}
	r.credentials("default", second)
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	wantError(t, second2(old.Encrypt(patient(t), "a-key", encryptRequest("p", ""))), xks.AuthenticationFailedException)
	if _, err := r.client().Encrypt(patient(t), "a-key", encryptRequest("p", "")); err != nil {
		t.Errorf("the second credential: %v", err)
	}

	// Another certificate for new connections.
	ca := tlstest.NewCA(t)
	tlstest.WriteFiles(t, r.dir, "server", ca.Issue(t, "localhost"))
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	defer transport.CloseIdleConnections()
	fresh, err := xks.NewClient(r.url(), second, "us-east-1", xks.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Encrypt(patient(t), "a-key", encryptRequest("p", "")); err != nil {
		t.Errorf("the new certificate: %v", err)
	}
}

// A configuration that cannot be served is refused as a whole.
func TestReloadRefuses(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	r.start()
	c := r.client()
	for name, change := range map[string][2]string{
		"token that is not there": {`{uri: "TOKEN"}`, `{uri: "TOKEN-nobody"}`},
		"listener moved":          {`"127.0.0.1:0", tls`, `"127.0.0.2:0", tls`},
		"plain HTTP":              {`tls: {certificate: server.crt, key: server.key}`, `plain_http: true`},
		"no operations":           {`operations: {address: "127.0.0.1:0"}`, ``},
	} {
		text := strings.Replace(basicConfig, change[0], change[1], 1)
		if name == "token that is not there" {
			text = strings.Replace(basicConfig, "TOKEN", "pkcs11:token=nobody?module-path="+r.uri.ModulePath+"&pin-source=file:pin", 1)
		}
		// With it comes a change that must not take effect.
		r.configure(strings.Replace(text, "prefix: /keystores/default", "prefix: /elsewhere", 1))
		if err := r.proxy.Reload(patient(t), r.load()); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := c.Encrypt(patient(t), "k", encryptRequest("p", "")); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
	if _, text := r.get("/metrics"); !strings.Contains(text, `hyok_config_reloads_total{result="refused"} 4`) {
		t.Error("the refusals are not counted")
	}
}

// What the configuration alone does not show to be wrong is found without
// opening a token.
func TestCheck(t *testing.T) {
	r := newRig(t)
	if err := proxy.Check(r.load()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string][2]string{
		"names no token":  {"TOKEN", "pkcs11:?module-path=/m.so&pin-source=file:pin"},
		"names no module": {"TOKEN", "pkcs11:token=t?pin-source=file:pin"},
		"not supported":   {"TOKEN", "pkcs11:token=t;foo=bar?module-path=/m.so&pin-source=file:pin"},
		"pin-value":       {"TOKEN", "pkcs11:token=t?module-path=/m.so&pin-value=1234567"},
		"no such file":    {"TOKEN", "pkcs11:token=t?module-path=/m.so&pin-source=file:nowhere"},
		"metadata":        {"credentials:", "sample_metadata: AAFo\n    credentials:"},
	} {
		r.configure(strings.Replace(basicConfig, change[0], change[1], 1))
		err := proxy.Check(r.load())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "1234567") {
			t.Errorf("%s: %v", want, err)
		}
	}
	r.configure(basicConfig)
	if err := os.Chmod(filepath.Join(r.dir, "pin"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := proxy.Check(r.load()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a PIN file that everybody can read: %v", err)
	}
}

// A PIN that the token has refused is tried again when somebody says so, and not
// before, also if the configuration is loaded again meanwhile.
func TestReloadRetriesThePIN(t *testing.T) {
	r := newRig(t)
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	r.uri.Token, r.uri.ModulePath = u.Token, m.Path
	r.configure(basicConfig)
	u.ModulePath = tokentest.Module(t)
	if err := tokentest.Open(t, &modules, tokentest.Options(u)).GenerateKey(patient(t), "k", both); err != nil {
		t.Fatal(err)
	}
	r.start()
	encrypt := func() error {
		_, err := r.client().Encrypt(patient(t), "k", encryptRequest("p", ""))
		return err
	}
	if err := encrypt(); err != nil {
		t.Fatal(err)
	}
	before := m.Count(t, "C_Login") // now: the background may be the first to notice
	m.Set(t, "lose-sessions 1", "fail C_Login 0xa0")
	for range 20 {
		if err := encrypt(); err == nil {
			t.Fatal("it encrypts without a login")
		}
	}
	m.Set(t)
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := encrypt(); err == nil {
			t.Fatal("the PIN was tried again")
		}
	}
	if n := m.Count(t, "C_Login") - before; n != 1 {
		t.Errorf("the PIN was tried %d times", n)
	}
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Fatal(err)
	}
	r.proxy.RetryPINs()
	waitFor(t, "it serves", func() bool { return encrypt() == nil })
}
