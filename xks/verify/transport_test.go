package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// healthy answers every request as GetHealthStatus should.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{}`)) // to a peer that may be gone
}

// elsewhere serves over net/http with TLS options that hyok does not have.
func elsewhere(t *testing.T, handler http.HandlerFunc, change func(*tls.Config)) Target {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{}
	change(server.TLS)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return Target{URL: server.URL, Credential: xks.NewCredential(), KeyID: "key", RootCAs: roots, Timeout: time.Minute}
}

func only(t *testing.T, names ...string) []Check {
	t.Helper()
	checks, err := Select(Checks(), names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

func TestTLS(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*tls.Config)
		want   map[string]Status
	}{
		"as it should be": {func(*tls.Config) {}, nil},
		"old versions": {func(c *tls.Config) {
			c.MinVersion = tls.VersionTLS10
			c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}
		}, map[string]Status{"transport.old-tls": Warn}},
		"no suite named": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}, map[string]Status{"transport.cipher-suite": Fail}},
	} {
		t.Run(name, func(t *testing.T) {
			target := elsewhere(t, healthy, test.change)
			_, found := outcome(t, target, only(t, "transport.https", "transport.tls-version", "transport.cipher-suite", "transport.old-tls"))
			for id, r := range found {
				if test.want[id] != r.Status {
					t.Errorf("%s: %s: %s", id, r.Status, r.Detail)
				}
			}
			for id, status := range test.want {
				if found[id].Status != status {
					t.Errorf("%s: want %s, got %q", id, status, found[id].Status)
				}
			}
		})
	}
}

// Which suite of TLS 1.3 is chosen depends on the machine, so all that is
// certain is that nothing is blamed.
func TestTLS13AloneIsNotBlamed(t *testing.T) {
	target := elsewhere(t, healthy, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 })
	sum, found := outcome(t, target, only(t, "transport.tls-version", "transport.cipher-suite", "transport.old-tls"))
	if !sum.Conforms() {
		t.Errorf("got %+v", found)
	}
}

func TestHTTP2IsOptional(t *testing.T) {
	target := elsewhere(t, healthy, func(*tls.Config) {})
	_, found := outcome(t, target, only(t, "transport.http-2"))
	if found["transport.http-2"].Status != NotChecked {
		t.Errorf("got %+v", found)
	}
}

func TestPlainHTTP(t *testing.T) {
	p := newTestProxy(t)
	p.plain = true
	sum, found := outcome(t, p.start(t), only(t, "transport", "mtls", "health"))
	if found["transport.https"].Status != Warn || sum.Failed > 0 || sum.Warned != 1 {
		t.Errorf("summary %+v, results %+v", sum, found)
	}
	for _, id := range []string{"transport.tls-version", "transport.cipher-suite", "transport.old-tls", "transport.http-2", "mtls.none"} {
		if found[id].Status != NotChecked {
			t.Errorf("%s: want not checked, got %q", id, found[id].Status)
		}
	}
}

func TestUnreachable(t *testing.T) {
	good := newTestProxy(t).start(t)
	closed := httptest.NewServer(nil)
	closed.Close()
	for name, change := range map[string]func(*Target){
		"connection refused":    func(target *Target) { target.URL = closed.URL },
		"unknown root":          func(target *Target) { target.RootCAs = x509.NewCertPool() },
		"wrong name":            func(target *Target) { target.URL = strings.Replace(target.URL, "127.0.0.1", "localhost", 1) },
		"no client cert":        func(target *Target) { target.ClientCertificate = nil },
		"wrong secret":          func(target *Target) { target.Credential.SecretAccessKey = "x" + target.Credential.SecretAccessKey },
		"unknown access key id": func(target *Target) { target.Credential.AccessKeyID = "AAAAAAAAAAAAAAAAAAAA" },
	} {
		target := good
		change(&target)
		_, err := Run(t.Context(), target, Checks(), func(r Result) { t.Errorf("%s: reported %s", name, r.ID) })
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), target.Credential.SecretAccessKey) {
			t.Errorf("%s: the error holds the secret", name)
		}
	}
}

func TestUnusableTargets(t *testing.T) {
	good := Target{URL: "https://proxy.example.com", Credential: xks.NewCredential(), KeyID: "key"}
	for _, url := range []string{"", "proxy.example.com", "ftp://proxy.example.com", "https://", "https://u@proxy.example.com",
		"https://proxy.example.com/a?b=c", "https://proxy.example.com/a#b", "https://proxy.example.com/a%20b", "https://proxy.example.com/a.b"} {
		target := good
		target.URL = url
		if _, err := Run(t.Context(), target, Checks(), func(Result) {}); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("URL %q: got %v", url, err)
		}
	}
	for name, change := range map[string]func(*Target){
		"no key":           func(target *Target) { target.KeyID = "" },
		"no access key id": func(target *Target) { target.Credential.AccessKeyID = "" },
		"no secret":        func(target *Target) { target.Credential.SecretAccessKey = "" },
	} {
		target := good
		change(&target)
		if _, err := Run(t.Context(), target, Checks(), func(Result) {}); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestURLMayNameTheAPIPath(t *testing.T) {
	target := newTestProxy(t).start(t)
	target.URL += xks.APIPath + "/"
	sum, _ := outcome(t, target, only(t, "health"))
	if !sum.Conforms() || sum.Passed == 0 {
		t.Errorf("got %+v", sum)
	}
}

func TestKeysNotGivenAreNotChecked(t *testing.T) {
	target := newTestProxy(t).start(t)
	target.EncryptOnlyKeyID, target.DecryptOnlyKeyID, target.ImpotentKeyID, target.DisabledKeyID = "", "", "", ""
	checks := only(t, "usage", "decrypt.other-key")
	sum, _ := outcome(t, target, checks)
	if sum.NotChecked != len(checks) {
		t.Errorf("got %+v of %d checks", sum, len(checks))
	}
}

func TestThrottlingIsWaitedOut(t *testing.T) {
	p := newTestProxy(t)
	var requests atomic.Int64
	fails(xks.ThrottlingException, func(*http.Request, []byte) bool { return requests.Add(1) == 2 })(p)
	sum, found := outcome(t, p.start(t), only(t, "health.fleet-size"))
	if sum.Passed != 1 || requests.Load() != 3 {
		t.Errorf("got %+v after %d requests", found, requests.Load())
	}
}

// The proxy answers none of the parallel requests before all have come.
func TestParallelRequestsAreParallel(t *testing.T) {
	for name, test := range map[string]struct {
		broken int
		want   Status
	}{"all succeed": {0, Pass}, "one fails": {1, Fail}} {
		p := newTestProxy(t)
		var mu sync.Mutex
		var waiting int
		all := make(chan struct{})
		fails(xks.InternalException, func(r *http.Request, _ []byte) bool {
			if !strings.HasSuffix(r.URL.Path, "/encrypt") {
				return false
			}
			mu.Lock()
			waiting++
			mine := waiting
			if waiting == parallel {
				close(all)
			}
			mu.Unlock()
			<-all
			return mine <= test.broken
		})(p)
		var got Status
		if _, err := Run(t.Context(), p.start(t), only(t, "load.parallel"), func(r Result) { got = r.Status }); err != nil {
			t.Fatal(err)
		}
		if got != test.want {
			t.Errorf("%s: want %s, got %s", name, test.want, got)
		}
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	target := newTestProxy(t).start(t)
	ctx, cancel := context.WithCancel(t.Context())
	reported := 0
	_, err := Run(ctx, target, Checks(), func(Result) { reported++; cancel() })
	if err == nil || reported != 1 {
		t.Errorf("%d results, error %v", reported, err)
	}
}
