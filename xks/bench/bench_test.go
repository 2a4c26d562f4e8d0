package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/hyok-kms/hyok/internal/sigv4"
	"github.com/hyok-kms/hyok/xks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeProxy answers as a proxy does, with a cipher that inverts each bit.
type fakeProxy struct {
	// spoil may answer the n-th request, from 1, in its own way and return true.
	spoil func(n int64, w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests int64           // under mu
	ids      map[string]bool // kmsRequestIds; under mu
	paths    map[string]int  // under mu
	unsigned int             // under mu
}

func (p *fakeProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	if n := p.note(r, body); p.spoil != nil && p.spoil(n, w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/decrypt") {
		var q xks.DecryptRequest
		_ = json.Unmarshal(body, &q) // our own client's
		_ = json.MarshalWrite(w, xks.DecryptResponse{Plaintext: invert(q.Ciphertext)})
		return
	}
	var q xks.EncryptRequest
	_ = json.Unmarshal(body, &q)
	a := xks.EncryptResponse{Tag: make([]byte, 16), IV: make([]byte, 12), Ciphertext: invert(q.Plaintext), Metadata: []byte("v1")}
	if q.CDIVAlgorithm != "" {
		sum := sha256.Sum256(bytes.Join([][]byte{q.AAD, a.Metadata, a.IV, a.Ciphertext, a.Tag}, nil))
		a.CDIV = sum[:]
	}
	_ = json.MarshalWrite(w, a)
}

func (p *fakeProxy) note(r *http.Request, body []byte) int64 {
	var q struct {
		Metadata xks.RequestMetadata `json:"requestMetadata"`
	}
	_ = json.Unmarshal(body, &q)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids, p.paths = map[string]bool{}, map[string]int{}
	}
	p.requests++
	p.ids[q.Metadata.KMSRequestID] = true
	p.paths[strings.TrimPrefix(r.URL.Path, "/store"+xks.APIPath)]++
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		p.unsigned++
	}
	return p.requests
}

func invert(b []byte) []byte {
	c := make([]byte, len(b))
	for i := range b {
		c[i] = ^b[i]
	}
	return c
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func newLoad(s *httptest.Server) Load {
	secret := sigv4.NewSecret(strings.Repeat("s", 43))
	return Load{
		NewRequest: func(ctx context.Context, path string, body []byte) (*http.Request, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/store"+xks.APIPath+path, bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			r.Header.Set("Content-Type", "application/json")
			sigv4.Sign(r, body, "AAAABBBBCCCCDDDD2345", secret, "eu-north-1", xks.Service, time.Now())
			return r, nil
		},
		Transport:     s.Client().Transport.(*http.Transport),
		Operation:     Encrypt,
		KeyIDs:        []string{"one"},
		PlaintextSize: 32,
		AADSize:       16,
		Connections:   4,
		Requests:      200,
		Timeout:       time.Minute,
	}
}

func mustRun(t *testing.T, l Load) *Report {
	t.Helper()
	r, err := Run(t.Context(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != r.Answered+r.Failed {
		t.Errorf("%d requests, but %d answered and %d failed", r.Requests, r.Answered, r.Failed)
	}
	if r.Within.Within+r.Within.Beyond != r.Requests {
		t.Errorf("%d requests, but %d within the limit and %d beyond", r.Requests, r.Within.Within, r.Within.Beyond)
	}
	var inTimeline int64
	for _, p := range r.Timeline {
		inTimeline += p.Requests
	}
	if inTimeline != r.Requests {
		t.Errorf("%d requests, but %d in the timeline", r.Requests, inTimeline)
	}
	return r
}

func TestClosedLoopCountsEachRequest(t *testing.T) {
	for _, op := range []Operation{Encrypt, Decrypt, Mixed} {
		t.Run(string(op), func(t *testing.T) {
			proxy := &fakeProxy{}
			l := newLoad(serve(t, proxy))
			l.Operation, l.CDIV, l.KeyIDs = op, true, []string{"one", "two", "three"}
			r := mustRun(t, l)
			if r.Requests != 200 || r.Failed != 0 || r.Latency.Count != 200 {
				t.Errorf("%d requests, %d failed, %d latencies: want 200, 0, 200 (%v)", r.Requests, r.Failed, r.Latency.Count, r.Errors)
			}
			if r.Mode != "closed" || r.Schedule != nil {
				t.Errorf("mode %q with schedule %v", r.Mode, r.Schedule)
			}
			if proxy.unsigned > 0 {
				t.Errorf("%d requests without a signature", proxy.unsigned)
			}
			if len(proxy.ids) < 200 {
				t.Errorf("%d different kmsRequestIds: want one for each of 200", len(proxy.ids))
			}
			for _, id := range l.KeyIDs {
				encrypts, decrypts := proxy.paths["/keys/"+id+"/encrypt"], proxy.paths["/keys/"+id+"/decrypt"]
				if op != Decrypt && encrypts < 15 || op != Encrypt && decrypts < 15 {
					t.Errorf("key %s: %d encrypts and %d decrypts: not its share of a load of %s", id, encrypts, decrypts, op)
				}
			}
		})
	}
}

// A proxy that stalls keeps a client with one connection from sending: all the
// requests due in that time must count, at the time that they waited.
func TestOpenLoopHasNoCoordinatedOmission(t *testing.T) {
	const rate, stallFor = 2000, 400 // a second; in requests that come due meanwhile
	var (
		stalled = make(chan struct{})
		release = make(chan struct{})
		begin   time.Time // written before stalled is closed
		length  time.Duration
	)
	proxy := &fakeProxy{spoil: func(n int64, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 100 {
			begin = time.Now()
			close(stalled)
			<-release
			length = time.Since(begin)
		}
		return false
	}}
	l := newLoad(serve(t, proxy))
	l.Rate, l.Requests, l.Connections = rate, 1000, 1

	var dueAtStall int64
	r, err := Run(t.Context(), l, func(p Progress) {
		select {
		case <-stalled:
		default:
			return
		}
		if dueAtStall == 0 {
			dueAtStall = p.Due
		} else if dueAtStall <= l.Requests && (p.Due >= dueAtStall+stallFor || p.Due == l.Requests) {
			close(release)
			dueAtStall = l.Requests + 1 // never again
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 1000 || r.Answered != 1000 || r.Schedule.Scheduled != 1000 || r.Schedule.Sent != 1000 {
		t.Fatalf("%d requests, %d answered, schedule %+v: want 1000 of each", r.Requests, r.Answered, r.Schedule)
	}
	// Of the requests due in the first half of the stall, each waited for at
	// least the other half, however fast or slow the machine is.
	half := length / 2
	due := min(int64(half.Seconds()*rate), r.Requests-100) - 1
	if due < 50 {
		t.Fatalf("%d requests due in half a stall of %v: the test tests nothing", due, length)
	}
	if got := slower(r, half); got < due*9/10 {
		t.Errorf("about %d requests took longer than %v: at least %d were due in the first half of a stall of %v", got, half, due, length)
	}
	if r.Schedule.Queued < due {
		t.Errorf("%d requests queued: at least %d found no free connection", r.Schedule.Queued, due)
	}
	// The same requests as a naive client sees them: one of them was slow.
	if p50 := time.Duration(r.Schedule.Service.P50US) * time.Microsecond; p50 >= half {
		t.Errorf("median from sent is %v: the wait must not be part of it", p50)
	}
	if time.Duration(r.Latency.MaxUS)*time.Microsecond < length {
		t.Errorf("longest latency %d µs is below the stall of %v", r.Latency.MaxUS, length)
	}
}

// slower returns a lower bound of how many requests took longer than d: the
// curve tells it to one of its steps, which are a tenth of the count apart.
func slower(r *Report, d time.Duration) int64 {
	for _, p := range r.Curve {
		if p.LatencyUS > d.Microseconds() {
			return int64(math.Ceil((100 - p.Percentile) / 100 * float64(r.Latency.Count)))
		}
	}
	return 0
}
