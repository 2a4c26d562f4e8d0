package bench

import (
	"testing"
	"time"
)

func TestOpenScheduleDealsOutEachSlotOnce(t *testing.T) {
	for _, tc := range []struct {
		rate             float64
		warmup, duration time.Duration
		warm, counted    int64
	}{
		{1800, time.Second, 10 * time.Second, 1800, 18000},
		{1800, 0, 10 * time.Second, 0, 18000},
		{3, time.Second, time.Second, 3, 3},
		{0.5, time.Second, 4 * time.Second, 1, 2},
		{7, 333 * time.Millisecond, time.Second, 3, 7},
		{1e6, 0, time.Second, 0, 1e6},
	} {
		l := &Load{Rate: tc.rate, Warmup: tc.warmup, Duration: tc.duration, Timeout: time.Hour}
		s := newSchedule(l, time.Now())
		var warm, counted int64
		for {
			p, ok := s.take()
			if !ok {
				break
			}
			if p.counted {
				counted++
			} else {
				warm++
			}
			if p.counted != (p.due >= tc.warmup) || p.due >= tc.warmup+tc.duration {
				t.Fatalf("rate %g: slot %+v", tc.rate, p)
			}
		}
		if warm != tc.warm || counted != tc.counted {
			t.Errorf("rate %g: %d slots to warm up and %d counted: want %d and %d", tc.rate, warm, counted, tc.warm, tc.counted)
		}
		if left := s.unsent(nil); len(left) != 0 {
			t.Errorf("rate %g: %d slots unsent after all were dealt out", tc.rate, len(left))
		}
	}
}

func TestScheduleByNumberOfRequests(t *testing.T) {
	for _, rate := range []float64{0, 1000} {
		s := newSchedule(&Load{Rate: rate, Requests: 10, Timeout: time.Hour}, time.Now())
		n := 0
		for {
			if _, ok := s.take(); !ok {
				break
			}
			n++
		}
		if n != 10 {
			t.Errorf("rate %g: %d slots: want 10", rate, n)
		}
		if got := s.counted(time.Hour); got != 10 {
			t.Errorf("rate %g: %d counted: want 10", rate, got)
		}
	}
}

func TestUnsentAreThoseDueBeforeTheStop(t *testing.T) {
	l := &Load{Rate: 100, Warmup: time.Second, Duration: 10 * time.Second, Timeout: time.Second}
	s := newSchedule(l, time.Now())
	s.next.Store(150)                                 // slots 0 to 149 went to workers
	s.stoppedAt.Store(int64(2005 * time.Millisecond)) // slots 0 to 200 were due
	dropped := []slot{
		{number: 50, due: 500 * time.Millisecond},                  // of the warm-up
		{number: 140, due: 1400 * time.Millisecond, counted: true}, // taken and never sent
		{number: 149, due: 3 * time.Second, counted: true},         // not due yet
	}
	got := s.unsent(dropped)
	if len(got) != 1+51 || got[0].number != 140 || got[1].number != 150 || got[51].number != 200 {
		t.Errorf("%d unsent, %+v: want 140 and 150 to 200", len(got), got)
	}
	if due := s.counted(time.Hour); due != 101 {
		t.Errorf("%d counted slots were due: want 100 to 200", due)
	}
}

func TestTimelineFoldsWithoutLoss(t *testing.T) {
	a, b := newTimeline(), newTimeline()
	for i := range 1000 {
		line := a
		if i%2 == 1 || i >= 500 { // b outgrows a
			line = b
		}
		bucket := line.at(time.Duration(i) * 100 * time.Millisecond)
		bucket.requests++
		bucket.max = max(bucket.max, time.Duration(i)*time.Microsecond)
		recordValue(bucket.latencies, time.Duration(i)*time.Microsecond)
	}
	a.merge(b)
	points := a.points()
	if len(points) > maxBuckets || points[0].WidthSeconds != 0.8 {
		t.Errorf("%d points of %g s", len(points), points[0].WidthSeconds)
	}
	var requests, measured int64
	for i, p := range points {
		requests += p.Requests
		measured += p.Measured
		if wantMax := int64(min(i*8+7, 999)); p.MaxUS != wantMax {
			t.Errorf("point %d: max %d: want %d", i, p.MaxUS, wantMax)
		}
	}
	if requests != 1000 || measured != 1000 {
		t.Errorf("%d requests, %d measured: want 1000", requests, measured)
	}
}
