// Package clock notices when the wall clock jumps: when it moves otherwise than
// the monotonic clock, by which alone nothing can be said of dates.
package clock

import (
	"sync"
	"time"
)

// Threshold is the least jump. What time daemons do by slewing stays far below it
// between two looks that are not hours apart.
const Threshold = 2 * time.Second

// Watch compares the two clocks. It is safe for concurrent use.
type Watch struct {
	wall    func() time.Time
	elapsed func() time.Duration // by the monotonic clock, from any beginning

	mu          sync.Mutex
	lastWall    time.Time     // guarded by mu
	lastElapsed time.Duration // guarded by mu
}

// New watches the clocks of the system from now on.
func New() *Watch {
	start := time.Now()
	return NewFor(time.Now, func() time.Duration { return time.Since(start) })
}

// NewFor watches a wall clock, compared with what has elapsed by another.
func NewFor(wall func() time.Time, elapsed func() time.Duration) *Watch {
	w := &Watch{wall: wall, elapsed: elapsed}
	w.lastWall, w.lastElapsed = w.read()
	return w
}

// read returns both times. Without its monotonic reading (Round), the difference
// of two wall times is that of the wall clock.
func (w *Watch) read() (time.Time, time.Duration) { return w.wall().Round(0), w.elapsed() }

// Jump returns by how much the wall clock has jumped since the last look, back if
// it is negative; 0 if by less than Threshold. A machine that was suspended has
// jumped forward.
func (w *Watch) Jump() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	wall, elapsed := w.read()
	jump := wall.Sub(w.lastWall) - (elapsed - w.lastElapsed)
	w.lastWall, w.lastElapsed = wall, elapsed
	if jump.Abs() < Threshold {
		return 0
	}
	return jump
}

// Elapsed returns the monotonic time.
func (w *Watch) Elapsed() time.Duration { return w.elapsed() }
