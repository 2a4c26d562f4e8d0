package engine

import (
	"context"
	"errors"
	"time"
)

const sweepInterval = 10 * time.Second // unless Config says otherwise

// work sweeps again and again until ctx ends.
func (e *Engine) work(ctx context.Context, interval time.Duration) {
	if interval == 0 {
		interval = sweepInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := e.Sweep(ctx); err != nil && ctx.Err() == nil {
			e.log.Error("work that is due could not be done and is tried again", "error", err)
		}
	}
}

// Sweep does what is due at this time and stores the last uses of keys. The
// worker calls it; who sets the clock of an Engine may call it as well.
func (e *Engine) Sweep(ctx context.Context) error {
	return errors.Join(e.expireImports(ctx), e.storeUsage(ctx))
}
