package bench

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxLatency  = time.Hour // what a histogram can hold; more counts as this
	keptSlowest = 5
)

// sample is what became of one slot. All times are since the start of the run.
type sample struct {
	slot
	sent    time.Duration // when the request was handed to the transport
	done    time.Duration // when its answer was read, or given up
	early   bool          // open loop: a worker was there before it was due
	failure failure
	example string // one line about the failure
}

// record is what one worker measured. Done and failed are for anybody to read
// at any time; the rest belongs to the worker until it returns.
type record struct {
	done, failed atomic.Int64

	since    time.Duration           // start of the measurement
	latency  *hdrhistogram.Histogram // from when a request was due, in microseconds
	service  *hdrhistogram.Histogram // from when it was sent
	lag      *hdrhistogram.Histogram // from due to sent, where a worker was there in time
	within   int64                   // answered within Limit
	queued   int64                   // due before a worker was free
	unsent   int64
	last     time.Duration // end of the last request
	errors   map[failure]*ErrorCount
	timeline *timeline
	slowest  []SlowRequest // slowest first
}

func newRecord(since time.Duration) *record {
	return &record{
		since:    since,
		latency:  newHistogram(3),
		service:  newHistogram(3),
		lag:      newHistogram(2),
		errors:   make(map[failure]*ErrorCount),
		timeline: newTimeline(),
	}
}

func newHistogram(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, maxLatency.Microseconds(), digits)
}

// microseconds rounds up: nothing takes no time, and nothing is reported
// faster than it was.
func microseconds(d time.Duration) int64 {
	return int64((d + time.Microsecond - 1) / time.Microsecond)
}

func recordValue(h *hdrhistogram.Histogram, d time.Duration) {
	// Clamped to its range, a histogram takes every value.
	_ = h.RecordValue(microseconds(min(max(d, 0), maxLatency)))
}

// add counts a sample.
func (r *record) add(s sample, id func() string) {
	latency := s.done - s.due
	b := r.timeline.at(s.due - r.since)
	b.requests++
	r.last = max(r.last, s.done)
	r.countSchedule(&s)
	if s.failure != "" {
		b.failed++
		r.countFailure(&s)
	} else if latency <= Limit {
		r.within++
	}
	if s.failure == "" || s.failure.waited() {
		recordValue(r.latency, latency)
		recordValue(b.latencies, latency)
		b.max = max(b.max, latency)
	}
	if s.failure != notSent {
		r.keepSlowest(&s, latency, id)
	}
	r.done.Add(1)
}

func (r *record) countSchedule(s *sample) {
	switch {
	case s.failure == notSent:
		r.unsent++
		return
	case s.early:
		recordValue(r.lag, s.sent-s.due)
	default:
		r.queued++
	}
	if s.failure == "" || s.failure.waited() {
		recordValue(r.service, s.done-s.sent)
	}
}

func (r *record) countFailure(s *sample) {
	r.failed.Add(1)
	e := r.errors[s.failure]
	if e == nil {
		e = &ErrorCount{Kind: s.failure.kind(), Name: string(s.failure), Example: s.example}
		r.errors[s.failure] = e
	}
	e.Count++
}

// keepSlowest notes a request if it is among the slowest, with its id: that is
// what the proxy's log has of it.
func (r *record) keepSlowest(s *sample, latency time.Duration, id func() string) {
	us := microseconds(latency)
	if len(r.slowest) == keptSlowest && us <= r.slowest[keptSlowest-1].LatencyUS {
		return
	}
	r.insertSlowest(SlowRequest{
		KMSRequestID: id(),
		DueSeconds:   (s.due - r.since).Seconds(),
		LatencyUS:    us,
		ServiceUS:    microseconds(s.done - s.sent),
		Error:        string(s.failure),
	})
}

func (r *record) insertSlowest(q SlowRequest) {
	i, _ := slices.BinarySearchFunc(r.slowest, q, func(a, b SlowRequest) int {
		return int(b.LatencyUS - a.LatencyUS)
	})
	r.slowest = slices.Insert(r.slowest, i, q)
	r.slowest = r.slowest[:min(len(r.slowest), keptSlowest)]
}

// merge adds another worker's record, which must not be used any more.
func (r *record) merge(other *record) {
	r.latency.Merge(other.latency)
	r.service.Merge(other.service)
	r.lag.Merge(other.lag)
	r.done.Add(other.done.Load())
	r.failed.Add(other.failed.Load())
	r.within += other.within
	r.queued += other.queued
	r.unsent += other.unsent
	r.last = max(r.last, other.last)
	r.timeline.merge(other.timeline)
	for f, e := range other.errors {
		if mine := r.errors[f]; mine != nil {
			mine.Count += e.Count
		} else {
			r.errors[f] = e
		}
	}
	for _, q := range other.slowest {
		r.insertSlowest(q)
	}
}
