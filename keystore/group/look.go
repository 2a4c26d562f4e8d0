package group

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// Whoever revokes a key in one member revokes it in the group. So each member that
// can be asked is looked at while the key is used: by one request every lookRound,
// beside the requests, and by each request that finds the last look older than
// lookForce and waits for another.
const (
	lookRound   = 300 * time.Millisecond
	lookForce   = 700 * time.Millisecond
	lookTimeout = 5 * time.Second
	minLookWait = 50 * time.Millisecond
	maxLookWait = 100 * time.Millisecond
)

// look is what a member said of a version. What it forbids holds until another
// look says otherwise, even if the member cannot be asked any more.
type look struct {
	began     time.Duration // time of the group
	gone      bool          // it was there and is not any more
	ambiguous bool
	disabled  bool
	usage     keystore.KeyUsage
}

var both = keystore.KeyUsage{Encrypt: true, Decrypt: true}

// longAgo is when a look began that a former process made.
const longAgo = math.MinInt64 / 2

// revokes reports whether the look forbids anything.
func (l *look) revokes() bool {
	return l.gone || l.ambiguous || l.disabled || !l.usage.Encrypt || !l.usage.Decrypt
}

// need is what a request does with a key.
type need int

const (
	toEncrypt need = iota
	toDecrypt
	toDescribe // anything that is there
)

// refusal returns why the key must not be used so, or nil.
func (l *look) refusal(n need) error {
	switch {
	case l.ambiguous:
		return keystore.ErrKeyAmbiguous
	case l.gone:
		return keystore.ErrKeyNotFound
	case n == toDescribe:
		return nil
	case l.disabled:
		return keystore.ErrKeyDisabled
	case n == toEncrypt && !l.usage.Encrypt, n == toDecrypt && !l.usage.Decrypt:
		return keystore.ErrKeyUsage
	}
	return nil
}

// verdict returns why the group must not use the version, or nil.
func (g *Group) verdict(v *versionState, n need) error {
	for i := range v.members {
		l := v.members[i].look.Load()
		if l == nil {
			continue
		}
		why, name := l.refusal(n), g.members[i].token.Name()
		switch {
		case why == nil:
		case l.gone:
			return g.goneError(v, i, why)
		default:
			return fmt.Errorf("%v: %w in token %s, which holds for the whole group", v.versionID, why, name)
		}
	}
	for _, l := range v.absent {
		if why := l.refusal(n); why != nil {
			return fmt.Errorf("%v: %w in a token that could not be opened yet, which holds for the whole group", v.versionID, why)
		}
	}
	return nil
}

// goneError says that a member lost a version; if it still has others, it is the
// version that is not found, and otherwise the key.
func (g *Group) goneError(v *versionState, i int, why error) error {
	t := g.members[i].token
	err := fmt.Errorf("%v: %w: it was destroyed in token %s, which holds for the whole group", v.versionID, why, t.Name())
	if k, _ := t.Known(v.id); k != nil {
		return fmt.Errorf("%w: %w", ErrVersionNotFound, err)
	}
	return err
}

// awaited is a look that a request must not do without.
type awaited struct {
	m      *member
	flight *flight
	since  time.Duration // time of the group
}

// look starts the looks at a version that are due, and returns those to wait for:
// all that are older than force. A member that has failed or hung for a while is not
// waited for, unless force is 0.
func (g *Group) look(r *request, force time.Duration) []awaited {
	var waits []awaited
	for i, m := range g.members {
		s := &r.version.members[i]
		if !m.usable() || !has(r.keys[i], r.version.number) && !s.binds() {
			continue
		}
		age := time.Duration(math.MaxInt64)
		if l := s.look.Load(); l != nil {
			age = r.began - l.began
		}
		switch {
		case age < min(lookRound, force):
			g.counts.noteLookAge(age)
			continue
		case force > 0 && g.doubts(m) > maxLookWait:
			g.ping(m, r.version) // which looks too; the request does not wait for it
			continue
		}
		f := g.startLook(m, r.version)
		if age >= force && f != nil {
			waits = append(waits, awaited{m, f, g.now()})
		} else {
			g.counts.noteLookAge(min(age, lookForce))
		}
	}
	return waits
}

// startLook looks at a version in one member, unless somebody does; nil if the
// group is closed. One that has taken longer than lookForce may hang alone, while the
// member answers others: it is not waited for any more.
func (g *Group) startLook(m *member, v *versionState) *flight {
	s := &v.members[m.index]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := g.now()
	if s.looking != nil && now-s.looking.began < lookForce {
		return s.looking
	}
	f := &flight{done: make(chan struct{}), began: now}
	s.looking = f
	if !g.start(func() { g.lookNow(m, v, f) }) {
		s.looking = nil
		return nil
	}
	return f
}

func (g *Group) lookNow(m *member, v *versionState, f *flight) {
	ctx, cancel := context.WithTimeout(g.life, lookTimeout)
	defer cancel()
	s := &v.members[m.index]
	began := g.now()
	usage, disabled, err := m.permissions(ctx, v.versionID)
	if err == nil || aboutKey(err) {
		g.heard(m) // not how long it took: it may have searched
	} else {
		g.note(m, began, err)
	}
	s.mu.Lock()
	last := s.look.Load()
	switch {
	case last != nil && last.began > began: // a later one has overtaken this one
	case err == nil:
		g.saw(m, v, &look{began: began, disabled: disabled, usage: usage})
	case errors.Is(err, keystore.ErrKeyAmbiguous):
		g.saw(m, v, &look{began: began, ambiguous: true, usage: both})
	case errors.Is(err, keystore.ErrKeyNotFound):
		s.proof.Store(nil)
		if s.binds() {
			g.saw(m, v, &look{began: began, gone: true, usage: both})
		} else {
			s.look.Store(nil) // it never was a member's key as far as the group knows
		}
	}
	if s.looking == f {
		s.looking = nil
	}
	s.mu.Unlock()
	f.err = err
	close(f.done)
}

// saw puts a look in force and remembers what it revokes.
func (g *Group) saw(m *member, v *versionState, l *look) {
	was := v.members[m.index].look.Swap(l)
	if l.revokes() && (was == nil || !sameLook(was, l)) {
		g.log.Warn("a token restricts the use of a key, which holds for the whole group", "token", m.token.Name(), "key", v.id, "version", v.number,
			"destroyed", l.gone, "ambiguous", l.ambiguous, "disabled", l.disabled, "encrypt", l.usage.Encrypt, "decrypt", l.usage.Decrypt)
	}
	if was == nil || !sameLook(was, l) {
		g.answers.saw(v.versionID, m.name, l)
	}
}

func sameLook(a, b *look) bool {
	return a.gone == b.gone && a.ambiguous == b.ambiguous && a.disabled == b.disabled && a.usage == b.usage
}

// await waits for looks, each for as long as its member may take, and passes over
// a member that takes longer. It returns how many were answered.
func (g *Group) await(ctx context.Context, waits []awaited) (answered int) {
	for _, w := range waits {
		timer := time.NewTimer(w.m.lookWait() - (g.now() - w.since))
		select {
		case <-w.flight.done:
		case <-timer.C:
			if !w.flight.over() {
				g.overdue(w.m, w.since, errSlowLook)
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if w.flight.answered() {
			answered++
		}
	}
	return answered
}

// lookWait is how long a look at the member is waited for.
func (m *member) lookWait() time.Duration { return min(max(m.usual(), minLookWait), maxLookWait) }

var errSlowLook = errors.New("it does not say what it permits")
