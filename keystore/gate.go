package keystore

import (
	"context"
	"fmt"

	"github.com/hyok-kms/hyok/softhsm"
)

// gate lets searches of a token run side by side, and each call that makes,
// changes or deletes objects only by itself. SoftHSM2 (2.6.1) needs that: it
// writes the attributes of a new object one after the other, truncating the
// object's file each time, under file locks that do not hold between the threads
// of a process. A search that meets the file while it is empty marks the object
// invalid; C_GenerateKey then fails with CKR_GENERAL_ERROR and leaves half a key
// in the token. A session copy counts as a token key, and so as a twin of its
// original, until C_CopyObject has changed its CKA_TOKEN. Operations with keys look at their own object only and do not
// pass the gate, so that they never wait for it.
//
// It is not a sync.RWMutex, since waiting must end with a context: the call that
// is inside may hang.
type gate struct {
	passes   chan struct{} // a search holds one, a change all of them
	changing chan struct{} // capacity 1; held by the change that collects or holds the passes
}

const gatePasses = 64 // searches at once

// gateOf returns the gate of the token in a slot: one for all who have it open in
// this process, since it is the module's threads that it keeps apart.
func (m *module) gateOf(slot uint) gate {
	m.gatesMu.Lock()
	defer m.gatesMu.Unlock()
	g, ok := m.gates[slot]
	if !ok {
		g = gate{passes: make(chan struct{}, gatePasses), changing: make(chan struct{}, 1)}
		if m.gates == nil {
			m.gates = map[uint]gate{}
		}
		m.gates[slot] = g
	}
	return g
}

// enterSearch waits until no change is inside; leaveSearch follows.
func (t *Token) enterSearch(ctx context.Context) error { return t.pass(ctx, t.gate.passes) }

func (t *Token) leaveSearch() { <-t.gate.passes }

// enterChange waits until nobody else is inside; leaveChange follows.
func (t *Token) enterChange(ctx context.Context) error {
	return t.enterChangeUnless(ctx, t.breaker.opened())
}

// enterChangeUnless is enterChange until opened is closed.
func (t *Token) enterChangeUnless(ctx context.Context, opened <-chan struct{}) error {
	if err := t.passUnless(ctx, t.gate.changing, opened); err != nil {
		return err
	}
	for n := range cap(t.gate.passes) {
		if err := t.passUnless(ctx, t.gate.passes, opened); err != nil {
			t.giveBack(n)
			return err
		}
	}
	return nil
}

func (t *Token) leaveChange() { t.giveBack(cap(t.gate.passes)) }

// leaveChanged is leaveChange for one that may have made or destroyed a token object.
func (t *Token) leaveChanged() {
	t.noticeChanges()
	t.leaveChange()
}

// noticeChanges has the module notice what other processes changed until now, also
// if it has made or destroyed token objects itself meanwhile.
func (t *Token) noticeChanges() {
	if !t.profile.MissesChanges {
		return
	}
	if err := softhsm.Reindex(t.info.Serial); err != nil {
		t.log.Warn("keys that other processes make may not be noticed", "error", err)
	}
}

func (t *Token) giveBack(passes int) {
	for range passes {
		<-t.gate.passes
	}
	<-t.gate.changing
}

func (t *Token) pass(ctx context.Context, into chan<- struct{}) error {
	return t.passUnless(ctx, into, t.breaker.opened())
}

// passUnless is pass until opened is closed; nil: whatever the breaker does.
func (t *Token) passUnless(ctx context.Context, into chan<- struct{}, opened <-chan struct{}) error {
	select {
	case into <- struct{}{}:
		return nil
	case <-opened:
		return t.refused()
	case <-t.background.Done():
		return t.closedError()
	case <-ctx.Done():
		return fmt.Errorf("token %s: %w beside the searches and changes under way: %w", t.name, ErrBusy, ctx.Err())
	}
}
