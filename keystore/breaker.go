package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A circuit breaker stands before each token. Calls that fail one after the other,
// or hang while none succeeds, open it: then nobody waits for the token any more,
// and one goroutine alone tries whether it is back (see revive.go). One that
// succeeds in between is proof enough that the token serves, and so is a self-test
// after the last that failed: then it is about the keys that were asked for, and no
// business of others. A self-test with a wrong answer opens it at once.
const (
	tripFailures = 5                      // calls in a row that fail
	tripHangs    = 3                      // callers in a row that give up
	tripHangTime = 100 * time.Millisecond // and none of their calls returned for so long
)

// breaker is the state of a token's circuit breaker.
type breaker struct {
	now   atomic.Pointer[trip] // nil: closed; changed under mu
	doubt atomic.Bool          // failures or hangs are counted; so that a success costs nothing
	trips atomic.Uint64
	wake  chan struct{} // capacity 1: something succeeded while it was open

	mu       sync.Mutex
	failures int           // in a row; guarded by mu
	hangs    int           // in a row; guarded by mu
	since    time.Time     // when the first call began that these waited for; guarded by mu
	opening  chan struct{} // closed when it opens; guarded by mu
}

// trip is one time that the breaker is open.
type trip struct {
	since time.Time
	hang  bool
	cause error
}

func (b *breaker) init() { b.wake, b.opening = make(chan struct{}, 1), make(chan struct{}) }

// refusal returns why the token is not asked now, or nil.
func (t *Token) refusal() error {
	trip := t.breaker.now.Load()
	switch {
	case trip == nil:
		return nil
	case errors.Is(trip.cause, ErrPINIncorrect):
		return fmt.Errorf("token %s: %w: %w", t.name, ErrUnavailable, trip.cause)
	}
	away := fmt.Errorf("token %s: %w for %v, since: %v", t.name, ErrUnavailable, time.Since(trip.since).Round(time.Millisecond), trip.cause)
	return &RetryError{away, trip.retryAfter()}
}

// refused is refusal for those who saw the breaker open while they waited, though it
// may be closed by now.
func (t *Token) refused() error {
	if err := t.refusal(); err != nil {
		return err
	}
	return &RetryError{fmt.Errorf("token %s: %w: it was not a moment ago", t.name, ErrUnavailable), leastRetry}
}

// opened returns what is closed once the breaker opens.
func (b *breaker) opened() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opening
}

// succeeded notes that a call has returned as it should.
func (t *Token) succeeded() {
	b := &t.breaker
	if b.now.Load() != nil {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	if !b.doubt.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.hangs = 0, 0
	b.doubt.Store(false)
}

// failed notes that a call has failed by the token's fault.
func (w *worker) failed(cause error) {
	b := &w.t.breaker
	many := b.countFailure()
	sure := isModuleGone(cause) || errors.Is(cause, errWrongAnswer)
	if !sure && (!many || b.now.Load() != nil || w.serves()) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w.t.trip(&trip{since: time.Now(), cause: cause})
}

// countFailure counts a call that failed, and reports whether there are too many.
func (b *breaker) countFailure() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doubt.Store(true)
	b.failures++
	return b.failures >= tripFailures
}

// serves reports whether the token passes its self-test on a new session.
func (w *worker) serves() bool {
	w.t.module.calls.RLock()
	defer w.t.module.calls.RUnlock()
	w.doubtful = true
	if w.openSession() != nil || w.selfTest() != nil {
		return false
	}
	w.t.succeeded()
	return true
}

// hung notes that a caller has given up on a call that began at a time and runs
// still. A caller may be impatient: what counts is that nothing returns at all, and
// that the token is not busy with a key pair.
func (t *Token) hung(begun time.Time) {
	if t.generations.underWay() {
		return // the token may do nothing else meanwhile
	}
	b := &t.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hangs == 0 || begun.Before(b.since) {
		b.since = begun
	}
	b.doubt.Store(true)
	b.hangs++
	if waited := time.Since(b.since); b.hangs >= tripHangs && waited >= tripHangTime {
		t.trip(&trip{since: b.since, hang: true, cause: fmt.Errorf("%d calls hang in the module", t.sessions.stuck.Load())})
	}
}

// trip opens the breaker and starts what closes it again. breaker.mu is held.
func (t *Token) trip(now *trip) {
	b := &t.breaker
	if b.now.Load() != nil || !t.start(func() { t.revive(now) }) {
		return
	}
	select {
	case <-b.wake: // of the time before
	default:
	}
	b.now.Store(now)
	b.trips.Add(1)
	close(b.opening)
	t.log.Error("the token is not asked any more until it is back", "cause", now.cause)
}

// stays notes why the token is not back: it may be for another reason by now than
// when the breaker opened.
func (t *Token) stays(err error) {
	var te *TokenError
	refused := errors.Is(err, ErrPINIncorrect)
	if !refused && !errors.As(err, &te) {
		return
	}
	t.breaker.mu.Lock()
	defer t.breaker.mu.Unlock()
	was := t.breaker.now.Load()
	if errors.Is(err, ErrTokenNotFound) && !errors.Is(was.cause, ErrTokenNotFound) {
		t.log.Error("the token is not where it was", "error", err)
	}
	if refused && !errors.Is(was.cause, ErrPINIncorrect) {
		t.log.Error("the token refuses the PIN, which is not tried again", "error", err)
	}
	t.breaker.now.Store(&trip{since: was.since, hang: was.hang, cause: err})
}

// close ends the time that the breaker was open.
func (b *breaker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.hangs = 0, 0
	b.doubt.Store(false)
	b.opening = make(chan struct{})
	b.now.Store(nil)
}

// Available reports, without calling the token, whether operations are given to
// it now; while it is false they answer ErrUnavailable at once.
func (t *Token) Available() bool { return t.breaker.now.Load() == nil }

// waitFor bounds how long a call may wait for a free session: as long as two calls
// take, or a fortieth of the time that its caller has. Less would refuse some where
// the token could serve all, since requests come in bursts. More would help nobody:
// what is beyond the token's capacity has to be refused at some time, and it had
// better be soon.
func (t *Token) waitFor(ctx context.Context) (most time.Duration, bounded bool) {
	const calls, share = 2, 40
	deadline, bounded := ctx.Deadline()
	return max(calls*time.Duration(t.sessions.service.Load()), time.Until(deadline)/share), bounded
}
