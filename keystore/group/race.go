package group

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

const (
	minHedgeDelay = 5 * time.Millisecond
	maxHedgeDelay = 50 * time.Millisecond
	maxTry        = time.Second // for one member, while there are others
)

// contest is an operation that members do in turn, or at the same time where one is
// slow; the first decisive answer counts. Encrypting and decrypting are safe to
// repeat.
type contest[T any] struct {
	r      *request
	op     func(context.Context, *keystore.Key) (T, error)
	wipe   func(T) // of an answer that nobody gets
	ctx    context.Context
	cancel context.CancelFunc // calls off all members
	hedges sync.WaitGroup     // Add under mu and while not closed

	all []int // the members to try; fixed

	mu     sync.Mutex
	order  []int // members not yet tried; guarded by mu
	closed bool  // nobody else is asked; guarded by mu
	won    bool  // there is an answer; guarded by mu
	// Of the answer, or of the last member that failed; guarded by mu until all
	// have ended:
	out T
	err error
	by  *member
}

// race runs op in the members of order until one gives a decisive answer. When it
// returns, nobody uses what op refers to any more.
func race[T any](ctx context.Context, r *request, order []int, op func(context.Context, *keystore.Key) (T, error), wipe func(T)) (T, error) {
	c := &contest[T]{r: r, op: op, wipe: wipe, all: order, order: order}
	c.ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	c.trial(c.next)
	c.end(ctx)
	if c.by != nil {
		r.key.by.Store(c.by)
	}
	return c.out, c.err
}

// trial asks one member after the other.
func (c *contest[T]) trial(next func() (i int, more, ok bool)) {
	for n := 0; ; n++ {
		i, more, ok := next()
		if !ok {
			return
		}
		if n > 0 {
			c.r.key.g.counts.failovers.Add(1)
		}
		c.try(i, more)
		next = c.next
	}
}

// next returns the member to try now, and whether there are others.
func (c *contest[T]) next() (i int, more, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.won || len(c.order) == 0 || c.ctx.Err() != nil {
		return 0, false, false
	}
	i, c.order = c.order[0], c.order[1:]
	return i, len(c.order) > 0, true
}

// end waits for the members that were asked beside; each returns once it is called
// off, whatever its module does.
func (c *contest[T]) end(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.hedges.Wait()
	switch {
	case c.won:
	case errors.Is(c.err, keystore.ErrInvalidCiphertext) && c.r.mayOpenElsewhere(c.all[:len(c.all)-len(c.order)]):
		c.err = fmt.Errorf("%w (%w: %v)", c.r.key.g.unavailable(c.r.key.id), errUndecided, c.err)
	case c.err == nil:
		c.err = fmt.Errorf("key %s: no token was asked in time: %w", c.r.key.id, ctx.Err())
	}
}

// try has one member do the operation. While others are left it gets half of the
// time that there is, and after the hedge delay another is asked beside it.
func (c *contest[T]) try(i int, more bool) {
	g := c.r.key.g
	m, ctx := g.members[i], c.ctx
	began := g.now()
	if more {
		limit := maxTry
		if deadline, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(deadline)/2)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		timer := time.AfterFunc(m.hedgeDelay(), func() { c.hedge(m, began) })
		defer timer.Stop()
	}
	proof := g.proven(c.r.version, i, c.r.keys[i])
	if proof == nil { // no longer
		c.fail(g.unproven(m, c.r.version))
		return
	}
	m.inFlight.Add(1)
	out, err := c.op(ctx, c.r.keys[i])
	m.inFlight.Add(-1)
	g.note(m, began, err)
	c.settle(m, proof, out, err)
}

func (g *Group) unproven(m *member, v *versionState) error {
	return fmt.Errorf("token %s, %v: %w", m.token.Name(), v.versionID, errUnproven)
}

// hedge asks another member because m, which was asked at the time began, has not
// answered.
func (c *contest[T]) hedge(m *member, began time.Duration) {
	g := c.r.key.g
	g.overdue(m, began, errOverdue)
	i, more, ok := c.join()
	if !ok {
		return
	}
	defer c.hedges.Done()
	joined := func() (int, bool, bool) { return i, more, true }
	c.trial(joined)
}

var errOverdue = errors.New("it takes far longer than it did")

// join is next for a hedge, if the budget allows it. Whoever joins leaves hedges.
func (c *contest[T]) join() (i int, more, ok bool) {
	g := c.r.key.g
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.won || len(c.order) == 0 {
		return 0, false, false
	}
	if !g.hedges.spend() {
		g.counts.refused.Add(1)
		return 0, false, false
	}
	g.counts.hedges.Add(1)
	c.hedges.Add(1)
	i, c.order = c.order[0], c.order[1:]
	return i, len(c.order) > 0, true
}

// settle takes the answer of a member if it is the first decisive one.
func (c *contest[T]) settle(m *member, proof *proof, out T, err error) {
	g, v := c.r.key.g, c.r.version
	// The member may have become another one while it worked, or have taken
	// another key for the one that it was asked for.
	k, _ := m.token.Known(v.id)
	now := g.proven(v, m.index, k)
	trusted := now != nil && *now == *proof
	invalid := errors.Is(err, keystore.ErrInvalidCiphertext)
	switch {
	case (err == nil || invalid) && !trusted:
		c.wipe(out)
		c.fail(g.unproven(m, v))
	case err == nil || aboutKey(err) && (!invalid || !proof.accepted):
		c.win(m, out, err)
	default:
		c.fail(err)
	}
}

// win takes an answer if it is the first, and calls off the others.
func (c *contest[T]) win(m *member, out T, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.won {
		c.wipe(out)
		return
	}
	c.won, c.out, c.err, c.by = true, out, err, m
	c.cancel()
}

// fail remembers why a member gave no answer. That it was called off says nothing,
// and one that cannot open a ciphertext does not speak for those that fail.
func (c *contest[T]) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.won && (c.err == nil || weight(err) >= weight(c.err)) {
		c.err = err
	}
}

// errUndecided says that those who were asked cannot open a ciphertext, but others
// may.
var errUndecided = errors.New("no other token could be asked")

func weight(err error) int {
	switch {
	case errors.Is(err, context.Canceled):
		return 0
	case errors.Is(err, keystore.ErrInvalidCiphertext):
		return 1
	}
	return 2
}
