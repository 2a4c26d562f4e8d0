package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	firstBucket = 100 * time.Millisecond // the width of a timeline's buckets at first
	maxBuckets  = 128
)

// timeline keeps latencies by the time at which requests were due. When a run
// outgrows its buckets, their width doubles, so that its memory is bounded
// whatever the length of the run. It belongs to one goroutine.
type timeline struct {
	width   time.Duration
	buckets []*bucket // nil where nothing was due
}

type bucket struct {
	latencies *hdrhistogram.Histogram // in microseconds
	requests  int64
	failed    int64
	max       time.Duration
}

func newTimeline() *timeline { return &timeline{width: firstBucket} }

// at returns the bucket for a time since the start of the measurement.
func (t *timeline) at(due time.Duration) *bucket {
	due = max(due, 0)
	for due >= t.width*maxBuckets {
		t.fold()
	}
	i := int(due / t.width)
	for len(t.buckets) <= i {
		t.buckets = append(t.buckets, nil)
	}
	if t.buckets[i] == nil {
		// One digit is within 7 %: enough for a line on a logarithmic scale.
		t.buckets[i] = &bucket{latencies: newHistogram(1)}
	}
	return t.buckets[i]
}

func (t *timeline) fold() {
	t.width *= 2
	folded := make([]*bucket, 0, maxBuckets)
	for i := 0; i < len(t.buckets); i += 2 {
		b := t.buckets[i]
		if i+1 < len(t.buckets) {
			b = b.merge(t.buckets[i+1])
		}
		folded = append(folded, b)
	}
	t.buckets = folded
}

// merge adds another timeline, which must not be used any more.
func (t *timeline) merge(other *timeline) {
	for t.width < other.width {
		t.fold()
	}
	for other.width < t.width {
		other.fold()
	}
	for i, b := range other.buckets {
		if i == len(t.buckets) {
			t.buckets = append(t.buckets, nil)
		}
		t.buckets[i] = t.buckets[i].merge(b)
	}
}

func (b *bucket) merge(other *bucket) *bucket {
	if b == nil {
		return other
	}
	if other != nil {
		b.latencies.Merge(other.latencies)
		b.requests += other.requests
		b.failed += other.failed
		b.max = max(b.max, other.max)
	}
	return b
}

// points returns a point for each bucket, empty ones included.
func (t *timeline) points() []TimePoint {
	points := make([]TimePoint, len(t.buckets))
	for i, b := range t.buckets {
		p := TimePoint{AtSeconds: (time.Duration(i) * t.width).Seconds(), WidthSeconds: t.width.Seconds()}
		if b != nil {
			p.Requests, p.Failed, p.Measured = b.requests, b.failed, b.latencies.TotalCount()
			// The coarse histogram rounds up: never beyond what was seen.
			p.MaxUS = microseconds(b.max)
			p.P50US = min(b.latencies.ValueAtQuantile(50), p.MaxUS)
			p.P99US = min(b.latencies.ValueAtQuantile(99), p.MaxUS)
		}
		points[i] = p
	}
	return points
}
