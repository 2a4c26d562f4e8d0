package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// worker is one session together with the goroutine that alone calls the module
// with it. A PKCS#11 call cannot be cancelled: a caller whose context ends
// leaves the worker behind, which comes back to the pool when the module
// returns.
type worker struct {
	t       *Token
	session pkcs11.SessionHandle // owned by the goroutine
	ivs     []byte               // random bytes not yet used as IVs; owned by the goroutine
	calls   chan *call           // capacity 1; closed to end the goroutine
	ended   chan error           // receives what closing the session answered
	pooled  bool                 // fixed: goes back to the pool after each call
}

// call is one whole operation on its way to a worker.
type call struct {
	run   func(*worker) error
	err   error         // written by the worker before done
	done  chan struct{} // capacity 1
	state atomic.Int32  // callWaiting until either side moves it
}

const (
	callWaiting   int32 = iota
	callFinished        // by the worker: the caller takes the result
	callAbandoned       // by the caller: nobody takes the result
)

func newCall(run func(*worker) error) *call {
	return &call{run: run, done: make(chan struct{}, 1)}
}

// do runs one operation on a pooled session. When ctx ends first, do returns
// its error and run goes on alone: what run writes must not be read then, and
// what it reads must belong to it.
func (t *Token) do(ctx context.Context, run func(*worker) error) error {
	w, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	return t.await(ctx, w, run)
}

// admin runs one operation on a read-write session opened for it alone.
func (t *Token) admin(ctx context.Context, run func(*worker) error) error {
	w, err := t.newWorker(true, false)
	if err != nil {
		return err
	}
	err = t.await(ctx, w, run)
	close(w.calls)
	if ctx.Err() != nil {
		return err // the module still holds the session; the goroutine closes it
	}
	return errors.Join(err, <-w.ended)
}

func (t *Token) await(ctx context.Context, w *worker, run func(*worker) error) error {
	c := newCall(run)
	w.calls <- c
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(callWaiting, callAbandoned) {
		t.sessions.stuck.Add(1)
		return fmt.Errorf("token %s did not answer in time: %w", t.name, ctx.Err())
	}
	<-c.done
	return c.err
}

// acquire takes a free session, opens one while there are fewer than the limit,
// or waits.
func (t *Token) acquire(ctx context.Context) (*worker, error) {
	select {
	case w := <-t.idle:
		return w, nil
	default:
	}
	select {
	case <-t.background.Done():
		return nil, fmt.Errorf("token %s: %w", t.name, ErrClosed)
	default:
	}
	if n := t.sessions.open.Add(1); int(n) <= t.sessions.limit {
		w, err := t.newWorker(false, true)
		if err != nil {
			t.sessions.open.Add(-1)
			return nil, err
		}
		return w, nil
	}
	t.sessions.open.Add(-1)
	select {
	case w := <-t.idle:
		return w, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("token %s: %w of %d: %w", t.name, ErrBusy, t.sessions.limit, ctx.Err())
	}
}

func (t *Token) newWorker(readWrite, pooled bool) (*worker, error) {
	s, err := t.openSession(readWrite)
	if err != nil {
		return nil, err
	}
	w := &worker{t: t, session: s, calls: make(chan *call, 1), ended: make(chan error, 1), pooled: pooled}
	go w.serve()
	return w, nil
}

// serve is the worker's goroutine.
func (w *worker) serve() {
	alive := true
	for c := range w.calls {
		err := c.run(w)
		broken := w.breaks(err)
		w.t.sessions.calls.Add(1)
		if broken {
			w.t.sessions.failures.Add(1)
		}
		if broken && w.pooled {
			w.finish(c, err)
			if alive = w.reopen(); !alive {
				break
			}
			w.t.idle <- w
			continue
		}
		if w.pooled {
			w.t.idle <- w // before the answer, so that the caller's next call finds it
		}
		w.finish(c, err)
	}
	clear(w.ivs)
	if !alive {
		w.t.sessions.open.Add(-1)
		return
	}
	w.ended <- w.t.callError("C_CloseSession", w.t.module.ctx.CloseSession(w.session))
}

func (w *worker) finish(c *call, err error) {
	c.err = err
	if !c.state.CompareAndSwap(callWaiting, callFinished) {
		w.t.sessions.stuck.Add(-1)
		w.t.log.Warn("a call that nobody waited for any more has returned", "error", err)
		return
	}
	c.done <- struct{}{}
}

// reopen replaces a session that may be unusable. If that fails the worker ends
// and a later acquire tries again.
func (w *worker) reopen() bool {
	// The session may be gone already: then closing it fails, and that is all.
	_ = w.t.module.ctx.CloseSession(w.session)
	s, err := w.t.openSession(false)
	if err != nil {
		w.t.log.Error("a session was lost and cannot be opened again", "error", err)
		return false
	}
	w.session = s
	return true
}

// close ends an idle worker and its session.
func (w *worker) close() error {
	close(w.calls)
	err := <-w.ended
	w.t.sessions.open.Add(-1)
	return err
}

// breaks reports whether err makes the session doubtful: any answer of the
// module that is not plainly about the caller's key, input or template.
func (w *worker) breaks(err error) bool {
	var te *TokenError
	if !errors.As(err, &te) {
		return false
	}
	return !isCode(te.Err,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_SESSION_READ_ONLY)
}

// fail names the PKCS#11 function that answered err.
func (w *worker) fail(call string, err error) error { return w.t.callError(call, err) }
