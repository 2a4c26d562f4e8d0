package keystore

import "context"

// Operate runs an operation that makes a call on its session whenever it wants.
func (t *Token) Operate(ctx context.Context, operation func(call func() error)) error {
	return t.do(ctx, func(w *worker) error {
		operation(func() error {
			_, err := t.module.ctx.GetSessionInfo(w.session)
			return err
		})
		return nil
	})
}

// RestartWaits reports whether the module waits for operations to end before it is
// started anew.
func (t *Token) RestartWaits() bool {
	if t.module.calls.TryRLock() {
		t.module.calls.RUnlock()
		return false
	}
	return true
}

// Idle reports whether a token counts as one that nobody asks.
func (t *Token) Idle() bool { return t.isIdle() }
