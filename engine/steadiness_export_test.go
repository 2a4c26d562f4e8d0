package engine

import (
	"log/slog"
	"time"

	"github.com/hyok-kms/hyok/internal/clock"
)

// Distrust has the engine hold its clock against a monotonic one.
func (e *Engine) Distrust(elapsed func() time.Duration, log *slog.Logger) {
	e.steady = newSteadiness(clock.NewFor(e.clock, elapsed), log)
}
