package keystore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// RSA pairs take a token seconds to generate, the longer ones minutes, and a call
// that has begun cannot be ended. Some tokens do nothing else meanwhile. So one pair
// at a time is generated in a token, and as long as that may take nobody who waits
// for the token counts as proof that it hangs. One that takes longer hangs.

const (
	generationPatience = 100 * time.Second // unless Options.GenerationPatience says otherwise
	mostOverdue        = 2                 // generations that hang, until no other is begun
)

// generations are those of a token.
type generations struct {
	patience time.Duration // fixed when the token is opened
	turn     chan struct{} // capacity 1: held by the one that may run, until it is over or overdue

	mu      sync.Mutex
	current *generation // one that is in the module and not overdue; guarded by mu
	overdue int         // those in the module that are; guarded by mu
}

func (g *generations) init(o *Options) {
	g.turn = make(chan struct{}, 1)
	if g.patience = o.GenerationPatience; g.patience <= 0 {
		g.patience = generationPatience
	}
}

// underWay reports whether the token may be busy with a pair, so that it tells
// nothing if it does not answer.
func (g *generations) underWay() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current != nil
}

// generation is one on its way: it waits for a session, or is in the module.
type generation struct {
	t     *Token
	timer *time.Timer // until it is overdue; nil before it begins; owned by the worker's goroutine

	// Guarded by generations.mu:
	worker  *worker   // nil before it begins
	since   time.Time // when it began
	inside  bool      // in the module
	overdue bool      // its turn is another's
}

// enterGeneration waits until no other pair is generated; end follows.
func (t *Token) enterGeneration(ctx context.Context) (*generation, error) {
	all := &t.generations
	if err := t.pass(ctx, all.turn); err != nil {
		return nil, err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.overdue >= mostOverdue {
		<-all.turn
		hung := fmt.Errorf("token %s: %w: %d key pairs have been in generation for more than %v", t.name, ErrUnavailable, all.overdue, all.patience)
		return nil, &RetryError{hung, mostRetry}
	}
	return &generation{t: t}, nil
}

// in returns run as what is in the module: it is overdue if it lasts too long.
func (g *generation) in(run func(*worker) error) func(*worker) error {
	return func(w *worker) error {
		g.begin(w)
		defer g.leave()
		return run(w)
	}
}

// generate is doThen for a generation.
func (t *Token) generate(ctx context.Context, g *generation, run func(*worker) error, drop func()) error {
	w, err := t.acquire(ctx)
	if err != nil {
		drop()
		return err
	}
	return t.awaitCall(ctx, w, &call{run: g.in(run), drop: drop, slow: g}, nil)
}

// leaveGeneration has a generation go on alone, whose caller waits no more.
func (t *Token) leaveGeneration(ctx context.Context, c *call) error {
	if c.state.CompareAndSwap(callRunning, callAbandoned) {
		return fmt.Errorf("token %s has not generated a key pair in time: %w", t.name, ctx.Err())
	}
	<-c.done
	return c.err
}

func (g *generation) begin(w *worker) {
	all := &g.t.generations
	all.mu.Lock()
	defer all.mu.Unlock()
	g.worker, g.since, g.inside = w, time.Now(), true
	if g.overdue { // the attempt before was, on a session that the token lost
		return
	}
	all.current = g
	g.timer = time.AfterFunc(all.patience, g.expire)
}

// expire notes that the generation hangs, unless it has left the module. It goes on,
// since nothing can end it, and what it makes is of use whenever it comes.
func (g *generation) expire() {
	all := &g.t.generations
	all.mu.Lock()
	if !g.inside || g.overdue {
		all.mu.Unlock()
		return
	}
	g.overdue, all.current = true, nil
	all.overdue++
	<-all.turn
	g.t.countStuck(g.worker, 1)
	since := g.since
	all.mu.Unlock()
	g.t.log.Error("the generation of a key pair hangs in the module", "since_ms", time.Since(since).Milliseconds())
	g.t.hung(since)
}

func (g *generation) leave() {
	if g.timer != nil {
		g.timer.Stop()
	}
	all := &g.t.generations
	all.mu.Lock()
	defer all.mu.Unlock()
	g.inside = false
	if all.current == g {
		all.current = nil
	}
}

// end gives back the turn, if the generation has it still. It will not begin again.
func (g *generation) end() {
	all := &g.t.generations
	all.mu.Lock()
	defer all.mu.Unlock()
	if !g.overdue {
		<-all.turn
		return
	}
	all.overdue--
	g.t.countStuck(g.worker, -1)
}
