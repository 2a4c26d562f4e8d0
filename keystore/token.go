package keystore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Options says which token to open and how.
type Options struct {
	Name string                 // for errors, logs and metrics
	URI  URI                    // token and module
	PIN  func() (string, error) // asked at each login, so that no PIN stays in memory
	// PINFrom says that PIN reads what the URI points to: then the process of an
	// isolated module does it by itself, and no PIN is ever in this one.
	PINFrom *PINFromURI
	// Isolated: the module is loaded into a process of its own, see
	// Modules.Command.
	Isolated bool
	// ProvePIN has Open fail with ErrLoggedIn where this process is logged in to
	// the token already: it would accept any PIN then.
	ProvePIN bool
	// Late is told of a PIN that the token refused when nobody waited for the login
	// any more, so that it is not tried again; nil: nobody is told.
	Late     func(error)
	Profile  Profile
	Sessions int // limit; 0: the profile's, in any case at most the token's own
	Logger   *slog.Logger
	// Background starts what a long-lived process needs: the index is kept
	// fresh, hot keys get session copies, and a probe measures the health.
	Background bool
	// ProbeInterval is the time between two health probes; 0: 10 seconds.
	ProbeInterval time.Duration
	// GenerationPatience is how long an RSA pair may be generated before the call
	// counts as one that hangs; 0: 100 seconds.
	GenerationPatience time.Duration
	// SlowProbe is how long a probe may take of a token that is Active; 0: 100
	// milliseconds.
	SlowProbe time.Duration
}

// Token is an open, logged-in PKCS#11 token. Its methods are safe for
// concurrent use, and each returns when its context ends, whatever the module
// does.
type Token struct {
	name    string
	profile Profile
	log     *slog.Logger
	pin     func() (string, error)
	late    func(error) // see Options
	attempt *attempt    // by which it was opened
	modules *Modules
	module  *module
	info    TokenInfo // when it was opened; see place for where it is now
	place   place
	epoch   time.Time // base of the monotonic clock that leases use
	housing housing
	// backgrounded: Options.Background
	backgrounded bool
	life         lifetime
	// background is the life of the token, not of one call: stop ends it, and
	// with it the goroutines that nobody waits for.
	background context.Context
	stop       context.CancelFunc

	lanes    chan job     // operations with keys, for the goroutines of the lanes; nil: no lanes
	idle     chan *worker // workers that are free; buffered for all of them
	gate     gate
	sessions sessionCount
	breaker  breaker
	login    loginState
	index    keyIndex
	copies   copyKeeper
	health   healthState

	mechanisms    atomic.Pointer[mechanismList] // nil: not read yet
	fullTemplates atomic.Bool                   // see shape.unwrapTemplates
	oaep          oaepMemory
	generations   generations
}

// lifetime keeps the module loaded while anything of the token may call it.
type lifetime struct {
	mu      sync.Mutex
	closed  bool           // nothing may start any more; guarded by mu
	vaults  []*Vault       // opened and not closed; guarded by mu
	workers int            // of the pool; guarded by mu
	running sync.WaitGroup // of all goroutines; Add under mu and while not closed
	over    chan struct{}  // closed when the module was given up
	left    sync.Once      // that the token was left behind
	err     error          // of that; valid once over is closed
}

// Open opens the token that o.URI names and logs in to it.
func Open(ctx context.Context, ms *Modules, o Options) (*Token, error) {
	if err := o.URI.CheckToken(); err != nil {
		return nil, fmt.Errorf("token %s: %w", o.Name, err)
	}
	a, err := ms.left.attempt(o.URI)
	if err != nil {
		return nil, fmt.Errorf("token %s: %w", o.Name, err)
	}
	m, info, err := ms.acquireToken(ctx, &o, a)
	if err != nil {
		return nil, fmt.Errorf("token %s: %w", o.Name, err)
	}
	if err := o.Profile.check(info); err != nil {
		return nil, errors.Join(fmt.Errorf("token %s: %w", o.Name, err), ms.release(m))
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	t := &Token{
		name: o.Name, profile: o.Profile, log: o.Logger.With("token", o.Name), pin: o.PIN,
		late: o.Late, attempt: a, modules: ms, module: m, info: info, epoch: time.Now(), background: background, stop: stop,
	}
	t.life.over = make(chan struct{})
	t.login.prove = o.ProvePIN
	t.sessions.limit, t.sessions.spare = sessionLimit(o, info)
	t.idle = make(chan *worker, t.sessions.limit+int(t.sessions.spare))
	t.place.slot.Store(uint64(info.Slot))
	t.breaker.init()
	t.generations.init(&o)
	ms.enlist(m, t)
	t.startLanes()
	t.gate = m.gateOf(info.Slot)
	if t.health.slow = o.SlowProbe; t.health.slow <= 0 {
		t.health.slow = probeSlow
	}
	t.index.init()
	t.backgrounded = o.Background
	t.findHousing()
	// The first session proves the PIN before anything is served.
	if err := t.do(ctx, func(*worker) error { return nil }); err != nil {
		return nil, errors.Join(err, t.Close(ctx))
	}
	if o.Background {
		t.startBackground(o.ProbeInterval)
	}
	return t, nil
}

// sessionLimit is the least of what is configured and what the token allows,
// less those that the copy keeper, an administrator's call and a vault may need.
// spare is how many more there may be while as many hang.
func sessionLimit(o Options, info TokenInfo) (limit int, spare int32) {
	n := o.Sessions
	if n <= 0 {
		n = max(o.Profile.Sessions, 1)
	}
	reserved := 2 + uint(keeperLimit(info))
	switch {
	case info.MaxSessions == 0: // the token does not say
		return n, int32(n)
	case info.MaxSessions <= reserved:
		return 1, 0
	}
	allowed := int(info.MaxSessions - reserved)
	n = min(n, allowed)
	return n, int32(min(n, allowed-n))
}

func (t *Token) startBackground(probeInterval time.Duration) {
	ctx := t.background
	if probeInterval <= 0 {
		probeInterval = 10 * time.Second
	}
	t.start(func() { t.keepIndex(ctx) })
	t.start(func() { t.keepHealth(ctx, probeInterval) })
	if t.profile.SessionCopies {
		t.start(func() { t.keepCopies(ctx) })
	}
}

// start runs f in a goroutine that Close waits for; it returns false, and does
// nothing, once the token is closed.
func (t *Token) start(f func()) bool {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	if t.life.closed {
		return false
	}
	t.life.running.Go(f)
	return true
}

func (t *Token) closedError() error { return fmt.Errorf("token %s: %w", t.name, ErrClosed) }

// Name returns the configured name.
func (t *Token) Name() string { return t.name }

// Info returns what the token said of itself when it was opened, and the slot that
// it is in now.
func (t *Token) Info() TokenInfo {
	info := t.info
	info.Slot = uint(t.place.slot.Load())
	return info
}

// Close ends the background work, closes every session and gives up the module.
// A call that hangs in the module past the end of ctx makes Close return an
// error; the module stays loaded until that call has returned, since to unload
// it under a running call would crash the process. Close may be called again to
// wait for that.
func (t *Token) Close(ctx context.Context) error {
	t.life.mu.Lock()
	first := !t.life.closed
	t.life.closed = true
	t.life.mu.Unlock()
	t.stop()
	if first {
		go t.shutDown()
	}
	select {
	case <-t.life.over:
		return t.life.err
	case <-ctx.Done():
		if isolated := t.module.isolated(); isolated != nil {
			killUntil(t.life.over, isolated) // which ends what hangs inside
			return t.life.err
		}
		t.life.left.Do(t.leaveBehind)
		return fmt.Errorf("token %s: calls still wait for the module: %w", t.name, ctx.Err())
	}
}

// shutDown ends the workers as they become free and then gives up the module.
func (t *Token) shutDown() {
	t.life.mu.Lock()
	workers, vaults := t.life.workers, t.life.vaults // they stay so, since the token is closed
	t.life.mu.Unlock()
	for _, v := range vaults {
		v.keepers.end()
	}
	var errs []error
	for range workers {
		w := t.nextIdle()
		close(w.calls)
		errs = append(errs, <-w.ended)
	}
	t.life.running.Wait()
	t.modules.dismiss(t.module, t)
	t.life.err = errors.Join(append(errs, t.modules.release(t.module))...)
	close(t.life.over)
}

// clock is the monotonic time since the token was opened.
func (t *Token) clock() time.Duration { return time.Since(t.epoch) }

// openSession opens a session and makes sure that the user is logged in, which
// PKCS#11 counts per process and token (v2.40, section 5.6). epoch is that of
// sessionCount.losses: at each loss the token may have moved.
func (t *Token) openSession(readWrite bool, epoch uint64) (s pkcs11.SessionHandle, issue uint64, err error) {
	slot, err := t.locateToken(epoch)
	if err != nil {
		return 0, 0, err
	}
	flags := uint(pkcs11.CKF_SERIAL_SESSION)
	if readWrite || t.profile.ReadWriteOnly {
		flags |= pkcs11.CKF_RW_SESSION
	}
	if s, err = t.module.ctx.OpenSession(slot, flags); err != nil {
		return 0, 0, t.callError("C_OpenSession", err)
	}
	issue = t.module.handles.issue(s)
	if err := t.ensureLogin(s); err != nil {
		return 0, 0, errors.Join(err, t.closeSession(s, issue))
	}
	return s, issue, nil
}

// closeSession closes a session; one that the token has lost is closed, and its handle
// may be that of another one by now.
func (t *Token) closeSession(s pkcs11.SessionHandle, issue uint64) error {
	if !t.module.handles.end(s, issue) {
		return nil
	}
	err := t.module.ctx.CloseSession(s)
	if isModuleGone(err) || isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED) {
		return nil
	}
	return t.callError("C_CloseSession", err)
}

func (t *Token) callError(call string, err error) error {
	if err == nil {
		return nil
	}
	var part *cryptoki.CallError
	if errors.As(err, &part) {
		call, err = part.Call, part.Err
	}
	return &TokenError{Token: t.name, Call: call, Err: err}
}

// Stats is a snapshot of a token's inner figures, for metrics.
type Stats struct {
	Sessions     int           // open now, of the pool
	SessionLimit int           // at most
	Busy         int           // in a call now
	Stuck        int           // of these: abandoned by their caller, whose context ended
	Keys         int           // external key ids in the index
	Unread       int           // objects that the last searches could not read
	Copies       int           // session copies alive
	CopyAge      time.Duration // longest time that a copy ever went without its original being checked
	Calls        uint64        // whole operations done
	Failures     uint64        // of these: failed by the token's fault
	Trips        uint64        // how often the token was put out of service
	Resets       uint64        // how often its module was initialized again
}

// Stats returns the present figures.
func (t *Token) Stats() Stats {
	t.life.mu.Lock()
	workers := t.life.workers
	t.life.mu.Unlock()
	return Stats{
		Sessions: int(t.sessions.open.Load()), SessionLimit: t.sessions.limit, Busy: max(workers-len(t.idle), 0),
		Stuck: int(t.sessions.stuck.Load()), Keys: t.index.external(), Unread: t.unread(),
		Copies: int(t.copies.alive.Load()), CopyAge: time.Duration(t.copies.worstAge.Load()),
		Calls: t.sessions.calls.Load(), Failures: t.sessions.failures.Load(),
		Trips: t.breaker.trips.Load(), Resets: t.module.resets.Load(),
	}
}

// sessionCount counts sessions and calls. All fields but limit are updated
// without a lock.
type sessionCount struct {
	limit    int           // fixed when the token is opened
	spare    int32         // how many more there may be while as many hang; fixed likewise
	losses   atomic.Uint64 // how often all sessions were lost, as far as noticed
	open     atomic.Int32
	stuck    atomic.Int32
	calls    atomic.Uint64
	failures atomic.Uint64
	service  atomic.Int64 // nanoseconds that a call of the pool takes, smoothed
	good     atomic.Int64 // token clock when the last good call began

	stuckPooled, stuckKeepers atomic.Int32 // of those that are stuck
}

// allowed returns how many workers the pool may have: more while some hang.
func (c *sessionCount) allowed() int { return c.limit + int(min(c.stuckPooled.Load(), c.spare)) }

// took notes how long a call took.
func (c *sessionCount) took(kind workerKind, d time.Duration) {
	const smoothing = 8
	if kind == pooledWorker {
		was := c.service.Load() // that another call's note may be lost does no harm
		c.service.Store(was + (int64(d)-was)/smoothing)
	}
}
