package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// HealthState is what a probe found.
type HealthState int

const (
	// Unavailable: the token does not work, or nobody knows whether it does.
	Unavailable HealthState = iota
	// Degraded: the token works, but slowly, or calls to it failed or hang.
	Degraded
	// Active: the token works.
	Active
)

func (s HealthState) String() string {
	switch s {
	case Active:
		return "active"
	case Degraded:
		return "degraded"
	}
	return "unavailable"
}

// Health is the outcome of the newest probe of a token.
type Health struct {
	State   HealthState
	Checked time.Time     // when the probe began; zero: none has ended yet
	Latency time.Duration // of one encryption and one decryption
	Reason  string        // why the state is not Active
}

const (
	probeLabel   = reservedPrefix + "probe" // of the key that is only probed with
	probeTimeout = 5 * time.Second
	probeMaxAge  = time.Minute            // XKS: a cached health must not be older
	probeSlow    = 100 * time.Millisecond // unless Options.SlowProbe says otherwise
)

// healthState holds the newest probe.
type healthState struct {
	slow   time.Duration            // from then on a probe means Degraded; fixed
	key    atomic.Pointer[probeKey] // nil: not known
	warned atomic.Bool              // that there is none and none can be made

	mu       sync.Mutex
	last     Health // guarded by mu
	failures uint64 // Stats.Failures at the last probe; guarded by mu
}

// probeKey is the token object that is probed with.
type probeKey struct {
	handle pkcs11.ObjectHandle
	epoch  uint64 // sessionCount.losses when it was seen
}

// Health returns the newest probe's outcome without calling the token. One
// older than a minute counts as Unavailable: then the probe itself hangs.
func (t *Token) Health() Health {
	t.health.mu.Lock()
	defer t.health.mu.Unlock()
	h := t.health.last
	switch refused := t.refusal(); {
	case refused != nil:
		h.State, h.Reason = Unavailable, refused.Error()
	case h.Checked.IsZero():
		return Health{Reason: "no probe has ended yet"}
	case time.Since(h.Checked) > probeMaxAge:
		h.State, h.Reason = Unavailable, "the last probe is older than a minute"
	}
	return h
}

// keepHealth probes the token again and again.
func (t *Token) keepHealth(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		t.Probe(ctx)
		t.lookAtRoots(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Probe encrypts and decrypts with a key of its own in the token and returns
// what that says of the token's health.
func (t *Token) Probe(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	begin := time.Now()
	t.haveProbeKey(ctx)
	ready := time.Now() // to find or make the key takes longer than to use it
	err := t.do(ctx, func(w *worker) error { return w.selfTest() })
	took := time.Since(ready)
	t.haveProbeKey(ctx) // if it was gone
	return t.judge(begin, took, err)
}

// haveProbeKey finds the probe key or makes it, if it is not known. That one which was
// there cannot be made again says that the token is sick.
func (t *Token) haveProbeKey(ctx context.Context) {
	if t.health.key.Load() != nil {
		return
	}
	err := t.ensureProbeKey(ctx)
	switch {
	case err == nil:
	case failsToMake(err) && (errors.Is(err, errUnseen) || t.index.mayDoubt(t.clock())):
		_ = t.sicken("%w", err) // Health tells
	case !t.health.warned.Swap(true):
		t.log.Warn("the token has no key for health probes and none can be made: probing with a session key instead", "error", err)
	}
}

func (t *Token) judge(begin time.Time, took time.Duration, err error) Health {
	h := Health{State: Active, Checked: begin, Latency: took}
	stats := t.Stats()
	t.health.mu.Lock()
	defer t.health.mu.Unlock()
	failed := stats.Failures - t.health.failures
	t.health.failures = stats.Failures
	switch {
	case errors.Is(err, context.DeadlineExceeded) && t.generations.underWay():
		h.State, h.Reason = Degraded, "it generates a key pair and answers nothing else meanwhile"
	case err != nil:
		h.State, h.Reason = Unavailable, err.Error()
	case stats.Stuck > 0:
		h.State, h.Reason = Degraded, fmt.Sprintf("%d calls hang in the module", stats.Stuck)
	case failed > 0:
		h.State, h.Reason = Degraded, fmt.Sprintf("%d calls failed since the last probe", failed)
	case took > t.health.slow:
		h.State, h.Reason = Degraded, fmt.Sprintf("the probe took %v", took.Round(time.Millisecond))
	}
	if was := t.health.last; was.State != h.State || was.Checked.IsZero() {
		t.log.Info("token health", "state", h.State.String(), "reason", h.Reason, "latency_us", took.Microseconds())
	}
	t.health.last = h
	return h
}

// ensureProbeKey finds the probe key or makes it, also in the place of one that
// was not finished.
func (t *Token) ensureProbeKey(ctx context.Context) error {
	find := func(w *worker) error {
		handles, err := w.findKeys(probeLabel)
		for _, h := range handles {
			if w.isLocal(h) || w.roundTrip(h) == nil {
				w.keepProbeKey(h)
				return nil
			}
		}
		return err
	}
	if err := t.doSearch(ctx, find); err != nil || t.health.key.Load() != nil {
		return err
	}
	return t.admin(ctx, t.makeProbeKey)
}

// makeProbeKey makes the probe key, and destroys those that were not finished.
func (t *Token) makeProbeKey(w *worker) error {
	handles, err := w.findKeys(probeLabel)
	if err != nil {
		return err
	}
	whole, err := w.removeHalf(handles)
	if err != nil {
		return err
	}
	if len(whole) > 0 { // made meanwhile
		w.keepProbeKey(whole[0])
		return nil
	}
	return w.makeProbe()
}

func (w *worker) keepProbeKey(h pkcs11.ObjectHandle) {
	w.t.health.key.Store(&probeKey{handle: h, epoch: w.epoch})
	w.t.noteOwn(probeLabel)
}

// selfTest has the token open what it sealed itself.
func (w *worker) selfTest() error {
	if k := w.t.health.key.Load(); k != nil {
		if k.epoch == w.epoch {
			if err := w.roundTrip(k.handle); !isHandleGone(err) {
				return err
			}
		}
		// It was deleted, or has another handle now: the next probe finds or makes one.
		w.t.health.key.CompareAndSwap(k, nil)
	}
	session, err := w.generate(aesTemplate(probeLabel, newMark(1), KeyUsage{Encrypt: true, Decrypt: true}, false, false))
	if err != nil {
		return err
	}
	return errors.Join(w.roundTrip(session), w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, session)))
}

func (w *worker) roundTrip(h pkcs11.ObjectHandle) error {
	text, aad := []byte("hyok health probe text"), []byte("hyok health probe data")
	sealed, err := w.seal(h, text, aad)
	if err != nil {
		return err
	}
	opened, err := w.unsealOnce(h, sealed, aad)
	switch {
	case isCode(err, w.t.profile.BadTag...):
		// %v: here the return value is not about a caller's input.
		return w.fail("C_Decrypt", fmt.Errorf("%w (%v)", errWrongAnswer, err))
	case err != nil:
		return err
	case !bytes.Equal(opened, text):
		return w.fail("C_Decrypt", errWrongAnswer)
	}
	return nil
}

// errWrongAnswer: the token computes wrongly. Nothing that it returns is to be used.
var errWrongAnswer = errors.New("it does not return what was encrypted")
