package keystore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// A session copy of a token key is cheaper to use than the key itself, but it
// knows nothing of what happens to the key. So a key has to earn a copy by use,
// and a copy is in force for a short time only, after which the copy keeper
// must have found the key itself unchanged in the token. Whatever keeps the
// keeper from looking (a slow token, a hung call) ends the copy's force, and
// operations go to the key itself, which the token guards.
const (
	copyRound = 300 * time.Millisecond // between two looks at a key that has a copy
	copyForce = 700 * time.Millisecond // how long one look lets the copy be used
	copyEarn  = 4                      // uses in a round that earn a copy
	copyIdle  = 20                     // rounds in a row below copyKeep that lose it
	copyKeep  = 2
	maxCopies = 2048 // SoftHSM2 takes about 10 kB for each
)

// sessionCopy is a session object made from a token key.
type sessionCopy struct {
	handle pkcs11.ObjectHandle
	epoch  uint64       // of the session that it lives in
	until  atomic.Int64 // token clock, in nanoseconds
}

func (c *sessionCopy) inForce(now time.Duration) bool { return int64(now) < c.until.Load() }

// copyKeeper is the state of the goroutine that makes, checks and destroys
// copies. They live in a session of its own, never pooled, since a copy dies
// with the session that made it.
type copyKeeper struct {
	alive    atomic.Int32
	worstAge atomic.Int64 // nanoseconds, see Stats.CopyAge

	// Owned by the keeper's goroutine:
	session pkcs11.SessionHandle
	issue   uint64 // of the session, see handles
	open    bool
	epoch   uint64 // sessionCount.losses when the session was opened
	resets  uint64 // module.resets when the session was opened
	kept    map[*version]*keptCopy
	backoff backoff // of copies that the token refuses to make
}

// backoff says when what has failed is tried again.
type backoff struct {
	next  time.Duration // token clock
	pause time.Duration // 0: it has not failed since it last succeeded
}

const mostCopyPause = 5 * time.Minute

func (b *backoff) due(now time.Duration) bool { return now >= b.next }

// failed notes a failure, and reports whether it is the first one.
func (b *backoff) failed(now time.Duration) (first bool) {
	first = b.pause == 0
	b.pause = min(max(2*b.pause, copyRound), mostCopyPause)
	b.next = now + b.pause
	return first
}

type keptCopy struct {
	id      string
	copy    *sessionCopy
	seen    permissions   // of the key when it was copied
	checked time.Duration // token clock when the last good look began
	idle    int           // rounds in a row with little use
}

func (t *Token) keepCopies(ctx context.Context) {
	k := &t.copies
	k.kept = map[*version]*keptCopy{}
	ticker := time.NewTicker(copyRound)
	defer ticker.Stop()
	defer func() {
		t.module.calls.RLock()
		defer t.module.calls.RUnlock()
		t.endCopies()
	}()
	for {
		select {
		case <-ticker.C:
			t.lookAtCopies()
		case <-ctx.Done():
			return
		}
	}
}

// lookAtCopies is one round. A token that is out of service is left alone: its copies
// lose their force by themselves.
func (t *Token) lookAtCopies() {
	if !t.Available() {
		return
	}
	t.module.enter()
	defer t.module.calls.RUnlock()
	if t.copies.open && t.copies.epoch != t.sessions.losses.Load() {
		t.endCopies()
	}
	t.checkCopies()
	t.makeCopies()
}

// checkCopies looks at the original of each copy.
func (t *Token) checkCopies() {
	for v, c := range t.copies.kept {
		begin := t.clock()
		uses := v.uses.Swap(0)
		if c.idle++; uses >= copyKeep {
			c.idle = 0
		}
		now, err := readPermissions(t, t.copies.session, v.handle)
		switch {
		case isHandleGone(err):
			t.dropCopy(v)
			t.forget(c.id, v)
			t.log.Info("a key has left the token; its copy is destroyed", "key", c.id, "version", v.number)
		case isTold(err) && !isDeviceFailure(err):
			t.dropCopy(v)
			v.backoff.failed(begin)
			t.log.Error("a key cannot be checked; its copy is destroyed", "key", c.id, "version", v.number, "error", err)
		case err != nil:
			// The copy loses its force by itself. If the session is gone, so are
			// all copies.
			t.log.Error("a key cannot be checked; its copy is out of force", "key", c.id, "error", err)
			t.endCopies()
			return
		case !now.same(c.seen):
			t.dropCopy(v)
			t.log.Info("the permissions of a key have changed; its copy is destroyed", "key", c.id, "version", v.number)
		case c.idle > copyIdle || v.copy.Load() != c.copy:
			t.dropCopy(v)
		default:
			c.copy.until.Store(int64(begin + copyForce))
			age := int64(t.clock() - c.checked)
			if age > t.copies.worstAge.Load() {
				t.copies.worstAge.Store(age)
			}
			c.checked = begin
		}
	}
}

// makeCopies copies the keys that were used enough since the last round.
func (t *Token) makeCopies() {
	if !t.copies.backoff.due(t.clock()) {
		return
	}
	for id, key := range t.index.load() {
		for _, v := range key.versions {
			if _, kept := t.copies.kept[v]; kept || v.single || v.uses.Swap(0) < copyEarn || len(t.copies.kept) >= maxCopies || !v.backoff.due(t.clock()) {
				continue
			}
			err := t.makeCopy(id, v)
			if err == nil {
				continue
			}
			if !isHandleGone(err) && v.backoff.failed(t.clock()) {
				t.log.Warn("a key cannot be copied into the session: it is used as it is, and this is tried ever more rarely", "key", id, "error", err)
			}
			return
		}
	}
}

func (t *Token) makeCopy(id string, v *version) error {
	k := &t.copies
	if !k.open {
		epoch, resets := t.sessions.losses.Load(), t.module.resets.Load()
		s, issue, err := t.openSession(false, epoch)
		if err != nil {
			return err
		}
		k.session, k.issue, k.open, k.epoch, k.resets = s, issue, true, epoch, resets
	}
	if v.epoch.Load() != k.epoch {
		return nil // its handle may be another's: the next use looks
	}
	// Looked at before it is copied: a change in between is seen as one later.
	begin := t.clock()
	seen, err := readPermissions(t, k.session, v.handle)
	if err != nil {
		return err
	}
	h, err := t.copyObject(v.handle)
	if isCode(err, pkcs11.CKR_ACTION_PROHIBITED) {
		v.single = true // CKA_COPYABLE is false: the key is used as it is
		return nil
	} else if err != nil {
		k.backoff.failed(begin)
		return err
	}
	k.backoff, v.backoff = backoff{}, backoff{}
	c := &sessionCopy{handle: h, epoch: k.epoch}
	c.until.Store(int64(begin + copyForce))
	k.kept[v] = &keptCopy{id: id, copy: c, seen: seen, checked: begin}
	k.alive.Add(1)
	v.copy.Store(c)
	return nil
}

// copyObject copies a key into the keeper's session while nobody searches, see
// gate. If it cannot soon, the next round tries again.
func (t *Token) copyObject(h pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	ctx, cancel := context.WithTimeout(t.background, copyRound)
	defer cancel()
	if err := t.enterChange(ctx); err != nil {
		return 0, err
	}
	defer t.leaveChange()
	c, err := t.module.ctx.CopyObject(t.copies.session, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	return c, t.callError("C_CopyObject", err)
}

// dropCopy takes a copy out of use and destroys it.
func (t *Token) dropCopy(v *version) {
	k := &t.copies
	c := k.kept[v]
	v.copy.CompareAndSwap(c.copy, nil)
	delete(k.kept, v)
	k.alive.Add(-1)
	if err := t.module.ctx.DestroyObject(k.session, c.copy.handle); err != nil && !isHandleGone(err) {
		t.log.Warn("a session copy could not be destroyed", "key", c.id, "error", err)
	}
}

// endCopies takes all copies out of use and closes their session, which
// destroys them.
func (t *Token) endCopies() {
	k := &t.copies
	for v, c := range k.kept {
		v.copy.CompareAndSwap(c.copy, nil)
	}
	clear(k.kept)
	k.alive.Store(0)
	if !k.open {
		return
	}
	k.open = false
	if k.resets != t.module.resets.Load() {
		return // it went with all others, and its handle may be another's
	}
	if err := t.closeSession(k.session, k.issue); err != nil {
		t.log.Warn("the session of the copies could not be closed", "error", err)
	}
}
