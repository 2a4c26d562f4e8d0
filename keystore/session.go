package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// worker is one session together with the goroutine that alone calls the module
// with it. A PKCS#11 call cannot be cancelled: a caller whose context ends
// leaves the worker behind, which comes back to the pool when the module
// returns. Opening and closing the session are such calls too, so the worker
// does them, and one whose session cannot be opened stays in the pool: the next
// call with it tries again.
type worker struct {
	t       *Token
	session pkcs11.SessionHandle // valid while open; owned by the goroutine
	issue   uint64               // of the session, see handles; owned by the goroutine
	open    bool                 // owned by the goroutine
	// doubtful: a call with the session failed, and not by its caller's fault; owned
	// by the goroutine
	doubtful bool
	ivs      []byte       // random bytes not yet used as IVs; owned by the goroutine
	calls    chan *call   // capacity 1; closed to end the goroutine
	ended    chan error   // receives what closing the session answered; capacity 1
	kind     workerKind   // fixed
	epoch    uint64       // sessionCount.losses when the session was opened; owned by the goroutine
	resets   uint64       // module.resets when the session was opened; owned by the goroutine
	over     *atomic.Bool // set when the session is closed; owned by the goroutine, not what it points to
}

// call is one whole operation on its way to a worker.
type call struct {
	run   func(*worker) error
	looks bool          // it is a search: that it succeeds does not say that keys can be used
	slow  *generation   // that it is; nil: none. How long it takes says nothing of the token
	drop  func()        // runs once, when run has ended for good or will not run
	err   error         // written by the worker before done
	begun time.Time     // written by the worker before callRunning
	done  chan struct{} // capacity 1
	state atomic.Int32  // callWaiting until either side moves it
}

const (
	callWaiting   int32 = iota
	callRunning         // in the module, as far as anybody knows
	callFinished        // by the worker: the caller takes the result
	callAbandoned       // by the caller: nobody takes the result
)

// do runs one operation on a pooled session. When the session turns out to be lost or
// doubtful, run runs once more on a new one, so it must be repeatable. When ctx ends
// first, do returns its error and run goes on alone: what run writes must not be read
// then, and what it reads must belong to it.
func (t *Token) do(ctx context.Context, run func(*worker) error) error {
	return t.doThen(ctx, run, func() {})
}

// doThen is do with a function that runs once, after run or in its place.
func (t *Token) doThen(ctx context.Context, run func(*worker) error, drop func()) error {
	w, err := t.acquire(ctx)
	if err != nil {
		drop()
		return err
	}
	return t.await(ctx, w, run, drop, nil)
}

// doSearch is do for what looks for objects, see gate.
func (t *Token) doSearch(ctx context.Context, run func(*worker) error) error {
	if err := t.enterSearch(ctx); err != nil {
		return err
	}
	w, err := t.acquire(ctx)
	if err != nil {
		t.leaveSearch()
		return err
	}
	return t.awaitCall(ctx, w, &call{run: run, drop: t.leaveSearch, looks: true}, nil)
}

// admin runs one operation that makes or changes objects, once, on a read-write
// session opened for it alone. No search runs beside it, see gate.
func (t *Token) admin(ctx context.Context, run func(*worker) error) error {
	return t.adminThen(ctx, run, func() {})
}

// adminThen is admin with a function that runs once, after run or in its place.
func (t *Token) adminThen(ctx context.Context, run func(*worker) error, drop func()) error {
	err := t.refusal()
	if err == nil {
		err = t.enterChange(ctx)
	}
	if err != nil {
		drop()
		return err
	}
	return t.adminInside(ctx, run, func() {
		drop()
		t.leaveChanged()
	})
}

// adminInside is admin for who has entered the gate, which leave leaves.
func (t *Token) adminInside(ctx context.Context, run func(*worker) error, leave func()) error {
	w, err := t.newWorker(adminWorker)
	if err != nil {
		leave()
		return err
	}
	err = t.await(ctx, w, run, leave, nil)
	close(w.calls)
	select {
	case closeErr := <-w.ended:
		return errors.Join(err, closeErr)
	case <-ctx.Done(): // the module still holds the session; the goroutine closes it
		return err
	}
}

// await has the worker's goroutine run the call, or that of a lane with the
// worker in its hands.
func (t *Token) await(ctx context.Context, w *worker, run func(*worker) error, drop func(), lanes chan<- job) error {
	return t.awaitCall(ctx, w, &call{run: run, drop: drop}, lanes)
}

func (t *Token) awaitCall(ctx context.Context, w *worker, c *call, lanes chan<- job) error {
	c.done = make(chan struct{}, 1)
	if lanes != nil {
		lanes <- job{w, c} // there is room for all workers
	} else {
		w.calls <- c
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(callWaiting, callAbandoned) {
		return fmt.Errorf("token %s: %w: %w", t.name, ErrBusy, ctx.Err())
	}
	if c.slow != nil {
		return t.leaveGeneration(ctx, c)
	}
	// Counted first: the worker takes it back as soon as it sees the state.
	t.countStuck(w, 1)
	if c.state.CompareAndSwap(callRunning, callAbandoned) {
		if lanes != nil {
			t.start(t.serveLane) // in the place of the one that hangs
		}
		t.hung(c.begun)
		return fmt.Errorf("token %s did not answer in time: %w", t.name, ctx.Err())
	}
	t.countStuck(w, -1)
	<-c.done
	return c.err
}

// countStuck counts a call that nobody waits for any more, or that has returned.
// Its session is in quarantine: while it is, there may be another in its place.
func (t *Token) countStuck(w *worker, n int32) {
	t.sessions.stuck.Add(n)
	switch w.kind {
	case pooledWorker:
		t.sessions.stuckPooled.Add(n)
	case keeperWorker:
		t.sessions.stuckKeepers.Add(n)
	case adminWorker, probeWorker: // of one caller
	}
}

// acquire takes a free worker, makes one while there are fewer than the limit,
// or waits.
func (t *Token) acquire(ctx context.Context) (*worker, error) {
	if t.background.Err() != nil {
		return nil, t.closedError()
	}
	if err := t.refusal(); err != nil {
		return nil, err
	}
	if w, err := t.freeWorker(); w != nil || err != nil {
		return w, err
	}
	return t.waitIdle(ctx)
}

// freeWorker returns a worker of the pool that is free or new, nil if there is none.
func (t *Token) freeWorker() (*worker, error) {
	select {
	case w := <-t.idle:
		return w, nil
	default:
		return t.newWorker(pooledWorker)
	}
}

// waitIdle waits for a worker as long as waitFor says, or as ctx lasts if nothing
// returns meanwhile: then the token is not crowded, it hangs.
func (t *Token) waitIdle(ctx context.Context) (*worker, error) {
	var over <-chan time.Time
	most, bounded := t.waitFor(ctx)
	if bounded {
		timer := time.NewTimer(most)
		defer timer.Stop()
		over = timer.C
	}
	calls, opened := t.sessions.calls.Load(), t.breaker.opened()
	for {
		select {
		case w := <-t.idle:
			return w, nil
		case <-opened:
			return nil, t.refused()
		case <-over:
			if t.sessions.calls.Load() != calls {
				return nil, &RetryError{fmt.Errorf("token %s: %w of %d within %v", t.name, ErrBusy, t.sessions.limit, most), max(most, leastRetry)}
			}
			over = nil
		case <-t.background.Done():
			return nil, t.closedError()
		case <-ctx.Done():
			return nil, fmt.Errorf("token %s: %w of %d: %w", t.name, ErrBusy, t.sessions.limit, ctx.Err())
		}
	}
}

// workerKind says what a worker is for.
type workerKind int

const (
	pooledWorker workerKind = iota // for whoever comes
	adminWorker                    // for one caller who makes or changes token objects
	keeperWorker                   // for the session objects of a vault
	probeWorker                    // for what tries whether the token is back
)

// newWorker makes a worker; nil if there are enough in the pool.
func (t *Token) newWorker(kind workerKind) (*worker, error) {
	pooled := kind == pooledWorker
	w := &worker{t: t, calls: make(chan *call, 1), ended: make(chan error, 1), kind: kind}
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	switch {
	case t.life.closed:
		return nil, t.closedError()
	case pooled && t.life.workers >= t.sessions.allowed():
		return nil, nil
	case pooled:
		t.life.workers++
	}
	t.life.running.Go(w.serve)
	return w, nil
}

// serve is the worker's goroutine.
func (w *worker) serve() {
	for c := range w.calls {
		w.handle(c)
	}
	clear(w.ivs)
	w.t.module.calls.RLock()
	defer w.t.module.calls.RUnlock()
	w.ended <- w.closeSession()
}

// handle runs one call to its end and gives the worker back to the pool. It
// reports whether the caller has stopped waiting while the call ran.
func (w *worker) handle(c *call) (abandoned bool) {
	c.begun = time.Now()
	if !c.state.CompareAndSwap(callWaiting, callRunning) {
		c.drop()
		w.release()
		return false
	}
	err := w.perform(c)
	c.drop()
	w.t.sessions.calls.Add(1)
	if w.breaks(err) {
		w.t.sessions.failures.Add(1)
		w.failed(err)
		abandoned = w.finish(c, err)
		w.doubtful = true
		w.release()
		return abandoned
	}
	if !c.looks && !isAnswer(err) {
		w.t.succeeded()
		w.t.sessions.good.Store(int64(c.begun.Sub(w.t.epoch)))
		if c.slow == nil {
			w.t.sessions.took(w.kind, time.Since(c.begun))
		}
	}
	if c.state.Load() == callAbandoned {
		abandoned = w.finish(c, err)
		w.release()
		return abandoned
	}
	w.release() // before the answer, so that the caller's next call finds it
	return w.finish(c, err)
}

// release gives the worker back to the pool, or ends it if it has been replaced
// while it hung.
func (w *worker) release() {
	if w.kind != pooledWorker {
		return
	}
	t := w.t
	t.life.mu.Lock()
	surplus := !t.life.closed && t.life.workers > t.sessions.allowed()
	if surplus {
		t.life.workers--
	}
	t.life.mu.Unlock()
	if surplus {
		close(w.calls)
		return
	}
	t.idle <- w
}

// perform runs a call, and once more on a new session if the one at hand turns out
// to be lost or doubtful. What makes or changes objects is begun once only.
func (w *worker) perform(c *call) error {
	w.t.module.enter()
	defer w.t.module.calls.RUnlock()
	for again := false; ; again = true {
		err := w.openSession() // which the token may lose again before it is logged in
		begun := err == nil
		if begun {
			err = c.run(w)
		}
		if isSessionLost(err) {
			w.t.sessions.losses.CompareAndSwap(w.epoch, w.epoch+1)
		}
		repeatable := !begun || w.kind == pooledWorker
		if again || !repeatable || !w.breaks(err) || isModuleGone(err) || errors.Is(err, ErrPINIncorrect) || c.state.Load() != callRunning {
			return w.outOfReach(err, begun && again)
		}
		w.t.log.Warn("a session was lost or is doubtful, and is opened again", "error", err)
		w.doubtful = true
	}
}

// outOfReach adds to a failure that the token cannot be reached at all, if no session
// with it can be opened: then it is not about what was asked. opened: one was, just
// before.
func (w *worker) outOfReach(err error, opened bool) error {
	if opened || !w.breaks(err) || !isAway(err) {
		return err
	}
	w.doubtful = true
	if !isAway(w.openSession()) {
		return err
	}
	return &awayError{err}
}

// awayError is a failure of a token that cannot be reached: it is ErrUnavailable as well.
type awayError struct{ err error }

func (e *awayError) Error() string   { return e.err.Error() }
func (e *awayError) Unwrap() []error { return []error{ErrUnavailable, e.err} }

// isAway reports whether err may say that the token is not there.
func isAway(err error) bool {
	return (isAnswer(err) || isModuleGone(err) || errors.Is(err, ErrTokenNotFound)) && !errors.Is(err, ErrPINIncorrect) && !isCode(err, pkcs11.CKR_SESSION_COUNT)
}

// openSession opens the session unless it is open. One that was opened before
// others found out that the token had lost its sessions is not to be trusted. A
// doubtful one is closed after the new one was opened: with its last session an
// application loses its login and all handles.
func (w *worker) openSession() error {
	if w.open && !w.doubtful && w.epoch == w.t.sessions.losses.Load() {
		return nil
	}
	if w.open {
		old, issue, resets := w.session, w.issue, w.resets
		w.leaveSession()
		defer func() {
			if resets == w.t.module.resets.Load() { // else its handle may be another's
				_ = w.t.closeSession(old, issue) // doubtful as it is, that may fail
			}
		}()
	}
	w.epoch, w.resets = w.t.sessions.losses.Load(), w.t.module.resets.Load()
	s, issue, err := w.t.openSession(w.kind == adminWorker, w.epoch)
	if err != nil {
		return err
	}
	w.session, w.issue, w.open, w.doubtful, w.over = s, issue, true, false, new(atomic.Bool)
	w.t.sessions.open.Add(1)
	return nil
}

func (w *worker) closeSession() error {
	if !w.open {
		return nil
	}
	w.leaveSession()
	if w.resets != w.t.module.resets.Load() {
		return nil // it went with all others, and its handle may be another's
	}
	return w.t.closeSession(w.session, w.issue)
}

// leaveSession has the worker do without its session.
func (w *worker) leaveSession() {
	w.open = false
	w.over.Store(true)
	w.t.sessions.open.Add(-1)
}

func (w *worker) finish(c *call, err error) (abandoned bool) {
	c.err = err
	if !c.state.CompareAndSwap(callRunning, callFinished) {
		if c.slow == nil {
			w.t.countStuck(w, -1)
		}
		w.t.log.Warn("a call that nobody waited for any more has returned", "error", err)
		return true
	}
	c.done <- struct{}{}
	return false
}

// breaks reports whether err makes the session doubtful: any answer of the
// module that is not plainly about the caller's key, input or template.
func (w *worker) breaks(err error) bool {
	var te *TokenError
	if !errors.As(err, &te) {
		return errors.Is(err, ErrPINIncorrect)
	}
	return !isCode(te.Err,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID, pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE,
		pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_DOMAIN_PARAMS_INVALID,
		pkcs11.CKR_CURVE_NOT_SUPPORTED, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_SESSION_READ_ONLY)
}

// fail names the PKCS#11 function that answered err.
func (w *worker) fail(call string, err error) error { return w.t.callError(call, err) }
