package bench

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	// busyShare is the share of the machine from which on this program's own
	// use of it must be suspected of slowing the proxy or itself.
	busyShare = 0.4
	// tolerableLag is the lateness of this program that nobody minds.
	tolerableLag = time.Millisecond
)

// addNotes adds what a reader of the figures should mind.
func (r *Report) addNotes() {
	if r.Interrupted {
		r.note("The run was stopped before its end: the figures are those of the part until then.")
	}
	if s := r.Schedule; s != nil {
		r.addScheduleNotes(s)
	}
	if share := r.ClientCPUCores / float64(runtime.NumCPU()); share >= busyShare {
		r.note("The load generator used %.1f of this machine's %d cores: on the same machine it takes them from the proxy, and it may itself be the bottleneck.",
			r.ClientCPUCores, runtime.NumCPU())
	}
	if r.Requests > 0 && r.Requests < 1000 {
		r.note("%d requests are too few for p99.9: the highest percentiles rest on the slowest request alone.", r.Requests)
	}
}

func (r *Report) addScheduleNotes(s *Schedule) {
	if lag := time.Duration(s.LagP99US) * time.Microsecond; lag > tolerableLag {
		r.note("The load generator was late by itself (p99 %s): its machine was too busy, and part of the latency is its own.", duration(s.LagP99US))
	}
	if s.Queued > 0 {
		r.note("%s of %s requests were due while all %d connections were busy; their latency includes the wait. Requests sent took %s at p99 by themselves: if the proxy can take more at a time, give it more connections.",
			grouped(s.Queued), grouped(s.Scheduled), r.Connections, duration(s.Service.P99US))
	}
	if s.Unsent > 0 {
		r.note("The proxy did not keep up with the rate: %s requests were never sent. They count as failed, with the time that they had waited.", grouped(s.Unsent))
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(label, format string, args ...any) {
		// A strings.Builder takes everything, and so does a tabwriter on it.
		_, _ = fmt.Fprintf(t, label+"\t"+format+"\n", args...)
	}
	if r.URL != "" {
		line("proxy", "%s", r.URL)
	}
	line("load", "%s", r.describe())
	line("requests", "%s in %s: %s answered, %s failed", grouped(r.Requests),
		duration(int64(r.DurationSeconds*1e6)), grouped(r.Answered), grouped(r.Failed))
	line("throughput", "%s answered a second", grouped(int64(r.ThroughputPerSecond+0.5)))
	line("within 250 ms", "%s, %s beyond", percent(r.Within), grouped(r.Within.Beyond))
	r.writeSchedule(line)
	if r.ClientCPUCores > 0 {
		line("own CPU use", "%.2f of %d cores", r.ClientCPUCores, runtime.NumCPU())
	}
	_ = t.Flush()
	r.writeLatency(&b)
	r.writeErrors(&b)
	r.writeSlowest(&b)
	for _, n := range r.Notes {
		b.WriteString("\nNote: " + n + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) describe() string {
	what := string(r.Operation)
	if r.CDIV && r.Operation != Decrypt {
		what += " with CDIV"
	}
	loop := "closed loop"
	if r.Schedule != nil {
		loop = fmt.Sprintf("open loop at %s a second", strconv.FormatFloat(r.Schedule.RatePerSecond, 'f', -1, 64))
	}
	return fmt.Sprintf("%s, %s, %s, %d-byte plaintext, %d-byte AAD, %s over %s",
		loop, what, plural(r.Keys, "key"), r.PlaintextBytes, r.AADBytes, plural(r.Connections, "connection"), r.Protocol)
}

func (r *Report) writeSchedule(line func(label, format string, args ...any)) {
	s := r.Schedule
	if s == nil {
		return
	}
	line("schedule", "%s due, %s sent (%s late, as no connection was free), %s never sent",
		grouped(s.Scheduled), grouped(s.Sent), grouped(s.Queued), grouped(s.Unsent))
	line("own lateness", "p50 %s, p99 %s, max %s", duration(s.LagP50US), duration(s.LagP99US), duration(s.LagMaxUS))
}

func (r *Report) writeLatency(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") }
	b.WriteString("\n")
	row("latency", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max")
	latency := func(name string, l Latency) {
		row(name, duration(int64(l.MeanUS+0.5)), duration(l.P50US), duration(l.P90US), duration(l.P99US),
			duration(l.P999US), duration(l.P9999), duration(l.MaxUS))
	}
	latency("from "+r.begun(), r.Latency)
	if r.Schedule != nil {
		latency("from sent", r.Schedule.Service)
	}
	_ = t.Flush()
}

func (r *Report) writeErrors(b *strings.Builder) {
	if len(r.Errors) == 0 {
		return
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "errors\tkind\tcount\texample")
	for _, e := range r.Errors {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.Name, e.Kind, grouped(e.Count), e.Example)
	}
	_ = t.Flush()
}

func (r *Report) writeSlowest(b *strings.Builder) {
	if len(r.Slowest) == 0 {
		return
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "slowest (kmsRequestId)\t%s at\tfrom %[1]s\tfrom sent\t\n", r.begun())
	for _, q := range r.Slowest {
		_, _ = fmt.Fprintf(t, "%s\t%.3f s\t%s\t%s\t%s\n", q.KMSRequestID, q.DueSeconds,
			duration(q.LatencyUS), duration(q.ServiceUS), q.Error)
	}
	_ = t.Flush()
}

// duration formats microseconds with three digits and the unit that suits.
func duration(us int64) string {
	v, unit := float64(us), "µs"
	switch {
	case us >= 1e6:
		v, unit = v/1e6, "s"
	case us >= 1e3:
		v, unit = v/1e3, "ms"
	}
	decimals := 2
	switch {
	case unit == "µs" || v >= 99.95:
		decimals = 0
	case v >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + " " + unit
}

// percent never rounds up to 100 %.
func percent(l WithinLimit) string {
	if l.Beyond == 0 && l.Within > 0 {
		return "100 %"
	}
	// Two digits below 99 %, four above, where they matter.
	scale := 1e4
	if l.Share >= 0.99 {
		scale = 1e6
	}
	return strconv.FormatFloat(math.Floor(l.Share*scale)/(scale/100), 'f', -1, 64) + " %"
}

// grouped formats a count with commas between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(int64(n)) + " " + noun + "s"
}
