package group

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/hyok-kms/hyok/keystore"
)

const (
	watchTick    = 100 * time.Millisecond
	recheckPause = 30 * time.Second
	sweepPause   = keystore.SearchInterval
	warmPerSec   = 200 // proofs a second of a member that is back
	checkTimeout = 10 * time.Second
)

// watch notices what no request tells: that a member is back, or has lost its
// sessions. It has keys proven before somebody asks for them.
func (g *Group) watch() {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	recheck, sweep := g.now(), g.now()
	for {
		for _, m := range g.members {
			g.watchMember(m)
		}
		if g.now()-recheck >= recheckPause {
			recheck = g.now()
			g.start(func() { g.recheck(g.life) })
		}
		if g.now()-sweep >= sweepPause {
			sweep = g.now()
			g.start(func() { g.sweep(g.life) })
		}
		select {
		case <-tick.C:
		case <-g.life.Done():
			return
		}
	}
}

func (g *Group) watchMember(m *member) {
	if usable := m.usable(); !usable && m.down.Load() {
		if !m.left {
			m.left = true
			g.log.Error("a token has left the group: it is not available", "token", m.token.Name(), "reason", m.token.Health().Reason)
		}
		if !m.token.Available() {
			return
		}
		m.left = false
		m.returns.Add(1) // first: what was proven counts no longer when it is used again
		g.heard(m)
		m.down.Store(false)
		g.log.Info("a token is in the group; each key is proven before it is used", "token", m.token.Name())
	}
	if m.suspect.Load() {
		g.tell(m)
		g.ping(m, g.lastUsed.Load()) // its word on revocations is waited for again as soon as it answers
	}
	if era := m.era() + 1; m.warmed != era && m.usable() && m.warming.CompareAndSwap(false, true) {
		m.warmed = era
		if !g.start(func() { g.warm(m) }) {
			m.warming.Store(false)
		}
	}
}

// warm has a member prove all keys that its index knows.
func (g *Group) warm(m *member) {
	defer m.warming.Store(false)
	pace := rate.NewLimiter(warmPerSec, warmPerSec/10)
	for _, id := range m.token.KnownIDs() {
		if !g.allow(id) {
			continue
		}
		k, _ := m.token.Known(id)
		for n := newest(k, math.MaxUint32); n != 0; n = newest(k, n-1) {
			v := g.version(g.state(id), n)
			if g.proven(v, m.index, k) != nil {
				continue
			}
			if !m.usable() || pace.Wait(g.life) != nil {
				return
			}
			f := g.startProof(m, v)
			if f == nil {
				return
			}
			if <-f.done; m.suspect.Load() {
				return // requests have the keys proven that they need
			}
		}
	}
}

func newest(k *keystore.Key, limit uint32) uint32 {
	if k == nil || limit == 0 {
		return 0
	}
	return k.NewestUpTo(limit)
}

// recheck has the members in quarantine prove the keys that differed.
func (g *Group) recheck(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	for _, m := range g.members {
		if m.quarantined.Load() && m.token.Available() {
			g.recheckMember(ctx, m)
		}
	}
}

func (g *Group) recheckMember(ctx context.Context, m *member) {
	m.mu.Lock()
	var all []versionID
	for v := range m.differing {
		all = append(all, v)
	}
	m.mu.Unlock()
	for _, v := range all {
		f := g.startProof(m, g.version(g.state(v.id), v.number))
		if f == nil {
			return
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
		if f.err != nil && !errors.Is(f.err, keystore.ErrKeyNotFound) {
			continue
		}
		m.mu.Lock()
		delete(m.differing, v)
		m.mu.Unlock()
	}
	m.mu.Lock()
	back := len(m.differing) == 0
	if back {
		m.returns.Add(1)
		m.quarantined.Store(false)
	}
	m.mu.Unlock()
	if back {
		g.log.Info("a token has the same keys as the rest of the group again and is used", "token", m.token.Name())
	}
}

// sweep forgets the versions that are in no member any more, so that a key that is
// made later under the same id is not measured by them.
func (g *Group) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	for _, v := range g.answers.versions() {
		if g.isGone(ctx, v) {
			g.forget(v)
			g.log.Info("a version of a key was destroyed in all tokens and is forgotten", "key", v.id, "version", v.number)
		}
	}
}

// isGone reports whether all members, each of which can be asked, say that they do
// not have a version.
func (g *Group) isGone(ctx context.Context, v versionID) bool {
	if len(g.absent) > 0 {
		return false // they may have it
	}
	for _, m := range g.members {
		if k, err := m.token.Known(v.id); err != nil || has(k, v.number) || !m.usable() {
			return false
		}
	}
	for _, m := range g.members {
		if _, _, err := m.permissions(ctx, v); !errors.Is(err, keystore.ErrKeyNotFound) {
			return false
		}
	}
	return true
}
