package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// held is a token that one caller changes by several steps on one session, whose
// session objects live from step to step. No search runs meanwhile, see gate.
type held struct {
	t    *Token
	w    *worker
	over *atomic.Bool // worker.over of the session of the first step; owned by the worker's goroutine
}

// hold takes a token for several steps; end gives it back.
func (t *Token) hold(ctx context.Context) (*held, error) {
	if err := t.enterChange(ctx); err != nil {
		return nil, err
	}
	w, err := t.newWorker(adminWorker)
	if err != nil {
		t.leaveChange()
		return nil, err
	}
	return &held{t: t, w: w}, nil
}

// step runs one step, once, and returns what it made. When ctx ends first, the
// step goes on alone, and end waits for it.
func step[T any](ctx context.Context, h *held, run func(*worker) (T, error)) (T, error) {
	var out, none T
	err := h.t.await(ctx, h.w, func(w *worker) error {
		if h.over == nil {
			h.over = w.over
		} else if h.over != w.over {
			return fmt.Errorf("token %s lost the session meanwhile: %w", h.t.name, errStale)
		}
		made, err := run(w)
		if err == nil {
			out = made
		}
		return err
	}, func() {}, nil)
	if err != nil {
		return none, err // the step may still write to out
	}
	return out, nil
}

// end closes the session, with its session objects, and lets searches in again;
// both later, should a step still hang when ctx ends.
func (h *held) end(ctx context.Context) error {
	close(h.w.calls)
	ended := make(chan error, 1)
	go func() {
		err := <-h.w.ended
		h.t.leaveChanged()
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// holdBoth holds two tokens. Whoever holds several takes them in one order, so
// that nobody waits for somebody who waits for him.
func holdBoth(ctx context.Context, a, b *Token) (heldA, heldB *held, err error) {
	if b.info.order() < a.info.order() {
		heldB, heldA, err = holdBoth(ctx, b, a)
		return heldA, heldB, err
	}
	if heldA, err = a.hold(ctx); err != nil {
		return nil, nil, err
	}
	if heldB, err = b.hold(ctx); err != nil {
		return nil, nil, errors.Join(err, heldA.end(ctx))
	}
	return heldA, heldB, nil
}

// order names a token in the world, as far as it tells.
func (i TokenInfo) order() string {
	return fmt.Sprintf("%q %q %q %q", i.Manufacturer, i.Model, i.Serial, i.Label)
}
