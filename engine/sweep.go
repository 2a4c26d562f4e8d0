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

// Sweep does what is due at this time: it deletes keys whose waiting period is
// over, rotates key material, removes imported material and import tokens that
// have expired, tries again to destroy material that a token would not, and stores
// the last uses of keys. The worker calls it; who sets the clock of an Engine may
// call it as well. What fails holds up nothing else, is part of the error, and is
// due again the next time. While the clock has not proven itself (see HoldsBack),
// nothing is done that a wrong date would make a loss.
func (e *Engine) Sweep(ctx context.Context) error {
	gone, rotating := e.due()
	if e.HoldsBack() {
		e.steady.heldBack(ctx, len(gone)+len(rotating))
		return errors.Join(e.finishLeft(ctx), e.storeUsage(ctx))
	}
	var errs []error
	for _, k := range gone {
		errs = append(errs, e.destroyDue(ctx, k))
	}
	for _, k := range rotating {
		errs = append(errs, e.rotateDue(ctx, k))
	}
	return errors.Join(append(errs, e.expireImports(ctx), e.finishLeft(ctx), e.storeUsage(ctx))...)
}

// due returns the keys that are to be deleted, and those to be rotated.
func (e *Engine) due() (gone, rotating []*key) {
	now := e.now()
	e.eachKey(func(k *key) bool {
		switch {
		case k.isGone(now):
			gone = append(gone, k)
		case k.isRotationDue(now):
			rotating = append(rotating, k)
		}
		return true
	})
	return gone, rotating
}

func (e *Engine) destroyDue(ctx context.Context, k *key) error {
	unlock, err := e.locks.lock(ctx, k.family())
	if err != nil {
		return err
	}
	defer unlock()
	if k = e.state.stored(k.ref()); k == nil {
		return nil // somebody was faster
	}
	return e.destroyGone(ctx, []*key{k})
}
