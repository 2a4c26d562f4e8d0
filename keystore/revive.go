package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// What brings a token back: one goroutine while its breaker is open. It tries the
// token's self-test on new sessions, ten times a second where the token fails. A
// test that hangs is left behind after a while, in case that only its session or
// connection is dead, each time after a longer one, since calls that hang cannot be
// ended and must stay few. Some modules notice that a token came back only after
// C_Finalize and C_Initialize: that is tried from the second failure on, where it
// disturbs nobody. A module in a process of its own is ended and started anew.
const (
	reviveEvery    = 100 * time.Millisecond
	resetEvery     = 500 * time.Millisecond
	revivePatience = 500 * time.Millisecond // with the first test
	mostPatience   = 30 * time.Second       // or a hundredth of the time that nothing has returned
	patienceShare  = 100
	killPatience   = 2 * time.Second // with a module in a process of its own, also as it starts; doubled each time
	mostKillWait   = 10 * time.Second
)

// revival is what revive knows of its attempts.
type revival struct {
	t        *Token
	failures int           // of tests, not counting those that hang
	patience time.Duration // with a test that hangs
	reset    time.Time     // of the module, the last time
	kill     time.Duration // how long a hanging process is borne with
	start    time.Duration // how long the next process may take to start
	moved    time.Time     // when something has last returned, or the process was last started
}

// revive tries until the token is back or closed, and then closes the breaker.
func (t *Token) revive(cause *trip) {
	r := &revival{t: t, patience: revivePatience, kill: killPatience, start: killPatience, moved: cause.since}
	err := cause.cause
	for {
		if !cause.hang || r.failures > 0 {
			r.repair(err)
		}
		if err = r.test(); err == nil {
			break
		}
		t.stays(err)
		select {
		case <-t.background.Done():
			return
		case <-t.breaker.wake:
		case <-time.After(reviveEvery):
		}
	}
	t.breaker.close()
	t.log.Info("the token is back", "after_ms", time.Since(cause.since).Milliseconds())
	t.Probe(t.background)
}

// test runs the self-test once, on a session that is opened for it.
func (r *revival) test() error {
	t := r.t
	ctx, cancel := context.WithTimeout(t.background, r.patience)
	defer cancel()
	w, err := t.spareWorker()
	if err != nil {
		return err
	}
	err = t.await(ctx, w, func(w *worker) error {
		w.doubtful = true // the session is of the time before
		if err := w.openSession(); err != nil {
			return err
		}
		return w.selfTest()
	}, func() {}, nil)
	if w.kind != pooledWorker {
		close(w.calls)
	}
	if ctx.Err() != nil && t.background.Err() == nil {
		r.hanging()
		return err
	}
	r.moved = time.Now()
	if err != nil {
		r.failures++
	}
	return err
}

// hanging is what follows a test that hangs.
func (r *revival) hanging() {
	r.patience = min(2*r.patience, max(mostPatience, time.Since(r.moved)/patienceShare))
	if r.t.module.isolated() == nil {
		return
	}
	r.patience = revivePatience // a process that hangs for good is ended, and its calls with it
	if time.Since(r.moved) < r.kill {
		return
	}
	r.kill = min(2*r.kill, mostKillWait)
	r.t.log.Error("the process of the module hangs and is ended", "hung_ms", time.Since(r.moved).Milliseconds())
	r.restart(true)
	r.moved = time.Now()
}

// repair has the module start anew where that may help.
func (r *revival) repair(cause error) {
	dead := isModuleGone(cause)
	soon := dead && r.failures < 3 // else it is started in vain
	if errors.Is(cause, ErrPINIncorrect) || !dead && r.failures < 2 || !soon && time.Since(r.reset) < resetEvery {
		return
	}
	r.restart(dead)
}

func (r *revival) restart(dead bool) {
	r.reset = time.Now()
	ctx, cancel := context.WithTimeout(r.t.background, r.start)
	defer cancel()
	done, err := r.t.modules.reset(ctx, r.t.module, dead)
	if ctx.Err() != nil {
		r.start = min(2*r.start, mostPatience)
	}
	switch {
	case err != nil:
		r.t.log.Error("the module could not be initialized again", "error", err)
	case done:
		r.t.log.Warn("the module was initialized again")
	}
}

// spareWorker returns a worker to try the token with: a free one of the pool, or
// one beside it.
func (t *Token) spareWorker() (*worker, error) {
	if w, err := t.freeWorker(); w != nil || err != nil {
		return w, err
	}
	return t.newWorker(probeWorker)
}

// isModuleGone reports whether err says that the module itself has to be started
// anew: nothing that is asked of it before can succeed.
func isModuleGone(err error) bool {
	var gone *cryptoki.GoneError
	return errors.As(err, &gone) || isCode(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

// reset has a module start anew: by C_Finalize and C_Initialize, or C_Initialize
// alone where it is dead, which says that it is not initialized. That ends all
// sessions of everybody who uses it. So it is done only while every token of the
// module is out of service, or the module dead, and while no call is inside. It
// reports whether it was done. A process of its own is ended, which ends the calls
// inside, and so is the next one if it does not start by the end of ctx.
func (ms *Modules) reset(ctx context.Context, m *module, dead bool) (bool, error) {
	initialize := m.ctx.Initialize
	if isolated := m.isolated(); isolated != nil {
		isolated.Kill()
		// Whoever is between two calls must not make the second one with his handles
		// in the next process, where they may be another's.
		m.calls.Lock()
		initialize = func() error { return initializeUntil(ctx, isolated) }
	} else {
		if !dead && (!m.ours || !ms.idle(m)) || !m.calls.TryLock() {
			return false, nil
		}
		if !dead {
			_ = m.ctx.Finalize() // C_Initialize tells whether it has helped
		}
	}
	defer m.calls.Unlock()
	switch err := initialize(); {
	case isCode(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED):
		return false, nil // nobody has lost anything
	case err != nil:
		return false, fmt.Errorf("initialize the PKCS#11 module %s again: %w", m.path, err)
	}
	m.resets.Add(1)
	for _, t := range ms.usersOf(m) {
		t.sessions.losses.Add(1)
	}
	return true, nil
}

// idle reports whether nobody uses the module but tokens that are out of service.
func (ms *Modules) idle(m *module) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for t := range m.users {
		if t.Available() {
			return false
		}
	}
	return m.refs == len(m.users)
}

func (ms *Modules) usersOf(m *module) []*Token {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	users := make([]*Token, 0, len(m.users))
	for t := range m.users {
		users = append(users, t)
	}
	return users
}
