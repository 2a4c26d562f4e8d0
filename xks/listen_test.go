package xks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// What net/http refuses before any handler is JSON as well.
func TestMalformedHTTP(t *testing.T) {
	overTLS := startProxy(t, nil)
	plain := serveOn(t, overTLS.server, ListenerOptions{Logger: slog.New(slog.DiscardHandler)})
	for name, raw := range map[string]string{
		"request line":            "POST\r\n\r\n",
		"method":                  "PO(ST / HTTP/1.1\r\nHost: x\r\n\r\n",
		"header":                  "POST / HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
		"no host":                 "POST / HTTP/1.1\r\n\r\n",
		"two hosts":               "POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"version":                 "POST / HTTP/3.7\r\nHost: x\r\n\r\n",
		"headers too large":       "POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"transfer encoding":       "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
		"content length":          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"expectation":             "POST / HTTP/1.1\r\nHost: x\r\nExpect: the-unexpected\r\nContent-Length: 1\r\n\r\nx",
		"percent encoding":        "POST /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"garbage":                 "\x00\x01\x02\x03\r\n\r\n",
		"second request":          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nbroken\r\n\r\n",
		"options":                 "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"HTTP/2 without the ALPN": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", plain.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			wantOnlyJSON(t, conn, raw)
			secure, err := tls.Dial("tcp", overTLS.listener.Addr().String(), &tls.Config{RootCAs: overTLS.roots, ServerName: "localhost"})
			if err != nil {
				t.Fatal(err)
			}
			wantOnlyJSON(t, secure, raw)
		})
	}
	t.Run("plain HTTP on the HTTPS port", func(t *testing.T) {
		conn, err := net.Dial("tcp", overTLS.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		wantOnlyJSON(t, conn, "POST / HTTP/1.1\r\nHost: x\r\n\r\n")
	})
}

// wantOnlyJSON sends raw and checks each answer until the peer closes.
func wantOnlyJSON(t *testing.T, conn net.Conn, raw string) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	// The peer may refuse before it has read all.
	sent := make(chan struct{})
	go func() { defer close(sent); _, _ = io.WriteString(conn, raw) }()
	defer func() { <-sent }()
	in, answers := bufio.NewReader(conn), 0
	for ; ; answers++ {
		if _, err := in.Peek(1); err != nil {
			break
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		var e ErrorResponse
		if err := json.Unmarshal(content, &e); err != nil || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %s %v %s", err, response.Status, response.Header, content)
		}
		if e.Name.Status() != response.StatusCode {
			t.Errorf("%d %s", response.StatusCode, e.Name)
		}
	}
	if answers == 0 {
		t.Error("no answer")
	}
}

func TestExpectContinue(t *testing.T) {
	p := startProxy(t, nil)
	client, content := p.client(t, false), encryptBody().json()
	client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
	r.Header.Set("Expect", "100-continue")
	sign(r, content)
	do(t, client, r).decodeInto(t, new(EncryptResponse))
}

// A body without a declared length is read up to the limit.
func TestChunkedBody(t *testing.T) {
	p := startProxy(t, nil)
	content := encryptBody().json()
	eachProtocol(t, p, func(t *testing.T, client *http.Client) {
		for size, want := range map[int]ErrorName{0: "", MaxBody: "", MaxBody + 1: UnsupportedOperationException} {
			padded := append(bytes.Clone(content), bytes.Repeat([]byte{' '}, max(0, size-len(content)))...)
			r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), padded)
			r.ContentLength = -1
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(padded)))
			sign(r, padded)
			if got := do(t, client, r); want == "" {
				got.decodeInto(t, new(EncryptResponse))
			} else {
				got.wantError(t, want)
				if got.major == 1 && !got.closed {
					t.Error("the connection is kept, with the rest of the body on it")
				}
			}
		}
	})
}

func TestSlowClient(t *testing.T) {
	p := startProxy(t, func(c *Config) { c.MaxInFlight = 1 })
	l := serveOn(t, p.server, ListenerOptions{Logger: slog.New(slog.DiscardHandler), ReadTimeout: 50 * time.Millisecond})
	content := encryptBody().json()
	r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
	sign(r, content)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Amz-Date: %s\r\nContent-Type: application/json\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n{",
		keyPath+"encrypt", r.URL.Host, r.Header.Get("X-Amz-Date"), r.Header.Get("Authorization"), len(content)); err != nil {
		t.Fatal(err)
	}
	// The place for the one request in flight is not held meanwhile.
	p.post(t, p.client(t, false), keyPath+"encrypt", content).decodeInto(t, new(EncryptResponse))
	wantOnlyJSON(t, conn, "")
}

func TestMutualTLS(t *testing.T) {
	const name = "cks.kms.us-east-1.amazonaws.com"
	ca, clientCA, otherCA := newTestCA(t), newTestCA(t), newTestCA(t)
	options := TLSOptions{Certificate: ca.issue(t, "localhost"), ClientCAs: clientCA.pool, ClientNames: []string{"cks.kms.eu-west-1.amazonaws.com", name}}
	p := startProxyWith(t, nil, &options, ca.pool)
	good, content := clientCA.issue(t, name), encryptBody().json()
	for _, http2 := range []bool{false, true} {
		p.post(t, p.client(t, http2, good), keyPath+"encrypt", content).decodeInto(t, new(EncryptResponse))
		for what, certs := range map[string][]tls.Certificate{
			"none": nil, "other CA": {otherCA.issue(t, name)}, "other name": {clientCA.issue(t, "cks.kms.us-east-1.example.com")},
		} {
			r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
			sign(r, content)
			if response, err := p.client(t, http2, certs...).Do(r); err == nil {
				t.Errorf("client certificate %s: answered %s", what, response.Status)
				_ = response.Body.Close()
			}
		}
	}
}

// A session that began under other options is verified again.
func TestMutualTLSResumption(t *testing.T) {
	const name = "cks.kms.us-east-1.amazonaws.com"
	ca, clientCA, otherCA := newTestCA(t), newTestCA(t), newTestCA(t)
	options := TLSOptions{Certificate: ca.issue(t, "localhost"), ClientCAs: clientCA.pool, ClientNames: []string{name}}
	p := startProxyWith(t, nil, &options, ca.pool)
	config := &tls.Config{RootCAs: ca.pool, ServerName: "localhost", Certificates: []tls.Certificate{clientCA.issue(t, name)},
		ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config.MinVersion, config.MaxVersion = version, version
		setTLS := func(change func(*TLSOptions)) {
			t.Helper()
			changed := options
			change(&changed)
			if err := p.listener.SetTLS(changed); err != nil {
				t.Fatal(err)
			}
		}
		connect := func() (bool, error) { return tlsRoundTrip(p.listener.Addr().String(), config) }
		setTLS(func(*TLSOptions) {})
		if _, err := connect(); err != nil {
			t.Fatal(err)
		}
		if resumed, err := connect(); err != nil || !resumed {
			t.Fatalf("resumed %v, %v", resumed, err)
		}
		setTLS(func(o *TLSOptions) { o.ClientNames = []string{"someone else"} })
		if _, err := connect(); err == nil {
			t.Error("a name that is no longer let in resumed its session")
		}
		setTLS(func(*TLSOptions) {})
		if _, err := connect(); err != nil {
			t.Fatal(err)
		}
		setTLS(func(o *TLSOptions) { o.ClientCAs = otherCA.pool })
		if _, err := connect(); err == nil {
			t.Error("a certificate of a CA that is no longer trusted resumed its session")
		}
	}
}

// tlsRoundTrip makes a request, because a refusal in TLS 1.3 shows only then.
func tlsRoundTrip(addr string, config *tls.Config) (resumed bool, err error) {
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !bytes.Contains(answer, []byte("InvalidUriPath")) {
		err = fmt.Errorf("answer %q", answer)
	}
	return conn.ConnectionState().DidResume, err
}

func TestTLSParameters(t *testing.T) {
	p := startProxy(t, nil)
	dial := func(version uint16, suites ...uint16) error {
		conn, err := tls.Dial("tcp", p.listener.Addr().String(), &tls.Config{
			RootCAs: p.roots, ServerName: "localhost", MinVersion: version, MaxVersion: version, CipherSuites: suites})
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if err := dial(version); (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: true, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: false,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: false,
	} {
		if err := dial(tls.VersionTLS12, suite); (err == nil) != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

func TestTLSOptionsRefused(t *testing.T) {
	ca := newTestCA(t)
	cert := ca.issue(t, "localhost")
	for name, options := range map[string]TLSOptions{
		"no certificate": {}, "names without CA": {Certificate: cert, ClientNames: []string{"x"}}, "CA without names": {Certificate: cert, ClientCAs: ca.pool},
	} {
		if _, err := NewListener(nil, nil, ListenerOptions{TLS: &options, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCertificateReload(t *testing.T) {
	p := startProxy(t, nil)
	other := newTestCA(t)
	if err := p.listener.SetTLS(TLSOptions{}); err == nil {
		t.Error("options without a certificate are accepted")
	}
	p.post(t, p.client(t, false), "/", nil).wantError(t, InvalidURIPathException)
	if err := p.listener.SetTLS(TLSOptions{Certificate: other.issue(t, "localhost")}); err != nil {
		t.Fatal(err)
	}
	p.roots = other.pool
	p.post(t, p.client(t, false), "/", nil).wantError(t, InvalidURIPathException)
}

// Requests in flight are finished, their connections closed, new ones refused.
func TestDrain(t *testing.T) {
	p := startProxy(t, nil)
	plain := serveOn(t, p.server, ListenerOptions{Logger: slog.New(slog.DiscardHandler)})
	entered, leave := make(chan struct{}), make(chan struct{})
	p.keys.keys["key-1"].before = func(context.Context, string) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	var waiting []func(*testing.T) answer
	for _, url := range []string{p.url(keyPath + "encrypt"), "http://" + plain.Addr().String() + keyPath + "encrypt"} {
		for _, http2 := range []bool{false, true} {
			content := encryptBody().json()
			r := newRequest(t, http.MethodPost, url, content)
			sign(r, content)
			waiting = append(waiting, start(p.client(t, http2 && strings.HasPrefix(url, "https")), r))
			<-entered
		}
	}
	drained := make(chan error, 2)
	for _, l := range []*Listener{p.listener, plain} {
		stopped := make(chan struct{})
		l.server.RegisterOnShutdown(sync.OnceFunc(func() { close(stopped) }))
		go func() { drained <- l.Shutdown(context.Background()) }()
		<-stopped
	}
	close(leave)
	for _, wait := range waiting {
		got := wait(t)
		got.decodeInto(t, new(EncryptResponse))
		if got.major == 1 && !got.closed {
			t.Error("the connection is kept open")
		}
	}
	for range 2 {
		if err := <-drained; err != nil {
			t.Error(err)
		}
	}
	if _, err := net.Dial("tcp", plain.Addr().String()); err == nil {
		t.Error("still accepting")
	}
}

// A drain that takes too long ends with its context.
func TestDrainGivesUp(t *testing.T) {
	p := startProxy(t, nil)
	entered := make(chan struct{})
	p.keys.keys["key-1"].before = func(ctx context.Context, _ string) error {
		close(entered)
		<-ctx.Done() // the peer's connection is cut
		return ctx.Err()
	}
	content := encryptBody().json()
	r := newRequest(t, http.MethodPost, p.url(keyPath+"encrypt"), content)
	sign(r, content)
	_ = start(p.client(t, false), r) // nobody waits for the answer
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.listener.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if seen := <-p.seen; seen.Error != DependencyTimeoutException {
		t.Errorf("observed %+v", seen)
	}
}

func TestShutdownDuringHandshake(t *testing.T) {
	p := startProxy(t, nil)
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := p.listener.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlives the listener")
	}
}
