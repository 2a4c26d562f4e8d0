package bench

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

func newTransport() *http.Transport { return &http.Transport{} }

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

func answer(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestErrorsByName(t *testing.T) {
	const zeros = "AAAAAAAAAAAAAAAAAAAAAA=="
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter)
		cdiv   bool
		op     Operation
		want   ErrorCount // without Count
	}{
		{"error name", answer(429, `{"errorName":"ThrottlingException","errorMessage":"slow down"}`), false, Encrypt,
			ErrorCount{KindAnswer, "ThrottlingException", 0, "slow down"}},
		{"control characters", answer(500, `{"errorName":"InternalException","errorMessage":"a\u001b[2Jb"}`), false, Encrypt,
			ErrorCount{KindAnswer, "InternalException", 0, "a?[2Jb"}},
		{"unknown name", answer(400, `{"errorName":"OopsException"}`), false, Encrypt,
			ErrorCount{KindAnswer, "unknown errorName", 0, "OopsException"}},
		{"no name", answer(502, "<html>"), false, Encrypt, ErrorCount{KindAnswer, "HTTP 502", 0, "an answer without an errorName"}},
		{"redirect", answer(301, ""), false, Encrypt, ErrorCount{KindAnswer, "HTTP 301", 0, "an answer without an errorName"}},
		{"no JSON", answer(200, "hello"), false, Encrypt, ErrorCount{KindAnswer, "malformed answer", 0, notTheJSON}},
		{"short tag", answer(200, `{"ciphertext":"AAAA","authenticationTag":"AAAA","initializationVector":"AAAAAAAAAAAAAAAA"}`), false, Encrypt,
			ErrorCount{KindAnswer, "malformed answer", 0, "sizes in bytes: ciphertext 3, tag 3, IV 12, metadata 0"}},
		{"no integrity value", answer(200, `{"ciphertext":"AAAA","authenticationTag":"`+zeros+`","initializationVector":"AAAAAAAAAAAAAAAA"}`), true, Encrypt,
			ErrorCount{KindAnswer, "wrong integrity value", 0, "ciphertextDataIntegrityValue is not what appendix C says"}},
		{"wrong plaintext", answer(200, `{"plaintext":"c2VjcmV0"}`), false, Decrypt,
			ErrorCount{KindAnswer, "wrong plaintext", 0, "Decrypt returned another plaintext than was encrypted"}},
		{"hang up", hangUp, false, Encrypt, ErrorCount{KindTransport, "connection closed", 0, "EOF"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const good = 70 // more than a load of Decrypt needs to prepare itself
			proxy := &fakeProxy{spoil: func(n int64, w http.ResponseWriter, _ *http.Request) bool {
				if n > good && n%5 == 0 {
					tc.answer(w)
					return true
				}
				return false
			}}
			l := newLoad(serve(t, proxy))
			l.Operation, l.CDIV, l.PlaintextSize, l.Connections, l.Requests = tc.op, tc.cdiv, 3, 1, 200
			r := mustRun(t, l)
			if len(r.Errors) != 1 {
				t.Fatalf("errors %+v: want one", r.Errors)
			}
			got := r.Errors[0]
			// 1 request before an Encrypt load, 66 before a Decrypt load; a
			// transport may have sent one again that was hung up on.
			if got.Count < 20 || got.Count > 40 || got.Count != r.Failed {
				t.Errorf("%d of %d failures counted: want each fifth request of 200 from the 71st on", got.Count, r.Failed)
			}
			if got.Count = 0; got != tc.want {
				t.Errorf("got %+v: want %+v", got, tc.want)
			}
			if r.Latency.Count != r.Answered {
				t.Errorf("%d latencies of %d answers: failures that come fast are none", r.Latency.Count, r.Answered)
			}
		})
	}
}

// A request that times out counts with the time that it waited.
func TestTimeoutIsALatency(t *testing.T) {
	var once sync.Once
	proxy := &fakeProxy{spoil: func(n int64, _ http.ResponseWriter, r *http.Request) bool {
		if n > 10 {
			once.Do(func() { <-r.Context().Done() }) // until the client gives up
		}
		return false
	}}
	l := newLoad(serve(t, proxy))
	// Long enough for all other requests on any machine.
	l.Timeout, l.Connections, l.Requests = 2*time.Second, 1, 50
	r := mustRun(t, l)
	if len(r.Errors) != 1 || r.Errors[0].Name != "timeout" || r.Errors[0].Kind != KindTransport || r.Errors[0].Count != 1 {
		t.Fatalf("errors %+v: want one timeout", r.Errors)
	}
	if r.Latency.Count != 50 || time.Duration(r.Latency.MaxUS)*time.Microsecond < l.Timeout {
		t.Errorf("%d latencies up to %d µs: want 50 up to the timeout", r.Latency.Count, r.Latency.MaxUS)
	}
	if r.Within.Beyond < 1 {
		t.Error("a timeout counts as within the limit")
	}
}

func TestTransportKinds(t *testing.T) {
	closedPort := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return "http://" + l.Addr().String()
	}()
	plain := serve(t, http.NotFoundHandler())
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it says what we provoke
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for _, tc := range []struct{ name, url, want string }{
		{"refused", closedPort, "connection refused"},
		{"unknown authority", secure.URL, "tls"},
		{"no TLS", strings.Replace(plain.URL, "http:", "https:", 1), "tls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLoad(plain)
			l.Transport = newTransport()
			l.NewRequest = func(ctx context.Context, path string, _ []byte) (*http.Request, error) {
				return http.NewRequestWithContext(ctx, http.MethodPost, tc.url+path, nil)
			}
			_, err := Run(t.Context(), l, nil)
			if err == nil || !strings.Contains(err.Error(), ": "+tc.want+": ") {
				t.Errorf("got %v: want the kind %q", err, tc.want)
			}
		})
	}
	for want, err := range map[failure]error{
		dnsFailed:      &net.DNSError{Err: "no such host", Name: "x.invalid", IsNotFound: true},
		timedOut:       context.DeadlineExceeded,
		closed:         io.ErrUnexpectedEOF,
		malformed:      errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "x"`),
		otherTransport: errors.New("what is this?"),
	} {
		if got, _ := transportFailure(err); got != want {
			t.Errorf("%v is %q: want %q", err, got, want)
		}
	}
}

// A wrong credential shows as one error, not as a report full of them.
func TestFirstRequestFails(t *testing.T) {
	for _, op := range []Operation{Encrypt, Mixed} {
		l := newLoad(serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answer(401, `{"errorName":"AuthenticationFailedException","errorMessage":"unknown access key id"}`)(w)
		})))
		l.Operation = op
		_, err := Run(t.Context(), l, nil)
		if err == nil || !strings.Contains(err.Error(), string(xks.AuthenticationFailedException)+": unknown access key id") {
			t.Errorf("got %v: want the proxy's own words", err)
		}
	}
}

func TestStoppedRunReports(t *testing.T) {
	for _, rate := range []float64{0, 2000} {
		ctx, cancel := context.WithCancel(t.Context())
		l := newLoad(serve(t, &fakeProxy{}))
		l.Requests, l.Duration, l.Rate = 0, time.Hour, rate
		var last Progress
		r, err := Run(ctx, l, func(p Progress) {
			last = p
			if p.Done > 100 {
				cancel()
			}
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !r.Interrupted || r.Answered < 100 || r.Requests != r.Answered+r.Failed {
			t.Errorf("rate %g: interrupted %t, %d of %d answered", rate, r.Interrupted, r.Answered, r.Requests)
		}
		if rate == 0 && r.Failed > 0 {
			t.Errorf("%d failed: requests under way come to their end", r.Failed)
		}
		if last.Phase != Measuring || last.Done != r.Requests-unsent(r) {
			t.Errorf("rate %g: last progress %+v of %d requests", rate, last, r.Requests)
		}
	}
}

func unsent(r *Report) int64 {
	if r.Schedule == nil {
		return 0
	}
	return r.Schedule.Unsent
}

// Requests that were due and never sent, as the proxy had stalled, count when
// the run is stopped.
func TestStoppedInAStall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release := make(chan struct{})
	proxy := &fakeProxy{spoil: func(n int64, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 50 {
			<-release
		}
		return false
	}}
	l := newLoad(serve(t, proxy))
	l.Rate, l.Requests, l.Connections = 1000, 100_000, 1
	stopped, frozen := false, int64(0)
	r, err := Run(ctx, l, func(p Progress) {
		switch {
		case !stopped && p.Due > p.Done+200: // one request can be under way: 199 wait
			cancel()
			stopped = true
		case stopped && frozen >= 0 && p.Due == frozen: // nothing comes due any more
			close(release)
			frozen = -1
		case stopped && frozen >= 0:
			frozen = p.Due
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Schedule.Unsent < 199 || r.Schedule.Scheduled != r.Schedule.Sent+r.Schedule.Unsent {
		t.Errorf("schedule %+v: at least 199 requests waited", r.Schedule)
	}
	if len(r.Errors) != 1 || r.Errors[0].Name != "not sent" || r.Errors[0].Count != r.Schedule.Unsent {
		t.Errorf("errors %+v", r.Errors)
	}
	if r.Latency.Count != r.Requests {
		t.Errorf("%d latencies of %d requests", r.Latency.Count, r.Requests)
	}
}

func TestStoppedBeforeTheMeasurement(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := newLoad(serve(t, &fakeProxy{}))
	l.Warmup, l.Rate = time.Hour, 100
	_, err := Run(ctx, l, func(p Progress) {
		if p.Phase == WarmingUp {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSenselessLoads(t *testing.T) {
	s := serve(t, &fakeProxy{})
	for name, change := range map[string]func(*Load){
		"operation": func(l *Load) { l.Operation = "sign" }, "no key": func(l *Load) { l.KeyIDs = nil },
		"key id": func(l *Load) { l.KeyIDs = []string{"../x"} }, "plaintext": func(l *Load) { l.PlaintextSize = 0 },
		"AAD": func(l *Load) { l.AADSize = 8193 }, "connections": func(l *Load) { l.Connections = 0 },
		"rate": func(l *Load) { l.Rate = -1 }, "end": func(l *Load) { l.Requests = 0 }, "timeout": func(l *Load) { l.Timeout = 0 },
		"nothing due": func(l *Load) { l.Requests, l.Rate, l.Duration = 0, 0.1, time.Second },
		"transport":   func(l *Load) { l.Transport = nil },
	} {
		l := newLoad(s)
		change(&l)
		if _, err := Run(t.Context(), l, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever a proxy answers, a report of it is fit to print.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"ciphertext":"AAAA","authenticationTag":"AAAA","initializationVector":"AAAA"}`))
	f.Add(200, []byte(`{"plaintext":"AAAA"}`))
	f.Add(400, []byte(`{"errorName":"ValidationException","errorMessage":"\u001b[2J"}`))
	f.Add(502, []byte("<html>"))
	l := Load{KeyIDs: []string{"a"}, PlaintextSize: 3, CDIV: true}
	w := newWorkload(&l)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		for _, c := range []call{{decrypt: true}, {}} {
			got, example := w.check(&c, body)
			if status != http.StatusOK {
				got, example = errorAnswer(status, body)
			}
			if status != http.StatusOK && got == "" {
				t.Errorf("status %d with %q is no failure", status, body)
			}
			if example != printable(example) || got.kind() != KindAnswer {
				t.Errorf("%q (%s) with example %q", got, got.kind(), example)
			}
		}
		// What an Encrypt answers goes into requests to decrypt, or is refused.
		if c, err := w.decryptCall("a", body); err == nil && len(w.bodyFor(&c, 1)) != len(c.body) {
			t.Error("the number of the request changed the size of its body")
		}
	})
}
