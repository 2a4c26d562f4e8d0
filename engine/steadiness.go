package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hyok-kms/hyok/internal/clock"
)

// steadyFor is how long the clock must have gone steadily, in this process, before
// anything is destroyed because a date has passed. A wrong clock, of a machine
// that has just started or whose time source lies, is noticed and set right
// meanwhile; and an hour does not matter to a waiting period of a week.
const steadyFor = time.Hour

// steadiness says whether the wall clock may be believed when what it says costs
// key material. All else goes by the clock as it is: a key whose date has passed
// cannot be used, and can be used again when the clock is set back.
type steadiness struct {
	watch *clock.Watch
	log   *slog.Logger

	mu    sync.Mutex
	since time.Duration // of the watch, when the clock last jumped or was begun with; guarded by mu
	told  bool          // that something is held back since then; guarded by mu
}

func newSteadiness(w *clock.Watch, log *slog.Logger) *steadiness {
	return &steadiness{watch: w, log: log, since: w.Elapsed()}
}

// proven reports whether the clock has gone steadily for long enough. That of a
// nil steadiness always has: whoever gives an Engine a clock answers for it.
func (s *steadiness) proven() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if jump := s.watch.Jump(); jump != 0 {
		s.since, s.told = s.watch.Elapsed(), false
		s.log.Warn("the clock has jumped; no key material is destroyed by date until it has gone steadily for an hour", "jump", jump.String())
	}
	return s.watch.Elapsed()-s.since >= steadyFor
}

// heldBack tells once that something is due and not done.
func (s *steadiness) heldBack(ctx context.Context, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told || keys == 0 {
		return
	}
	s.told = true
	s.log.WarnContext(ctx, "by the clock, keys are due to be deleted or rotated; that is held back until the clock has gone steadily for an hour. "+
		"If the clock is wrong, set it right now", "keys", keys, "clock", time.Now().UTC())
}
