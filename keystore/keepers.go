package keystore

import (
	"context"
	"fmt"
	"sync"
)

// keepers are the sessions in which a vault's unwrapped keys live. None of them
// is pooled, since session objects die with the session that made them. There
// are several, so that one call that hangs does not keep all keys from being
// unwrapped. They are read-only: from them no mistake deletes a token object.
type keepers struct {
	t     *Token
	limit int
	idle  chan *worker // capacity limit

	mu    sync.Mutex
	made  int  // guarded by mu
	ended bool // guarded by mu
}

// keeperLimit returns how many keepers a vault has at most.
func keeperLimit(info TokenInfo) int {
	const few = 64
	if info.MaxSessions != 0 && info.MaxSessions < few {
		return 1
	}
	return 4
}

func (k *keepers) init(t *Token) {
	k.t, k.limit = t, keeperLimit(t.info)
	k.idle = make(chan *worker, 2*k.limit)
}

// run runs f on a keeper's session, once more if the session turns out to be
// lost. As with Token.do, f may outlive run.
func (k *keepers) run(ctx context.Context, f func(*worker) error) error {
	for again := false; ; again = true {
		w, err := k.take(ctx)
		if err != nil {
			return err
		}
		err = k.t.await(ctx, w, f, func() { k.giveBack(w) }, nil)
		if again || !isSessionLost(err) {
			return err
		}
	}
}

// take returns a keeper that is free, or makes one while there are few.
func (k *keepers) take(ctx context.Context) (*worker, error) {
	if err := k.t.refusal(); err != nil {
		return nil, err
	}
	select {
	case w := <-k.idle:
		return w, nil
	default:
	}
	if w, err := k.make(); w != nil || err != nil {
		return w, err
	}
	select {
	case w := <-k.idle:
		return w, nil
	case <-k.t.breaker.opened():
		return nil, k.t.refused()
	case <-k.t.background.Done():
		return nil, k.t.closedError()
	case <-ctx.Done():
		return nil, fmt.Errorf("token %s: %w to unwrap keys in: %w", k.t.name, ErrBusy, ctx.Err())
	}
}

// allowed returns how many keepers there may be: more while some hang.
func (k *keepers) allowed() int {
	return k.limit + min(int(k.t.sessions.stuckKeepers.Load()), k.limit)
}

// giveBack takes a keeper back, or ends it if there are too many because it, or
// another, has hung.
func (k *keepers) giveBack(w *worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.made > k.allowed() && !k.ended {
		k.made--
		close(w.calls)
		return
	}
	k.idle <- w
}

func (k *keepers) make() (*worker, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return nil, k.t.closedError()
	case k.made >= k.allowed():
		return nil, nil
	}
	w, err := k.t.newWorker(keeperWorker)
	if err == nil {
		k.made++
	}
	return w, err
}

// end closes the keepers as they become free, and does not wait for that.
func (k *keepers) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return
	}
	k.ended = true
	go func(n int) {
		for range n {
			w := <-k.idle
			close(w.calls)
			if err := <-w.ended; err != nil {
				k.t.log.Warn("a session of a vault could not be closed", "error", err)
			}
		}
	}(k.made)
}
