package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// measured is a report of an open loop that had troubles of each kind, with
// figures that no other test's machine can change.
func measured() *Report {
	l := &Load{Operation: Mixed, CDIV: true, KeyIDs: []string{"a", "b"}, PlaintextSize: 32, AADSize: 8,
		Connections: 16, Rate: 1000, Requests: 1000, Timeout: time.Second, Transport: nil}
	s := newSchedule(l, time.Now())
	rec := newRecord(0)
	id := func() string { return "0f0e0d0c-0000-4000-8000-000000000001" }
	for i := range int64(1000) {
		due := s.due(i)
		m := sample{slot: slot{i, due, true}, sent: due, done: due + 2*time.Millisecond, early: true}
		switch {
		case i >= 990:
			m.failure, m.example, m.done = timedOut, "<slow>", due+time.Second
		case i >= 970:
			m.failure, m.done = "ThrottlingException", due+time.Microsecond
		case i >= 950:
			m.early, m.sent, m.done = false, due+300*time.Millisecond, due+302*time.Millisecond
		}
		rec.add(m, id)
	}
	rec.add(sample{slot: slot{1000, time.Second, true}, done: 2 * time.Second, failure: notSent}, nil)
	l.Transport = newTransport()
	r := newReport(l, s, rec)
	r.URL = "https://proxy.example/store?<&>"
	r.addNotes()
	return r
}

func TestReportFigures(t *testing.T) {
	r := measured()
	if r.Requests != 1001 || r.Answered != 970 || r.Failed != 31 {
		t.Errorf("%d requests, %d answered, %d failed: want 1001, 970, 31", r.Requests, r.Answered, r.Failed)
	}
	// Throttled requests are no latencies; those that timed out or were never
	// sent are.
	if r.Latency.Count != 981 {
		t.Errorf("%d latencies: want 981", r.Latency.Count)
	}
	if r.Latency.P50US < 1999 || r.Latency.P50US > 2002 || r.Latency.MaxUS < 999_000 {
		t.Errorf("p50 %d µs, max %d µs: want 2000 and a million", r.Latency.P50US, r.Latency.MaxUS)
	}
	if r.Within.Within != 950 || r.Within.Beyond != 51 || r.Within.Share < 0.949 || r.Within.Share > 0.95 {
		t.Errorf("within the limit: %+v", r.Within)
	}
	s := r.Schedule
	if s.Scheduled != 1001 || s.Sent != 1000 || s.Unsent != 1 || s.Queued != 20 {
		t.Errorf("schedule: %+v", s)
	}
	if s.Service.P99US > 1_001_000 || s.Service.P90US > 2002 {
		t.Errorf("from sent: %+v: the waits must not be in it", s.Service)
	}
	want := []ErrorCount{
		{KindAnswer, "ThrottlingException", 20, ""}, {KindTransport, "timeout", 10, "<slow>"}, {KindSchedule, "not sent", 1, ""},
	}
	if !slices.Equal(r.Errors, want) {
		t.Errorf("errors %v: want %v", r.Errors, want)
	}
	if len(r.Slowest) != keptSlowest || r.Slowest[0].Error != "timeout" {
		t.Errorf("slowest: %+v", r.Slowest)
	}
}

func TestReportText(t *testing.T) {
	var b bytes.Buffer
	if err := measured().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1,001 in", "970 answered", "31 failed", "94.9 %, 51 beyond", "p99.99", "2.00 ms", "ThrottlingException",
		"0f0e0d0c-0000-4000-8000-000000000001", "open loop at 1000 a second", "mixed with CDIV", "2 keys", "1 never sent",
		"Note: The proxy did not keep up", "Note: 20 of 1,001 requests",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// Programs rely on these names: they may grow in number and must not change.
func TestReportJSONNames(t *testing.T) {
	var b bytes.Buffer
	if err := measured().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for object, names := range map[string]string{
		"": "url mode operation cdiv keys plaintext_bytes aad_bytes connections protocol timeout_ms warmup_seconds started_at " +
			"duration_seconds interrupted requests answered failed throughput_per_second latency within_limit errors schedule " +
			"client_cpu_cores notes slowest curve timeline",
		"latency":      "count mean_us p50_us p90_us p99_us p99_9_us p99_99_us max_us",
		"within_limit": "limit_ms within beyond share",
		"schedule":     "rate_per_second scheduled sent unsent queued lag_p50_us lag_p99_us lag_max_us service service_curve",
	} {
		members := got
		if object != "" {
			members, _ = got[object].(map[string]any)
		}
		for name := range strings.FieldsSeq(names) {
			if _, ok := members[name]; !ok {
				t.Errorf("%s: no member %s", object, name)
			}
		}
	}
	if got["failed"] != 31.0 || got["protocol"] != "HTTP/1.1" {
		t.Errorf("failed %v, protocol %v", got["failed"], got["protocol"])
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.Latency != measured().Latency {
		t.Errorf("does not survive JSON: %v, %+v", err, back.Latency)
	}
}

// texts parses XML and returns its text, and the names and attributes of its
// elements.
func texts(t *testing.T, r io.Reader) (text string, elements []xml.StartElement) {
	t.Helper()
	var b strings.Builder
	d := xml.NewDecoder(r)
	for {
		switch token, err := d.Token(); token := token.(type) {
		case xml.StartElement:
			elements = append(elements, token.Copy())
		case xml.CharData:
			b.Write(token)
			b.WriteByte('\n')
		case nil:
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			return b.String(), elements
		}
	}
}

func TestReportSVG(t *testing.T) {
	var b bytes.Buffer
	if err := measured().WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	text, elements := texts(t, &b)
	for _, want := range []string{"250 ms", "AWS KMS gives up", "p99", "2.00 ms", "94.9 %", "99.9 %", "?<&>", "failed of 1,001\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the picture", want)
		}
	}
	paths := 0
	for _, e := range elements {
		if e.Name.Local == "path" {
			paths++
		}
		if slices.Contains([]string{"script", "image", "use", "a", "foreignObject"}, e.Name.Local) {
			t.Errorf("element %s: the picture must need nothing from elsewhere", e.Name.Local)
		}
		for _, a := range e.Attr {
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("%s has %s=%q", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
	if paths < 6 { // due, its shade, sent; p50, p99, max
		t.Errorf("%d lines in the charts: want 6", paths)
	}
}

func TestReportHTML(t *testing.T) {
	var b bytes.Buffer
	if err := measured().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"<svg", "&lt;slow&gt;", "ThrottlingException", "did not keep up", "p99.99", "never sent"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, not := range []string{"<slow>", "<script", "src=", "href=", "url(", "@import"} {
		if strings.Contains(page, not) {
			t.Errorf("%q in the page", not)
		}
	}
}

// A run that was stopped at once, or of which nothing was answered, has a report.
func TestReportOfNothing(t *testing.T) {
	l := &Load{Operation: Encrypt, KeyIDs: []string{"a"}, Connections: 1, Requests: 1, Timeout: time.Second, Transport: newTransport()}
	rec := newRecord(0)
	rec.add(sample{slot: slot{0, 0, true}, failure: refused}, func() string { return "" })
	for _, rec := range []*record{newRecord(0), rec} {
		r := newReport(l, newSchedule(l, time.Now()), rec)
		r.addNotes()
		for _, write := range []func(io.Writer) error{r.WriteText, r.WriteJSON, r.WriteSVG, r.WriteHTML} {
			var b bytes.Buffer
			if err := write(&b); err != nil || strings.Contains(b.String(), "NaN") {
				t.Errorf("%v in %s", err, b.String())
			}
		}
	}
}

func TestFormats(t *testing.T) {
	for us, want := range map[int64]string{
		0: "0 µs", 999: "999 µs", 1000: "1.00 ms", 9994: "9.99 ms", 9996: "10.0 ms", 99_940: "99.9 ms", 99_960: "100 ms",
		250_000: "250 ms", 1_500_000: "1.50 s", 3_600_000_000: "3600 s",
	} {
		if got := duration(us); got != want {
			t.Errorf("duration(%d) = %q: want %q", us, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q: want %q", n, got, want)
		}
	}
	almost := WithinLimit{Within: 9_999_999, Beyond: 1, Share: 0.9999999}
	if got := percent(almost); got != "99.9999 %" {
		t.Errorf("%q: one miss in ten millions is not 100 %%", got)
	}
}
