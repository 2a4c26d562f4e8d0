package bench

import (
	"math"
	"sync/atomic"
	"time"
)

// never is the end of a run that ends by its number of requests, and the time
// of a stop that has not happened.
const never = time.Duration(math.MaxInt64)

// slot is the permission to send one request.
type slot struct {
	number  int64         // from 0, warm-up included
	due     time.Duration // since the start of the run
	counted bool          // not part of the warm-up
}

// schedule deals out slots to the workers. All times are since start.
//
// In the open loop slot n is due at n times the interval, and whoever is free
// takes the next one: a worker that is early waits, one that is late sends at
// once, and the delay belongs to the request. So the schedule never waits for
// the proxy, and no queue is needed.
type schedule struct {
	start  time.Time
	rate   float64       // requests a second; 0: closed loop
	warmup time.Duration // slots due before are not counted
	end    time.Duration // closed loop: no slot from here on
	budget int64         // how many slots there are; closed loop: counted ones
	giveUp time.Duration // open loop: what waits for a worker until here is not sent

	next      atomic.Int64 // the number of the next slot
	spent     atomic.Int64 // closed loop: counted slots dealt out
	stoppedAt atomic.Int64 // a time.Duration; never until stop
}

func newSchedule(l *Load, start time.Time) *schedule {
	s := &schedule{start: start, rate: l.Rate, warmup: l.Warmup, end: never, budget: math.MaxInt64, giveUp: never}
	s.stoppedAt.Store(int64(never))
	if l.Requests > 0 {
		s.budget = l.Requests
	}
	if l.Rate == 0 {
		if l.Requests == 0 {
			s.end = l.Warmup + l.Duration
		}
		return s
	}
	if l.Requests == 0 {
		s.budget = s.dueBefore(l.Warmup+l.Duration) - s.dueBefore(l.Warmup)
	}
	s.budget += s.dueBefore(l.Warmup)
	s.giveUp = s.due(s.budget-1) + l.Timeout
	return s
}

// due returns when an open loop's slot is due.
func (s *schedule) due(number int64) time.Duration {
	return time.Duration(float64(number) / s.rate * float64(time.Second))
}

// dueBefore returns how many slots of an open loop are due before t.
func (s *schedule) dueBefore(t time.Duration) int64 {
	n := int64(math.Ceil(t.Seconds() * s.rate))
	// Rounding may have put the last slot on the wrong side.
	for n > 0 && s.due(n-1) >= t {
		n--
	}
	for s.due(n) < t {
		n++
	}
	return n
}

func (s *schedule) now() time.Duration { return time.Since(s.start) }

// take deals out the next slot, or none if the run is over.
func (s *schedule) take() (slot, bool) {
	now := s.now()
	if s.stopped(now) {
		return slot{}, false
	}
	n := s.next.Add(1) - 1
	if s.rate > 0 {
		due := s.due(n)
		return slot{number: n, due: due, counted: due >= s.warmup}, n < s.budget
	}
	p := slot{number: n, due: now, counted: now >= s.warmup}
	if now >= s.end || p.counted && s.spent.Add(1) > s.budget {
		return slot{}, false
	}
	return p, true
}

// stop ends the schedule now; only the first call counts.
func (s *schedule) stop() {
	s.stoppedAt.CompareAndSwap(int64(never), int64(s.now()))
}

func (s *schedule) stopped(now time.Duration) bool {
	return now >= s.lastSend()
}

// lastSend returns from when on nothing is sent any more.
func (s *schedule) lastSend() time.Duration {
	return min(time.Duration(s.stoppedAt.Load()), s.giveUp)
}

// counted returns how many counted slots were due by now.
func (s *schedule) counted(now time.Duration) int64 {
	if s.rate == 0 {
		return min(s.spent.Load(), s.budget)
	}
	warm := s.dueBefore(s.warmup)
	return max(min(s.dueBefore(min(now, s.lastSend())), s.budget)-warm, 0)
}

// span returns how long the measurement lasts by an open loop's schedule: the
// time in which its requests are due, with the interval after the last one.
func (s *schedule) span() time.Duration {
	if s.rate == 0 {
		return 0
	}
	return s.due(s.counted(never)+s.dueBefore(s.warmup)) - s.due(s.dueBefore(s.warmup))
}

// unsent returns the counted slots that were due and that no worker sent: those
// never dealt out, and of those dealt out the ones in dropped. It is for the
// time after the last worker has returned.
func (s *schedule) unsent(dropped []slot) []slot {
	if s.rate == 0 {
		return nil
	}
	var list []slot
	last := s.lastSend()
	for _, p := range dropped {
		if p.counted && p.due < last {
			list = append(list, p)
		}
	}
	warm := s.dueBefore(s.warmup)
	due := min(s.dueBefore(last), s.budget)
	for n := max(s.next.Load(), warm); n < due; n++ {
		list = append(list, slot{number: n, due: s.due(n), counted: true})
	}
	return list
}
