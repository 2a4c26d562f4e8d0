package drill_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

var modules keystore.Modules

// full reports whether the drill is at length.
func full() bool { return os.Getenv("HYOK_DRILL") == "full" }

// pick returns how long or how often, at length or by default.
func pick[T any](short, long T) T {
	if full() {
		return long
	}
	return short
}

// site is a running proxy on faulty tokens that hold the same key.
type site struct {
	t       *testing.T
	modules []*tokentest.Faulty
	others  []*keystore.Token // another program on each token
	client  *xks.Client
	proxy   *proxy.Proxy
	dir     string // of its configuration and data
}

// newSite starts a proxy over TLS on n tokens with a key "k". lines are added to the
// configuration of each token.
func newSite(t *testing.T, n int, lines string, behaviours ...string) *site {
	t.Helper()
	s := &site{t: t}
	var tokens []siteToken
	for range n {
		m := tokentest.NewFaulty(t)
		u := m.Token(t, &modules)
		tokens = append(tokens, siteToken{u.Token, m.Path})
		u.ModulePath = tokentest.Module(t)
		other := tokentest.Open(t, &modules, tokentest.Options(u))
		s.put(other)
		m.Set(t, behaviours...)
		s.modules, s.others = append(s.modules, m), append(s.others, other)
	}
	s.start(tokens, lines)
	return s
}

// siteToken says which token a proxy is to use, and by which module.
type siteToken struct{ label, module string }

// start starts the proxy.
func (s *site) start(from []siteToken, lines string) {
	t := s.t
	t.Helper()
	dir, ca, cred := t.TempDir(), tlstest.NewCA(t), xks.NewCredential()
	s.dir = dir
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("pin", tokentest.PIN+"\n")
	write("credentials.json", fmt.Sprintf(`{"credentials":[{"accessKeyId":%q,"secretAccessKey":%q,"created":"2026-01-02T15:04:05Z"}]}`, cred.AccessKeyID, cred.SecretAccessKey))
	tlstest.WriteFiles(t, dir, "server", ca.Issue(t, "localhost"))
	var tokens strings.Builder
	var names []string
	for i, tok := range from {
		name := string(rune('a' + i))
		names = append(names, name)
		fmt.Fprintf(&tokens, "  %s: {uri: \"pkcs11:token=%s?module-path=%s&pin-source=file:pin\"%s}\n", name, tok.label, tok.module, lines)
	}
	write(config.FileName, fmt.Sprintf(`version: 1
tokens:
%sstores:
  default: {prefix: /drill, tokens: [%s], key_pattern: "*", credentials: credentials.json}
listeners:
  - {address: "127.0.0.1:0", tls: {certificate: server.crt, key: server.key}}
`, tokens.String(), strings.Join(names, ", ")))
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	proxy.SpareProcessors(c)
	if s.proxy, err = proxy.Start(t.Context(), c, "drill", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range s.modules {
			m.Set(t)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.proxy.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	t.Cleanup(transport.CloseIdleConnections)
	s.client, err = xks.NewClient("https://"+s.proxy.Addresses()[0].String()+"/drill", cred, "us-east-1", xks.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	s.warm()
}

// connections is how many the client has, all of them open before the drill begins.
const connections = 128

// warm opens the client's connections and has the proxy prove the key.
func (s *site) warm() {
	s.t.Helper()
	for range 2 {
		var all sync.WaitGroup
		for range connections {
			all.Go(func() { _ = s.encrypt(context.Background()) })
		}
		all.Wait()
	}
	eventually(s.t, "it serves", func() bool { return s.encrypt(s.t.Context()) == nil })
}

// put puts the key "k" into a token, the same one each time.
func (s *site) put(tok *keystore.Token) {
	s.t.Helper()
	if err := tok.ImportKey(s.t.Context(), "k", keystore.KeyUsage{Encrypt: true, Decrypt: true}, slices.Repeat([]byte{7}, 32)); err != nil {
		s.t.Fatal(err)
	}
}

// encrypt is one request.
func (s *site) encrypt(ctx context.Context) error {
	_, err := s.client.Encrypt(ctx, "k", &xks.EncryptRequest{
		RequestMetadata: xks.RequestMetadata{
			AWSPrincipalARN: "arn:aws:iam::111122223333:user/drill", KMSKeyARN: "arn:aws:kms:us-east-1:111122223333:key/drill",
			KMSOperation: "Encrypt", KMSRequestID: "drill",
		},
		Plaintext: []byte("0123456789abcdef0123456789abcdef"), Algorithm: xks.AlgorithmAESGCM,
	})
	return err
}

// sample is one answer.
type sample struct {
	sent, took time.Duration // since the load began; until the answer
	err        error
}

// load sends requests at a mean rate while ctx lasts, however slow the answers are.
// They come at random, as those of many independent callers do (a Poisson process).
func (s *site) load(ctx context.Context, perSecond int) []sample {
	var mu sync.Mutex
	var all []sample
	var requests sync.WaitGroup
	begin, next := time.Now(), time.Duration(0)
	for ctx.Err() == nil {
		for ; next < time.Since(begin); next += time.Duration(rand.ExpFloat64() / float64(perSecond) * float64(time.Second)) {
			requests.Go(func() {
				sent := time.Now()
				each, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				err := s.encrypt(each)
				done := sample{sent.Sub(begin), time.Since(sent), err}
				mu.Lock()
				all = append(all, done)
				mu.Unlock()
			})
		}
		time.Sleep(time.Millisecond)
	}
	requests.Wait()
	slices.SortFunc(all, func(a, b sample) int { return int(a.sent - b.sent) })
	return all
}

// loadFor is load for a time.
func (s *site) loadFor(d time.Duration, perSecond int) []sample {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	return s.load(ctx, perSecond)
}

// named returns the error of the proxy API, "" for success, and fails for others.
func named(t *testing.T, err error) xks.ErrorName {
	t.Helper()
	var e *xks.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Name
	}
	t.Errorf("no answer of the proxy API: %v", err)
	return "none"
}

// quantile returns what a share of the times do not exceed.
func quantile(times []time.Duration, share float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func times(all []sample, keep func(sample) bool) []time.Duration {
	var out []time.Duration
	for _, s := range all {
		if keep(s) {
			out = append(out, s.took)
		}
	}
	return out
}

func every(sample) bool { return true }

// threads returns the number of threads of this process.
func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// heap returns the bytes in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// eventually waits until a condition holds, and returns how long that took.
func eventually(t *testing.T, what string, holds func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !holds() {
		if time.Since(begin) > time.Minute {
			t.Fatalf("it never came to this: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}
