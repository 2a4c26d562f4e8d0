package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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
//
// A token that has lost sight of its keys (see absence.go) needs a fresh view: its
// module is initialized again, once its storage can be read as far as hyok can know.
// For a module that goes on to see nothing otherwise, SoftHSM2, that is done even while
// other tokens of it serve: their calls wait for that moment, and their sessions are
// opened again. What the fresh view lacks is believed to be gone only once the token
// has proven that it sees its objects, and if it is more than one key, once several
// views have lacked the same for a while.
const (
	reviveEvery    = 100 * time.Millisecond
	resetEvery     = 500 * time.Millisecond
	revivePatience = 500 * time.Millisecond // with the first test
	mostPatience   = 30 * time.Second       // or a hundredth of the time that nothing has returned
	patienceShare  = 100
	killPatience   = 2 * time.Second // with a module in a process of its own, also as it starts; doubled each time
	mostKillWait   = 10 * time.Second
	mostRenewal    = 4 * time.Second
	idleAfter      = time.Second // without a good call
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

	vanished bool                // the token has lost sight of its keys
	resets   uint64              // module.resets when the token was last tried
	renewal  time.Duration       // until the module is started anew again for a fresh view
	missing  map[string][]uint32 // what the last fresh view lacked
	since    time.Time           // when one has first lacked the same
}

// revive tries until the token is back or closed, and then closes the breaker.
func (t *Token) revive(cause *trip) {
	r := &revival{
		t: t, patience: revivePatience, kill: killPatience, start: killPatience, moved: cause.since,
		vanished: errors.Is(cause.cause, errVanished), resets: t.module.resets.Load(), renewal: resetEvery,
	}
	err := cause.cause
	for {
		if err = r.attempt(cause, err); err == nil {
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

// attempt tries once whether the token is back, after err.
func (r *revival) attempt(cause *trip, err error) error {
	if r.vanished {
		if away, _ := r.t.housing.check(); away != nil {
			return fmt.Errorf("%w: %w", errVanished, away) // whatever the module shows is worth nothing
		}
		r.renew()
	} else if !cause.hang || r.failures > 0 {
		r.repair(err)
	}
	if err := r.test(); err != nil || !r.vanished {
		return err
	}
	return r.view()
}

// renew has the module start anew for a fresh view, unless that was done since the
// token was last tried.
func (r *revival) renew() {
	if was := r.resets; was != r.t.module.resets.Load() || time.Since(r.reset) < r.renewal {
		r.resets = r.t.module.resets.Load()
		return
	}
	if !r.reset.IsZero() {
		r.renewal = min(2*r.renewal, mostRenewal)
	}
	r.restart(false)
	r.resets = r.t.module.resets.Load()
}

// view looks at the token as it shows itself now, and believes what it does not see
// to be gone if the token proves that it sees its objects.
func (r *revival) view() error {
	t := r.t
	ctx, cancel := context.WithTimeout(t.background, scanTimeout)
	defer cancel()
	l, err := t.lookAnyway(ctx)
	if err != nil {
		return err
	}
	t.index.mu.Lock()
	p := &t.index.presence
	missing, hadProbe := p.lacks(l), p.had[probeLabel] != nil
	t.index.mu.Unlock()
	if len(missing) == 0 && (hadProbe || !t.backgrounded) {
		return r.accept(l)
	}
	if err := t.sameLabel(); err != nil {
		return err
	}
	err = t.checkStorage() // before the proof, so that it holds no shorter
	hidden := err != nil
	if !hidden {
		err = t.prove(ctx, t.adminAnyway)
	}
	switch {
	case err == nil || !hidden && t.index.mayBeBare(err, len(missing) == 0):
		return r.acceptSteady(ctx, missing)
	case (hidden || failsToMake(err)) && r.serves(missing, l):
		t.index.mu.Lock()
		defer t.index.mu.Unlock()
		t.leaveInDoubt(l, err)
		p.viewed = l.epoch
		if !hidden { // else the next one is due when all can be read
			p.again, p.pause = t.clock()+p.pause, min(2*p.pause, mostAgain)
		}
		return nil
	}
	return fmt.Errorf("%w: %w", errVanished, err)
}

// serves reports whether a view shows so much of what was there that it had better be
// served, though the token cannot prove that the rest is gone.
func (r *revival) serves(missing map[string][]uint32, l *look) bool {
	r.t.index.mu.Lock()
	defer r.t.index.mu.Unlock()
	return len(l.has) > 0 && !r.t.index.presence.vanished(missing)
}

// acceptSteady accepts a fresh view that lacks something, by another look. If it lacks
// more than one key, it must have lacked the same for a while: they may be on their way
// back one by one.
func (r *revival) acceptSteady(ctx context.Context, missing map[string][]uint32) error {
	same := maps.EqualFunc(missing, r.missing, slices.Equal)
	if !same || r.missing == nil {
		r.missing, r.since = missing, time.Now()
	}
	if len(missing) > 1 && time.Since(r.since) < steadyTime {
		return fmt.Errorf("%w: of %d it is looked again whether they are gone", errVanished, len(missing))
	}
	l, err := r.t.lookAnyway(ctx)
	if err != nil {
		return err
	}
	r.t.index.mu.Lock()
	again := r.t.index.presence.lacks(l)
	r.t.index.mu.Unlock()
	if !maps.EqualFunc(missing, again, slices.Equal) && len(again) > 0 {
		return fmt.Errorf("%w: two looks find different ones", errVanished)
	}
	return r.accept(l)
}

func (r *revival) accept(l *look) error {
	x := &r.t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	r.t.accept(l)
	x.presence.viewed = l.epoch
	return nil
}

// sameLabel returns an error unless the token still has the label that it was opened
// with. That it has its serial number is known of each session.
func (t *Token) sameLabel() error {
	t.module.calls.RLock()
	defer t.module.calls.RUnlock()
	slot := uint(t.place.slot.Load())
	ti, err := t.module.ctx.GetTokenInfo(slot)
	if err != nil {
		return t.callError("C_GetTokenInfo", err)
	}
	if label := tokenInfo(slot, ti).Label; label != t.info.Label {
		return fmt.Errorf("%w: it is labelled %s now and was %s", errVanished, printable(label), printable(t.info.Label))
	}
	return nil
}

// lookAnyway is look while the breaker is open.
func (t *Token) lookAnyway(ctx context.Context) (*look, error) {
	if err := t.passUnless(ctx, t.gate.passes, nil); err != nil {
		return nil, err
	}
	w, err := t.spareWorker()
	if err != nil {
		t.leaveSearch()
		return nil, err
	}
	var l *look
	err = t.awaitCall(ctx, w, &call{looks: true, drop: t.leaveSearch, run: func(w *worker) error {
		found, err := w.look()
		if err == nil {
			l = found
		}
		return err
	}}, nil)
	if w.kind != pooledWorker {
		close(w.calls)
	}
	if err != nil {
		return nil, err // the call may still write to l
	}
	return l, nil
}

// adminAnyway is admin while the breaker is open.
func (t *Token) adminAnyway(ctx context.Context, run func(*worker) error) error {
	if err := t.enterChangeUnless(ctx, nil); err != nil {
		return err
	}
	return t.adminInside(ctx, run, t.leaveChanged)
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
	if r.t.module.isolated() == nil || r.t.generations.underWay() {
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
	done, err := r.t.modules.reset(ctx, r.t, dead, r.vanished && r.t.profile.Latches)
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

// resetPatience bounds how long the calls of tokens that serve may wait for the module
// to start anew while others are inside.
const resetPatience = 100 * time.Millisecond

// reset has the module of a token start anew: by C_Finalize and C_Initialize, or
// C_Initialize alone where it is dead, which says that it is not initialized. That ends
// all sessions of everybody who uses it. So it is done only while every token of the
// module is out of service, unless it is forced, or the module dead, and while no call
// is inside. It reports whether it was done. A process of its own is ended, which ends
// the calls inside, and so is the next one if it does not start by the end of ctx.
func (ms *Modules) reset(ctx context.Context, t *Token, dead, force bool) (bool, error) {
	m := t.module
	initialize := m.ctx.Initialize
	if isolated := m.isolated(); isolated != nil {
		isolated.Kill()
		// Whoever is between two calls must not make the second one with his handles
		// in the next process, where they may be another's.
		m.calls.Lock()
		initialize = func() error { return initializeUntil(ctx, isolated) }
	} else {
		if !dead && !ms.mayFinalize(ctx, t, force) || !m.stopCalls(ctx) {
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

// stopCalls locks calls, for which those that come now wait, unless some stay inside.
func (m *module) stopCalls(ctx context.Context) bool {
	over := make(chan struct{})
	if !m.stopped.CompareAndSwap(nil, &over) {
		return false // somebody is at it
	}
	defer func() {
		m.stopped.Store(nil)
		close(over)
	}()
	for end := time.Now().Add(resetPatience); !m.calls.TryLock(); time.Sleep(100 * time.Microsecond) {
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
	}
	return true
}

// enter takes calls for reading, after whoever stops them.
func (m *module) enter() {
	if over := m.stopped.Load(); over != nil {
		<-*over
	}
	m.calls.RLock()
}

// mayFinalize reports whether a module may be finalized because a token is out of
// service: nobody uses it but tokens, of which, unless it is forced, none serves. Those
// that have done nothing lately are tried: they may be out of service too.
func (ms *Modules) mayFinalize(ctx context.Context, t *Token, force bool) bool {
	if !t.module.ours || !ms.onlyTokens(t.module) {
		return false
	}
	if force {
		return true
	}
	var tried sync.WaitGroup
	for _, other := range ms.usersOf(t.module) {
		if other != t && other.Available() && other.isIdle() {
			tried.Go(func() { other.tryIdle(ctx) })
		}
	}
	tried.Wait()
	return !slices.ContainsFunc(ms.usersOf(t.module), (*Token).Available)
}

// onlyTokens reports whether nobody uses the module but open tokens.
func (ms *Modules) onlyTokens(m *module) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return m.refs == len(m.users)
}

// isIdle reports whether nothing has succeeded lately.
func (t *Token) isIdle() bool { return t.clock()-time.Duration(t.sessions.good.Load()) > idleAfter }

// tryIdle opens the breaker of a token that fails its self-test, while another token of
// its module is out of service. If nobody asks it, that would take long to be noticed.
func (t *Token) tryIdle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, revivePatience)
	defer cancel()
	err := t.do(ctx, func(w *worker) error { return w.selfTest() })
	var failed *TokenError
	if !errors.As(err, &failed) {
		return
	}
	t.breaker.mu.Lock()
	defer t.breaker.mu.Unlock()
	t.trip(&trip{since: time.Now(), cause: err})
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
