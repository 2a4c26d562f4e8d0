package clock

import (
	"testing"
	"time"
)

func TestJump(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var wall, elapsed time.Duration
	w := NewFor(func() time.Time { return start.Add(wall) }, func() time.Duration { return elapsed })
	for _, step := range []struct{ wall, elapsed, want time.Duration }{
		{0, 0, 0},
		{10 * time.Second, 10 * time.Second, 0},
		{11 * time.Second, 10 * time.Second, 0}, // slewed
		{30 * 24 * time.Hour, 10 * time.Second, 30*24*time.Hour - 10*time.Second},
		{10 * time.Second, 10 * time.Second, 0},
		{time.Second, 10 * time.Second, -9 * time.Second},
		{0, 2 * time.Second, -2 * time.Second},
		{time.Minute, time.Minute, 0},
	} {
		wall, elapsed = wall+step.wall, elapsed+step.elapsed
		if got := w.Jump(); got != step.want {
			t.Errorf("wall %v, monotonic %v: jump %v, want %v", step.wall, step.elapsed, got, step.want)
		}
	}
}

// The clocks of a system that nobody sets do not jump between two looks.
func TestSystemClock(t *testing.T) {
	if jump := New().Jump(); jump != 0 {
		t.Errorf("jump of %v", jump)
	}
}
