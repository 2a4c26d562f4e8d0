package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// member is a token and what the group has seen of it.
type member struct {
	token *keystore.Token
	index int    // in Group.members
	name  string // in the known answers: another token under the same name is another member

	down        atomic.Bool   // it was not available, until the watch has noticed that it is back
	returns     atomic.Uint64 // how often it came back
	quarantined atomic.Bool   // differing is not empty
	suspect     atomic.Bool   // it failed, or hangs, and nothing has succeeded since; set under mu
	told        atomic.Bool   // that it is suspect is in the log
	inFlight    atomic.Int32
	succeeded   atomic.Int64 // time of the group when an operation last succeeded, in nanoseconds
	pinged      atomic.Int64 // time of the group when a ping last began, in nanoseconds
	pinging     atomic.Bool
	warming     atomic.Bool

	mu        sync.Mutex
	mean      time.Duration      // of the latency, smoothed; guarded by mu
	deviation time.Duration      // mean deviation from it, smoothed; guarded by mu
	doubted   time.Duration      // time of the group when it became suspect; guarded by mu
	why       error              // it did; guarded by mu
	differing map[versionID]bool // versions that differ from the other members'; guarded by mu
	left      bool               // that it is down is in the log; owned by the watch
	warmed    uint64             // era in which all keys were proven; owned by the watch
}

// versionID names a version of a key.
type versionID struct {
	id     string
	number uint32
}

func (v versionID) String() string { return fmt.Sprintf("key %s version %d", v.id, v.number) }

// memberName names a member in the known answers. No token's name has a slash.
func memberName(token, serial string) string { return token + "/" + serial }

func newMember(index int, t *keystore.Token) *member {
	m := &member{token: t, index: index, name: memberName(t.Name(), t.Info().Serial), differing: map[versionID]bool{}}
	m.down.Store(!t.Available())
	return m
}

// usable reports whether the member may be asked. Whoever finds that it is not
// available takes it out of use, however short that lasts.
func (m *member) usable() bool {
	if !m.token.Available() {
		m.down.Store(true)
	}
	return !m.down.Load() && !m.quarantined.Load()
}

// era changes whenever what was proven of the member's keys must be proven again.
func (m *member) era() uint64 { return m.returns.Load() + m.token.Losses() }

// usual is how long an answer of the member may take: three times what nearly all
// of its answers took lately.
func (m *member) usual() time.Duration {
	mean, deviation := m.latency()
	return 3 * (mean + 2*deviation)
}

// hedgeDelay is how long an answer of the member may take before another is asked.
func (m *member) hedgeDelay() time.Duration {
	return min(max(m.usual(), minHedgeDelay), maxHedgeDelay)
}

func (m *member) latency() (mean, deviation time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mean, m.deviation
}

// note learns from the end of an operation that began at the given time of the
// group. What failed because it was called off says nothing.
func (g *Group) note(m *member, began time.Duration, err error) {
	now := g.now()
	var failed *keystore.TokenError
	switch {
	case err == nil, errors.Is(err, keystore.ErrInvalidCiphertext):
		m.learn(now - began)
		g.heard(m)
	case aboutKey(err):
		g.heard(m) // it may have searched for the key: how long it took says nothing
	case errors.Is(err, keystore.ErrUnproven):
		g.heard(m) // others of its keys may be well
	case errors.As(err, &failed) && m.token.Available():
		g.doubt(m, err)
	case errors.Is(err, keystore.ErrUnavailable), errors.Is(err, keystore.ErrClosed):
		m.down.Store(true)
	case errors.Is(err, context.Canceled):
	case errors.Is(err, keystore.ErrBusy): // it works as hard as it can
	case errors.Is(err, context.DeadlineExceeded):
		g.overdue(m, began, err)
	default:
		g.doubt(m, err)
	}
}

// heard notes that a member answers.
func (g *Group) heard(m *member) {
	m.succeeded.Store(int64(g.now()))
	if m.suspect.Load() && m.suspect.Swap(false) && m.told.Swap(false) {
		g.log.Info("a token answers again", "token", m.token.Name())
	}
}

// doubt passes a member over until it answers. It is in the log if that takes long.
func (g *Group) doubt(m *member, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.suspect.Swap(true) {
		m.doubted, m.why = g.now(), why
	}
}

// doubts returns for how long a member has been passed over, 0 if it is not.
func (g *Group) doubts(m *member) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.suspect.Load() {
		return 0
	}
	return g.now() - m.doubted
}

// tell logs that a member is passed over, once, if that has lasted.
func (g *Group) tell(m *member) {
	m.mu.Lock()
	since, why := m.doubted, m.why
	m.mu.Unlock()
	if g.now()-since >= tellAfter && !m.told.Swap(true) {
		g.log.Warn("a token fails or hangs and is passed over until it answers", "token", m.token.Name(), "error", why)
	}
}

const tellAfter = time.Second

// learn smooths as TCP does for its retransmissions (RFC 6298, section 2).
func (m *member) learn(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mean == 0 {
		m.mean, m.deviation = took, took/2
		return
	}
	m.deviation += ((took - m.mean).Abs() - m.deviation) / 4
	m.mean += (took - m.mean) / 8
}

// overdue passes a member over from which nothing has come since an operation
// began that should have ended.
func (g *Group) overdue(m *member, began time.Duration, err error) {
	if m.succeeded.Load() < int64(began) {
		g.doubt(m, err)
	}
}

// quarantine takes a member out of use that has another key than the others.
func (g *Group) quarantine(m *member, v versionID) {
	g.counts.proofsFailed.Add(1)
	m.mu.Lock()
	known := m.differing[v]
	m.differing[v] = true
	m.quarantined.Store(true)
	m.mu.Unlock()
	if !known {
		g.log.Error("a token has another key than the rest of the group and is not used: destroy its key and copy the right one to it, or remove the token from the key store",
			"token", m.token.Name(), "key", v.id, "version", v.number)
	}
}

// differs says which keys the member has otherwise than the rest; "" if none.
func (m *member) differs() string {
	if !m.quarantined.Load() {
		return ""
	}
	m.mu.Lock()
	all := slices.SortedFunc(maps.Keys(m.differing), compareVersions)
	m.mu.Unlock()
	if len(all) == 0 {
		return ""
	}
	reason := fmt.Sprintf("it has another %v than the rest of its group", all[0])
	if len(all) > 1 {
		reason += fmt.Sprintf(", and %d more that differ", len(all)-1)
	}
	return reason
}

// differsIn reports whether the member has another key as this version.
func (m *member) differsIn(v versionID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.differing[v]
}

// permissions asks the member for a version as it is now.
func (m *member) permissions(ctx context.Context, v versionID) (keystore.KeyUsage, bool, error) {
	k, err := m.token.Find(ctx, v.id)
	if err != nil {
		return keystore.KeyUsage{}, false, err
	}
	return k.VersionPermissions(ctx, v.number)
}

// aboutKey reports whether an error of a member is an answer about the key or the
// input, which another member would give too or must not contradict.
func aboutKey(err error) bool {
	return errors.Is(err, keystore.ErrInvalidCiphertext) || errors.Is(err, keystore.ErrKeyDisabled) ||
		errors.Is(err, keystore.ErrKeyUsage) || errors.Is(err, keystore.ErrKeyAmbiguous) || errors.Is(err, keystore.ErrKeyNotFound)
}
