package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/logbuffer"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/sigv4"
	"github.com/hyok-kms/hyok/xks"
	"github.com/hyok-kms/hyok/xks/bench"
)

// usedKeys is how many of the token's keys the load uses.
const usedKeys = 4

// subject is a proxy on a token with some number of keys.
type subject struct {
	proxy      *proxy.Proxy
	log        *logbuffer.Writer
	token      *rawToken
	credential xks.Credential
	tls        *tls.Config // of clients
	bare       *server
}

// measure makes a token with n keys and measures everything on it.
func measure(ctx context.Context, dir string, n, rounds int, length time.Duration) (r result, err error) {
	s, err := newSubject(ctx, filepath.Join(dir, fmt.Sprint(n)), fmt.Sprintf("bench-%d", n), n, "none")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	plain, cdiv := s.requests(false), s.requests(true)
	err = alternate(rounds, []figure{
		{&r.rawObject, func() (tally, error) { return s.token.rate(length, false) }, nil},
		{&r.rawCopy, func() (tally, error) { return s.token.rate(length, true) }, nil},
		{&r.handler, func() (tally, error) { return handlerRate(s.proxy.Handler(), plain, length, &r.allocs) }, nil},
		{&r.handlerCDIV, func() (tally, error) { return handlerRate(s.proxy.Handler(), cdiv, length, &r.allocsCDIV) }, nil},
		{&r.tls, func() (tally, error) {
			return socketRate(ctx, s.proxy.Addresses()[0].String(), s.tls, cdiv, length)
		}, nil},
		{&r.bare, func() (tally, error) { return socketRate(ctx, s.bare.addr(), s.tls, cdiv, length) }, nil},
	})
	if err != nil {
		return r, err
	}
	_, r.p99, err = s.latency(ctx)
	return r, err
}

// newSubject makes a token of a label with n keys, and starts a proxy on it with a
// value for isolation.
func newSubject(ctx context.Context, dir, label string, n int, isolation string) (*subject, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	token, err := newRawToken(ctx, label, n, false)
	if err != nil {
		return nil, err
	}
	s := &subject{token: token, credential: xks.NewCredential()}
	if s.tls, err = certificate(dir); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"pin":              benchPIN,
		"credentials.json": fmt.Sprintf(`{"credentials":[{"accessKeyId":%q,"secretAccessKey":%q,"created":"2026-01-01T00:00:00Z"}]}`, s.credential.AccessKeyID, s.credential.SecretAccessKey),
		config.FileName: fmt.Sprintf(`version: 1
tokens: {main: {uri: "pkcs11:token=%s?module-path=%s&pin-source=file:pin", isolation: %s}}
stores: {bench: {prefix: /bench, tokens: [main], key_pattern: "*", credentials: credentials.json}}
listeners: [{address: "127.0.0.1:0", tls: {certificate: server.crt, key: server.key}}]
`, token.label, token.module, isolation),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		return nil, err
	}
	// The log is written, as in production, to where it costs least.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	s.log = logbuffer.New(null)
	if s.proxy, err = proxy.Start(ctx, c, "benchmark", slog.New(slog.NewJSONHandler(s.log, nil))); err != nil {
		return nil, err
	}
	s.bare, err = newBareServer(cannedSize, "application/json", filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	return s, err
}

func (s *subject) close(ctx context.Context) error {
	return errors.Join(s.bare.close(), s.proxy.Shutdown(ctx), s.token.close(), s.log.Close())
}

// request is one signed request, ready for the socket and for the handler.
type request struct {
	path   string
	header http.Header
	body   []byte
	wire   []byte
}

// requests returns one request for each used key, signed now: a measurement
// must be over before the five minutes of the signature are.
func (s *subject) requests(cdiv bool) []request {
	var all []request
	secret := sigv4.NewSecret(s.credential.SecretAccessKey)
	for i := range usedKeys {
		q := xks.EncryptRequest{
			RequestMetadata: xks.RequestMetadata{
				AWSPrincipalARN: "arn:aws:iam::123456789012:user/Alice", KMSOperation: "GenerateDataKey",
				KMSKeyARN:    "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
				KMSRequestID: "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
			},
			Plaintext: make([]byte, 32), AAD: make([]byte, 32), Algorithm: xks.AlgorithmAESGCM,
		}
		if cdiv {
			q.CDIVAlgorithm = xks.CDIVSHA256
		}
		body, err := json.Marshal(q)
		if err != nil {
			panic(err) // a struct of strings and bytes
		}
		path := fmt.Sprintf("/bench%s/keys/k%d/encrypt", xks.APIPath, i)
		r, err := http.NewRequest(http.MethodPost, "https://localhost"+path, bytes.NewReader(body))
		if err != nil {
			panic(err) // a constant URL
		}
		r.Header.Set("Content-Type", "application/json")
		sigv4.Sign(r, body, s.credential.AccessKeyID, secret, "us-east-1", xks.Service, time.Now())
		all = append(all, newRequest(path, r.Header, body))
	}
	return all
}

// newRequest makes a request of its signed header and body.
func newRequest(path string, header http.Header, body []byte) request {
	var wire bytes.Buffer
	fmt.Fprintf(&wire, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n", path, len(body))
	if err := header.Write(&wire); err != nil {
		panic(err) // to memory
	}
	wire.WriteString("\r\n")
	wire.Write(body)
	return request{path: path, header: header, body: body, wire: wire.Bytes()}
}

// handlerRate calls a server's handler without a network, from as many goroutines
// as there are connections with one.
func handlerRate(handler http.Handler, requests []request, length time.Duration, allocs *float64) (tally, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := parallel(connections, length, func(worker int, more func() bool) error {
		var w discard
		body := &rewound{}
		for i := worker; more(); i++ {
			q := requests[i%len(requests)]
			body.Reset(q.body)
			w.reset()
			handler.ServeHTTP(&w, q.received(body))
			if w.status != 0 && w.status != http.StatusOK {
				return fmt.Errorf("the handler answers %d", w.status)
			}
		}
		return nil
	})
	runtime.ReadMemStats(&after)
	*allocs = float64(after.Mallocs-before.Mallocs) / float64(n.calls)
	return n, err
}

// tally is what was done in a measurement.
type tally struct {
	calls int64
	took  time.Duration
	cpu   time.Duration // of the whole process, of clients too, and of processes of modules
}

// rate is in calls a second.
func (t tally) rate() float64 { return float64(t.calls) / t.took.Seconds() }

// each is the CPU time of a call in microseconds.
func (t tally) each() float64 { return float64(t.cpu.Nanoseconds()) / 1000 / float64(t.calls) }

// cpuTime is what the process and its children that run have used since they began.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only on a wrong argument
	all := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	lists, _ := filepath.Glob("/proc/self/task/*/children") // none but on Linux
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread that has ended has none
		for child := range strings.FieldsSeq(string(children)) {
			all += cpuOf(child)
		}
	}
	return all
}

// cpuOf is what another process has used, by proc_pid_stat(5); 0: it has ended.
func cpuOf(pid string) time.Duration {
	const tick = time.Second / 100 // of every Linux
	stat, _ := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11]) // they are numbers
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// parallel runs the workers for a time and counts how often more was asked.
func parallel(workers int, length time.Duration, work func(worker int, more func() bool) error) (tally, error) {
	var count atomic.Int64
	var stop atomic.Bool
	errs := make([]error, workers)
	var wg sync.WaitGroup
	begin, cpu := time.Now(), cpuTime()
	timer := time.AfterFunc(length, func() { stop.Store(true) })
	defer timer.Stop()
	for i := range workers {
		wg.Go(func() {
			var mine int64
			errs[i] = work(i, func() bool { mine++; return !stop.Load() })
			count.Add(mine - 1)
		})
	}
	wg.Wait()
	return tally{count.Load(), time.Since(begin), cpuTime() - cpu}, errors.Join(errs...)
}

// answerSize is the size of the body of a handler's answer.
func answerSize(handler http.Handler, q request) (int, error) {
	var w discard
	w.reset()
	handler.ServeHTTP(&w, q.received(io.NopCloser(bytes.NewReader(q.body))))
	if w.status != 0 && w.status != http.StatusOK {
		return 0, fmt.Errorf("the handler answers %d", w.status)
	}
	return w.written, nil
}

// received is the request as a server sees it.
func (q *request) received(body io.ReadCloser) *http.Request {
	return &http.Request{
		Method: http.MethodPost, RequestURI: q.path, URL: &url.URL{Path: q.path}, Host: "localhost", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: q.header, Body: body, ContentLength: int64(len(q.body)), RemoteAddr: "127.0.0.1:1",
	}
}

// discard is a http.ResponseWriter.
type discard struct {
	header  http.Header
	status  int
	written int // bytes of the body
}

func (d *discard) reset() {
	d.status, d.written = 0, 0
	if d.header == nil {
		d.header = http.Header{}
	}
	clear(d.header)
}
func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }
func (d *discard) Write(b []byte) (int, error) {
	d.written += len(b)
	return len(b), nil
}

type rewound struct{ bytes.Reader }

func (*rewound) Close() error { return nil }

var _ io.ReadCloser = (*rewound)(nil)

// latency loads the proxy with AWS KMS's default quota by hyok's own load generator.
func (s *subject) latency(ctx context.Context) (median, p99 time.Duration, err error) {
	client, err := xks.NewClient("https://"+s.proxy.Addresses()[0].String()+"/bench", s.credential, "us-east-1")
	if err != nil {
		return 0, 0, err
	}
	report, err := bench.Run(ctx, bench.Load{
		NewRequest: client.NewRequest, Transport: &http.Transport{TLSClientConfig: s.tls.Clone(), MaxIdleConnsPerHost: connections},
		Operation: bench.Encrypt, CDIV: true, KeyIDs: []string{"k0", "k1", "k2", "k3"}, PlaintextSize: 32, AADSize: 32,
		Connections: connections, Rate: bench.DefaultRate, Duration: 5 * time.Second, Warmup: time.Second, Timeout: time.Second,
	}, nil)
	if err != nil {
		return 0, 0, err
	}
	if report.Failed > 0 {
		return 0, 0, fmt.Errorf("%d requests failed: %s", report.Failed, report.Errors[0].Example)
	}
	return time.Duration(report.Latency.P50US) * time.Microsecond, time.Duration(report.Latency.P99US) * time.Microsecond, nil
}
