package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// errUnproven says that a member's answer does not count: its key is not, or not
// any more, known to be the one of the group.
var errUnproven = errors.New("the token has yet to prove that it has the right key")

// request is one operation with a version of a key, on its way through the
// members.
type request struct {
	key     *Key
	version *versionState
	keys    []*keystore.Key // in the order of Group.members, nil where a member does not have it
	began   time.Duration   // time of the group
}

// request finds out who has the version. One that no index knows is searched for.
func (g *Group) request(ctx context.Context, k *Key, number uint32) (*request, error) {
	r := &request{key: k, began: g.now(), keys: g.knownKeys(k.id)}
	if r.version = g.existing(k.state, number, r.keys); r.version == nil {
		if err := g.searchVersion(ctx, versionID{k.id, number}); err != nil {
			return nil, err
		}
		r.keys = g.knownKeys(k.id)
		r.version = g.version(k.state, number)
	}
	g.lastUsed.Store(r.version)
	return r, nil
}

// mayOpenElsewhere reports whether others than these members may be able to decrypt
// with the version.
func (r *request) mayOpenElsewhere(asked []int) bool {
	g := r.key.g
	for i, m := range g.members {
		if !slices.Contains(asked, i) && !m.differsIn(r.version.versionID) && r.version.members[i].mayOpen(has(r.keys[i], r.version.number)) {
			return true
		}
	}
	return g.answers.mayOpen(r.version.versionID, g.absent)
}

// knownKeys returns a key as each member's index has it.
func (g *Group) knownKeys(id string) []*keystore.Key {
	keys := make([]*keystore.Key, len(g.members))
	for i, m := range g.members {
		keys[i], _ = m.token.Known(id) // an ambiguous one is not to be used
	}
	return keys
}

// searchVersion looks for a version that no member is known to have.
func (g *Group) searchVersion(ctx context.Context, v versionID) error {
	err := g.ask(ctx, v.id, func(ctx context.Context, m *member) error {
		_, _, err := m.permissions(ctx, v)
		if errors.Is(err, keystore.ErrKeyDisabled) || errors.Is(err, keystore.ErrKeyUsage) {
			return nil // it is there
		}
		return err
	})
	if errors.Is(err, keystore.ErrKeyNotFound) {
		return fmt.Errorf("key store %s: %w: %w: %v", g.name, ErrVersionNotFound, keystore.ErrKeyNotFound, v)
	}
	return err
}

// do runs an operation in one of the members, beside the looks that are due.
func do[T any](ctx context.Context, k *Key, number uint32, n need, op func(context.Context, *keystore.Key) (T, error), wipe func(T)) (T, error) {
	const tries = 3
	for try := 1; ; try++ {
		out, err := doOnce(ctx, k, number, n, op, wipe)
		switch {
		case !errors.Is(err, errUnproven):
			return out, err
		case try == tries || ctx.Err() != nil:
			return out, fmt.Errorf("%w (%w)", k.g.unavailable(k.id), err)
		}
	}
}

func doOnce[T any](ctx context.Context, k *Key, number uint32, n need, op func(context.Context, *keystore.Key) (T, error), wipe func(T)) (none T, err error) {
	g := k.g
	r, err := g.request(ctx, k, number)
	if err != nil {
		return none, err
	}
	waits := g.look(r, lookForce)
	if g.verdict(r.version, n) != nil {
		g.await(ctx, waits)
		waits = nil
		if err := g.verdict(r.version, n); err != nil {
			return none, err
		}
	}
	g.hedges.earn()
	order, err := g.candidates(ctx, r)
	if err != nil {
		g.await(ctx, waits) // they may tell why there is none
		if refused := g.verdict(r.version, n); refused != nil {
			err = refused
		}
		return none, err
	}
	out, err := race(ctx, r, order, op, wipe)
	if errors.Is(err, errUndecided) && g.awaitProofs(ctx, r, order) {
		if order, err = g.candidates(ctx, r); err == nil {
			out, err = race(ctx, r, order, op, wipe)
		}
	}
	now := g.now()
	if told := aboutKey(err) && !errors.Is(err, keystore.ErrInvalidCiphertext); told || now-r.began >= lookRound {
		force := lookForce
		if told {
			force, waits = 0, nil // what this request was told holds for the next ones
		}
		r.began = now // the looks of its beginning may be of too long ago by now
		waits = append(waits, g.look(r, force)...)
	}
	g.await(ctx, waits)
	if refused := g.verdict(r.version, n); refused != nil {
		wipe(out)
		return none, refused
	}
	return out, err
}

// candidates returns the members that may do the request, the best first: those
// that have the version and have proven it. If none has, it waits for a proof.
func (g *Group) candidates(ctx context.Context, r *request) ([]int, error) {
	var order, unproven []int
	for i, m := range g.members {
		switch {
		case !m.usable() || !has(r.keys[i], r.version.number):
		case g.proven(r.version, i, r.keys[i]) != nil:
			order = append(order, i)
		default:
			unproven = append(unproven, i)
		}
	}
	switch {
	case len(order) > 0:
		for _, i := range unproven {
			if last := time.Duration(r.version.members[i].tried.Load()); last == 0 || r.began-last >= pingPause {
				g.startProof(g.members[i], r.version)
			}
		}
		g.sort(order, r)
		return order, nil
	case len(unproven) == 0:
		return nil, g.unavailable(r.key.id)
	}
	return g.awaitProof(ctx, r, unproven)
}

// sort puts the members in the order in which they are to be tried: those that
// answer before those that are far slower than the best one, and these before those
// that fail or hang; among equals the one with the least to do, in turns. Members
// that are passed over are asked beside the request, so that their recovery is
// noticed.
func (g *Group) sort(order []int, r *request) {
	best := time.Duration(-1)
	for _, i := range order {
		if mean, _ := g.members[i].latency(); !g.members[i].suspect.Load() && (best < 0 || mean < best) {
			best = mean
		}
	}
	rank := func(i int) int {
		m := g.members[i]
		mean, _ := m.latency()
		switch {
		case m.suspect.Load():
			return 2
		case mean > slowFactor*best+slowMargin:
			return 1
		}
		return 0
	}
	turn := int(g.turn.Add(1))
	n := len(g.members)
	slices.SortFunc(order, func(a, b int) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := g.members[a].inFlight.Load() - g.members[b].inFlight.Load(); d != 0 {
			return int(d)
		}
		return (a+turn)%n - (b+turn)%n
	})
	for _, i := range order {
		if rank(i) > 0 && i != order[0] {
			g.ping(g.members[i], r.version)
		}
	}
}

// A member is passed over while its mean latency is above slowFactor times that of
// the best and slowMargin.
const (
	slowFactor = 4
	slowMargin = 500 * time.Microsecond
)
