package bench

import (
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Report is what came of a load. Its JSON form is for programs: each member
// that has a unit ends in it, members are added and never change their meaning.
//
// Latency counts from the moment a request was due (closed loop: sent) until
// its answer was read. It is that of the requests that were answered, and of
// those that timed out or were never sent, at what they had waited by then:
// failures that come fast are left out, so that they flatter nobody.
type Report struct {
	URL            string    `json:"url,omitzero"`    // set by the caller: what was loaded
	Mode           string    `json:"mode"`            // "closed" or "open" loop
	Operation      Operation `json:"operation"`       // encrypt, decrypt, mixed
	CDIV           bool      `json:"cdiv"`            // Encrypt with an integrity value
	Keys           int       `json:"keys"`            // number of external keys
	PlaintextBytes int       `json:"plaintext_bytes"` // size of each plaintext
	AADBytes       int       `json:"aad_bytes"`       // size of each AAD
	Connections    int       `json:"connections"`     // each with one request at a time
	Protocol       string    `json:"protocol"`        // "HTTP/1.1" or "HTTP/2"
	TimeoutMS      float64   `json:"timeout_ms"`      // of each request
	WarmupSeconds  float64   `json:"warmup_seconds"`  // before the measurement, not counted

	StartedAt       time.Time `json:"started_at"`       // of the measurement
	DurationSeconds float64   `json:"duration_seconds"` // until the schedule and the last request ended
	Interrupted     bool      `json:"interrupted"`      // stopped before its end

	Requests            int64   `json:"requests"` // measured: answered and failed
	Answered            int64   `json:"answered"` // as the specification says
	Failed              int64   `json:"failed"`   // everything else; see Errors
	ThroughputPerSecond float64 `json:"throughput_per_second"`

	Latency  Latency      `json:"latency"`
	Within   WithinLimit  `json:"within_limit"`
	Errors   []ErrorCount `json:"errors"`            // most frequent first
	Schedule *Schedule    `json:"schedule,omitzero"` // open loop alone

	ClientCPUCores float64       `json:"client_cpu_cores"` // what this program used; 0: unknown
	Notes          []string      `json:"notes"`            // what a reader should mind
	Slowest        []SlowRequest `json:"slowest"`          // slowest first
	Curve          []CurvePoint  `json:"curve"`            // latency by percentile
	Timeline       []TimePoint   `json:"timeline"`         // latency by time
}

// Latency sums up a histogram. All times are in microseconds.
type Latency struct {
	Count  int64   `json:"count"`
	MeanUS float64 `json:"mean_us"`
	P50US  int64   `json:"p50_us"`
	P90US  int64   `json:"p90_us"`
	P99US  int64   `json:"p99_us"`
	P999US int64   `json:"p99_9_us"`
	P9999  int64   `json:"p99_99_us"`
	MaxUS  int64   `json:"max_us"`
}

// WithinLimit is what AWS KMS would have got in time, of all requests.
type WithinLimit struct {
	LimitMS float64 `json:"limit_ms"`
	Within  int64   `json:"within"` // answered in time
	Beyond  int64   `json:"beyond"` // answered late, or failed
	Share   float64 `json:"share"`  // within, of all: 0 to 1
}

// ErrorCount is how often requests failed in one way.
type ErrorCount struct {
	Kind    string `json:"kind"` // KindAnswer, KindTransport, KindSchedule or KindClient
	Name    string `json:"name"` // an errorName of the proxy, or our name for it
	Count   int64  `json:"count"`
	Example string `json:"example,omitzero"` // the text of one of them
}

// Schedule is how well an open loop kept to its rate.
type Schedule struct {
	RatePerSecond float64 `json:"rate_per_second"`
	Scheduled     int64   `json:"scheduled"`  // due during the measurement
	Sent          int64   `json:"sent"`       // of these
	Unsent        int64   `json:"unsent"`     // given up waiting for a free connection
	Queued        int64   `json:"queued"`     // sent late, as no connection was free
	LagP50US      int64   `json:"lag_p50_us"` // lateness of this program alone, where one was free
	LagP99US      int64   `json:"lag_p99_us"`
	LagMaxUS      int64   `json:"lag_max_us"`
	// Service is from sent to answered: what a client would report that does
	// not count the waits.
	Service      Latency      `json:"service"`
	ServiceCurve []CurvePoint `json:"service_curve"`
}

// SlowRequest is one of the slowest requests.
type SlowRequest struct {
	KMSRequestID string  `json:"kms_request_id"` // as the proxy logged it
	DueSeconds   float64 `json:"due_seconds"`    // since the start of the measurement
	LatencyUS    int64   `json:"latency_us"`
	ServiceUS    int64   `json:"service_us"` // from sent to answered
	Error        string  `json:"error,omitzero"`
}

// CurvePoint says that Percentile percent of the requests took at most LatencyUS.
type CurvePoint struct {
	Percentile float64 `json:"percentile"`
	LatencyUS  int64   `json:"latency_us"`
}

// TimePoint sums up the requests that were due in one stretch of time.
type TimePoint struct {
	AtSeconds    float64 `json:"at_seconds"` // its begin, since the start of the measurement
	WidthSeconds float64 `json:"width_seconds"`
	Requests     int64   `json:"requests"`
	Failed       int64   `json:"failed"`
	Measured     int64   `json:"measured"` // whose latency counts; see Report
	P50US        int64   `json:"p50_us"`   // within 7 %
	P99US        int64   `json:"p99_us"`   // within 7 %
	MaxUS        int64   `json:"max_us"`
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	return json.MarshalWrite(w, r, jsontext.Multiline(true), jsontext.WithIndent("  "))
}

func newReport(l *Load, s *schedule, total *record) *Report {
	requests, failed := total.done.Load(), total.failed.Load()
	r := &Report{
		Mode: "closed", Operation: l.Operation, CDIV: l.CDIV, Keys: len(l.KeyIDs),
		PlaintextBytes: l.PlaintextSize, AADBytes: l.AADSize,
		Connections: l.Connections, Protocol: "HTTP/1.1",
		TimeoutMS:       float64(l.Timeout) / float64(time.Millisecond),
		WarmupSeconds:   l.Warmup.Seconds(),
		DurationSeconds: max(total.last-l.Warmup, 0).Seconds(),
		Requests:        requests, Answered: requests - failed, Failed: failed,
		Latency: summarize(total.latency),
		Within: WithinLimit{
			LimitMS: float64(Limit) / float64(time.Millisecond),
			Within:  total.within, Beyond: requests - total.within,
		},
		Errors:   sortedErrors(total.errors),
		Notes:    []string{},
		Slowest:  total.slowest,
		Curve:    curve(total.latency),
		Timeline: total.timeline.points(),
	}
	if p := l.Transport.Protocols; p != nil && !p.HTTP1() {
		r.Protocol = "HTTP/2"
	}
	if requests > 0 {
		r.Within.Share = float64(total.within) / float64(requests)
	}
	r.DurationSeconds = max(r.DurationSeconds, s.span().Seconds())
	if r.DurationSeconds > 0 {
		r.ThroughputPerSecond = float64(r.Answered) / r.DurationSeconds
	}
	if s.rate > 0 {
		r.Mode = "open"
		r.Schedule = &Schedule{
			RatePerSecond: s.rate, Scheduled: requests, Sent: requests - total.unsent,
			Unsent: total.unsent, Queued: total.queued,
			LagP50US: total.lag.ValueAtQuantile(50), LagP99US: total.lag.ValueAtQuantile(99),
			LagMaxUS: total.lag.Max(), Service: summarize(total.service), ServiceCurve: curve(total.service),
		}
	}
	return r
}

func summarize(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) int64 { return min(h.ValueAtQuantile(q), h.Max()) }
	return Latency{
		Count: h.TotalCount(), MeanUS: math.Round(h.Mean()*10) / 10,
		P50US: at(50), P90US: at(90), P99US: at(99), P999US: at(99.9), P9999: at(99.99), MaxUS: h.Max(),
	}
}

func sortedErrors(byFailure map[failure]*ErrorCount) []ErrorCount {
	list := make([]ErrorCount, 0, len(byFailure))
	for _, e := range byFailure {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b ErrorCount) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// curvePoints is how many points of the curve there are for each nine.
const curvePoints = 25

// curve returns the latencies at percentiles evenly spread over the "nines": 0,
// 90, 99, 99.9 and so on, as far as there are requests to tell.
func curve(h *hdrhistogram.Histogram) []CurvePoint {
	count := h.TotalCount()
	if count == 0 {
		return []CurvePoint{}
	}
	last := int(math.Floor(math.Log10(float64(count)) * curvePoints))
	points := make([]CurvePoint, 0, last+2)
	for i := range last + 1 {
		q := 100 * (1 - math.Pow(10, -float64(i)/curvePoints))
		points = append(points, CurvePoint{Percentile: q, LatencyUS: min(h.ValueAtQuantile(q), h.Max())})
	}
	return append(points, CurvePoint{Percentile: 100, LatencyUS: h.Max()})
}
