package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/softhsm"
)

// A key that a search does not find is not a key that was destroyed. The storage of
// a token may be away, its cache empty, its files unreadable; and SoftHSM2 goes on as
// if everything were gone when it is back, until C_Finalize. So it is remembered what
// a token had, and what a look at it lacks counts as gone only when the token proves
// that the look is worth something: a probe key that is made now is found by a search,
// and a second look lacks the same.
//
// A look that lacks two of hyok's own keys, or everything that was there, and a token
// that cannot give that proof, say more of the token than of its keys: it is sick. The
// breaker opens, and only a fresh view of the token, see revive.go, confirms that
// anything is gone.

// errVanished is the cause of a breaker that opened since keys are not to be seen.
var errVanished = errors.New("keys that it had are not to be seen")

// errUnseen says that the token does not find what it has just made.
var errUnseen = errors.New("it does not find the probe key that it has just made")

// ErrUnproven comes together with ErrUnavailable: this one key is not to be seen, and
// the token cannot prove that it was destroyed; others are served.
var ErrUnproven = errors.New("the key is not to be seen, which does not prove that it was destroyed")

const (
	mostGone   = 1000            // labels that are remembered as gone
	viewAgain  = time.Second     // until the next fresh view for the sake of a doubt; doubled each time
	mostAgain  = 2 * time.Minute // at most
	steadyTime = time.Second     // for which fresh views lack the same keys before these count as gone
)

// presence is what is remembered of what a token has.
type presence struct {
	had     map[string][]uint32 // versions by label, as last seen, less what is known to be gone
	entered map[string][]uint32 // those made since the last look began
	gone    map[string]bool     // labels whose absence was confirmed
	bare    bool                // the token has no probe key and makes none
	suspect bool                // a seal key was not found
	doubt   error               // why the last look does not prove what is gone; nil: it does
	again   time.Duration       // token clock from which on there may be a fresh view because of the doubt
	pause   time.Duration       // until the next one after that
	viewed  uint64              // sessionCount.losses when a fresh view was last accepted
}

func (p *presence) init() {
	p.had, p.gone, p.pause = map[string][]uint32{}, map[string]bool{}, viewAgain
}

// enter notes a version that was just made or found.
func (p *presence) enter(label string, number uint32) {
	if p.entered == nil {
		p.entered = map[string][]uint32{}
	}
	for _, to := range []map[string][]uint32{p.had, p.entered} {
		if !slices.Contains(to[label], number) {
			to[label] = append(to[label], number)
		}
	}
	delete(p.gone, label)
}

// drop notes that a key was destroyed by this process.
func (p *presence) drop(label string) {
	delete(p.had, label)
	delete(p.entered, label)
}

// destroyed notes that a version was destroyed by this process.
func (x *keyIndex) destroyed(label string, number uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := &x.presence
	for _, from := range []map[string][]uint32{p.had, p.entered} {
		if from[label] == nil {
			continue
		}
		from[label] = slices.DeleteFunc(slices.Clone(from[label]), func(n uint32) bool { return n == number })
		if len(from[label]) == 0 {
			delete(from, label)
		}
	}
}

// unproven returns why it is not known whether a version (0: any) of a key that is in
// no index is gone, or nil.
func (p *presence) unproven(label string, number uint32) error {
	numbers, had := p.had[label]
	if had && (number == 0 || slices.Contains(numbers, number)) {
		if p.doubt != nil {
			return p.doubt
		}
		return errVanished
	}
	return p.doubt
}

// lacks returns what a look does not show of what was there: versions by label.
func (p *presence) lacks(l *look) map[string][]uint32 {
	missing := map[string][]uint32{}
	for label, numbers := range p.had {
		for _, n := range numbers {
			if !slices.Contains(l.has[label], n) && !slices.Contains(p.entered[label], n) {
				missing[label] = append(missing[label], n)
			}
		}
	}
	return missing
}

// vanished reports whether so much is missing that it says more of the token than of
// its keys.
func (p *presence) vanished(missing map[string][]uint32) bool {
	whole, own := 0, 0
	for label, numbers := range missing {
		if len(numbers) < len(p.had[label]) {
			continue
		}
		whole++
		if isOwn(label) {
			own++
		}
	}
	return own > 1 || whole > 1 && whole == len(p.had)
}

// isOwn reports whether a label is that of a key without which hyok does not do.
func isOwn(label string) bool {
	return label == probeLabel || strings.HasPrefix(label, rootPrefix) || strings.HasPrefix(label, sealPrefix)
}

// look is what one search of a token has found.
type look struct {
	objects []object            // of the index
	has     map[string][]uint32 // versions by label, also of hyok's own keys, whose number is 0
	epoch   uint64
}

// look searches the token.
func (t *Token) look(ctx context.Context) (*look, error) {
	var l *look
	err := t.doSearch(ctx, func(w *worker) error {
		found, err := w.look()
		if err == nil {
			l = found
		}
		return err
	})
	if err != nil {
		return nil, err // the call may still write to l
	}
	return l, nil
}

func (w *worker) look() (*look, error) {
	x := &w.t.index
	x.mu.Lock()
	x.presence.entered = nil
	anew := len(x.presence.gone) > 0
	x.mu.Unlock()
	if anew {
		w.t.noticeChanges() // what is gone may be back
	}
	// To describe an object costs more than to find it, and what is known of one does
	// not change: a label that is given to it later counts from the next start.
	objects, own, err := w.allObjects("", knownObjects(x.load(), w.epoch))
	if err != nil {
		return nil, err
	}
	l := &look{objects: objects, epoch: w.epoch, has: make(map[string][]uint32, len(objects)+len(own))}
	for _, o := range objects {
		l.has[o.label] = append(l.has[o.label], o.number())
	}
	for _, label := range own {
		if isOwn(label) {
			l.has[label] = []uint32{0}
		}
	}
	return l, w.lookAtSeals(l)
}

// lookAtSeals adds the seal keys, which only a search of their own finds: it is made
// where other keys are missing.
func (w *worker) lookAtSeals(l *look) error {
	x := &w.t.index
	x.mu.Lock()
	var seals []string
	for label := range x.presence.had {
		if strings.HasPrefix(label, sealPrefix) {
			l.has[label] = []uint32{0}
			seals = append(seals, label)
		}
	}
	whole := len(x.presence.lacks(l)) == 0 && !x.presence.suspect
	x.mu.Unlock()
	if whole {
		return nil
	}
	for _, label := range seals {
		found, err := w.findSealKeys(sealTemplate(label))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			delete(l.has, label)
		}
	}
	return nil
}

// scan searches the token and replaces the index.
func (t *Token) scan(ctx context.Context) error {
	l, err := t.look(ctx)
	if err != nil || t.acceptWhole(l) {
		return err
	}
	return t.confirm(ctx, l)
}

// acceptWhole replaces the index by what a look has found, if nothing is missing.
func (t *Token) acceptWhole(l *look) bool {
	x := &t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	p := &x.presence
	probed := l.has[probeLabel] != nil || p.bare || !t.backgrounded
	if !probed || len(p.lacks(l)) > 0 {
		return false
	}
	t.accept(l)
	return true
}

// accept replaces the index by what a look has found, and believes that the rest is
// gone. index.mu is held.
func (t *Token) accept(l *look) {
	t.adopt(l)
	p := &t.index.presence
	for label, numbers := range p.lacks(l) {
		t.log.Warn("a key is not in the token any more", "label", label, "versions", numbers)
		if len(p.gone) < mostGone && len(l.has[label]) == 0 {
			p.gone[label] = true
		}
	}
	p.had = l.has
	for label := range l.has {
		delete(p.gone, label)
	}
	for label, numbers := range maps.Clone(p.entered) {
		for _, n := range numbers {
			p.enter(label, n)
		}
	}
	p.doubt, p.again, p.pause, p.suspect = nil, 0, viewAgain, false
}

// adopt replaces the index by what a look has found. index.mu is held.
func (t *Token) adopt(l *look) {
	x := &t.index
	keys := buildKeys(t, l.objects, knownVersions(x.load()), l.epoch)
	x.keys.Store(&keys)
}

// leaveInDoubt replaces the index by what a look has found, and does not believe that
// the rest is gone. index.mu is held.
func (t *Token) leaveInDoubt(l *look, why error) {
	t.adopt(l)
	p := &t.index.presence
	if p.doubt == nil {
		t.log.Error("what is not to be seen in the token may be there, and is not said to be gone", "missing", slices.Sorted(maps.Keys(p.lacks(l))), "error", why)
	}
	for label, numbers := range l.has {
		for _, n := range numbers {
			p.enter(label, n)
		}
	}
	p.doubt = why
}

// confirm finds out whether what a look lacks is gone.
func (t *Token) confirm(ctx context.Context, l *look) error {
	if t.vanished(l) {
		return t.sicken("of %d keys that it had a search finds none, or not hyok's own", t.index.hadKeys())
	}
	if err := t.checkStorage(); err != nil {
		t.index.mu.Lock()
		defer t.index.mu.Unlock()
		t.leaveInDoubt(l, err)
		return nil
	}
	if why, due := t.index.doubted(t.clock()); due {
		return t.sicken("%w", why)
	} else if why != nil {
		return nil
	}
	nothing := len(l.has) == 0
	if err := t.proveOrSicken(ctx, !nothing && t.index.lacksNothing(l)); err != nil {
		return err
	}
	l, err := t.look(ctx)
	if err != nil {
		return err
	}
	if t.vanished(l) {
		return t.sicken("a second look finds less than the first")
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.accept(l)
	return nil
}

func (t *Token) vanished(l *look) bool {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	p := &t.index.presence
	return p.vanished(p.lacks(l))
}

func (x *keyIndex) hadKeys() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.presence.had)
}

// doubted returns the doubt that there is, and whether a fresh view is due for it.
func (x *keyIndex) doubted(now time.Duration) (why error, due bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.presence.doubt, x.presence.doubt != nil && now >= x.presence.again
}

// mayDoubt reports whether there was a probe key, so that the token is sick if it makes
// none, and a fresh view is due if that is known already.
func (x *keyIndex) mayDoubt(now time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := &x.presence
	return p.had[probeLabel] != nil && (p.doubt == nil || now >= p.again)
}

func (x *keyIndex) lacksNothing(l *look) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.presence.lacks(l)) == 0
}

// proveOrSicken has the token prove that it sees its objects. One that never had a
// probe key is excused where it refuses to make one, and at first also where it fails to.
func (t *Token) proveOrSicken(ctx context.Context, atFirst bool) error {
	err := t.prove(ctx, t.admin)
	switch {
	case err == nil:
		return nil
	case !failsToMake(err):
		return err
	case t.index.mayBeBare(err, atFirst):
		t.log.Warn("the token has no probe key and none can be made: what it does not find is believed to be gone", "error", err)
		return nil
	}
	return t.sicken("%w", err)
}

// mayBeBare reports whether a token that has failed to make a probe key is one that
// makes none, as far as is known.
func (x *keyIndex) mayBeBare(err error, atFirst bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := &x.presence
	_, had := p.had[probeLabel]
	refused := isCode(err, pkcs11.CKR_TOKEN_WRITE_PROTECTED, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_MECHANISM_INVALID,
		pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_SESSION_READ_ONLY, pkcs11.CKR_ACTION_PROHIBITED)
	p.bare = !had && (refused || atFirst || p.bare) && !errors.Is(err, errUnseen)
	return p.bare
}

// failsToMake reports whether the token has answered, be it that it failed.
func failsToMake(err error) bool {
	var failed *TokenError
	return (errors.As(err, &failed) || errors.Is(err, errUnseen)) && !errors.Is(err, ErrPINIncorrect)
}

// sicken opens the breaker since what the token shows is not worth anything, and
// returns what callers get.
func (t *Token) sicken(format string, args ...any) error {
	cause := fmt.Errorf("%w: %w", errVanished, fmt.Errorf(format, args...))
	t.breaker.mu.Lock()
	t.trip(&trip{since: time.Now(), cause: cause})
	t.breaker.mu.Unlock()
	return t.refused()
}

// unproven is the answer about a key that is not to be seen.
func (t *Token) unproven(id string, why error) error {
	return fmt.Errorf("token %s, key %s: %w: %w: %v", t.name, printable(id), ErrUnavailable, ErrUnproven, why)
}

// confirmGone makes sure that one of hyok's own keys, which a search has not found, is
// gone; there: it is not, it was found meanwhile.
func (t *Token) confirmGone(ctx context.Context, label string) (there bool, err error) {
	x := &t.index
	x.mu.Lock()
	x.presence.suspect = x.presence.suspect || strings.HasPrefix(label, sealPrefix)
	x.mu.Unlock()
	if err := t.refresh(ctx); err != nil {
		return false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if why := x.presence.doubt; why != nil {
		return false, t.unproven(label, why)
	}
	return x.presence.had[label] != nil, nil
}

// vouch makes sure that a search that does not find a key, of which nothing is known,
// is worth something.
func (t *Token) vouch(ctx context.Context, label string) error {
	if err := t.refresh(ctx); err != nil {
		return err
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	if why := t.index.presence.doubt; why != nil {
		return t.unproven(label, why)
	}
	return nil
}

// viewedSince reports whether a fresh view of the token was accepted after an epoch.
func (t *Token) viewedSince(epoch uint64) bool {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	return t.index.presence.viewed > epoch
}

// noteOwn remembers that one of hyok's own keys is in the token.
func (t *Token) noteOwn(label string) {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.index.presence.enter(label, 0)
	if label == probeLabel {
		t.index.presence.bare = false
	}
}

// prove has the token make a probe key anew and find it by a search. It stays only
// where there is no other one.
func (t *Token) prove(ctx context.Context, admin func(context.Context, func(*worker) error) error) error {
	return admin(ctx, (*worker).makeProbe)
}

// makeProbe makes a probe key that a search finds and that works. It is destroyed again
// if the search finds another one that does.
func (w *worker) makeProbe() error {
	h, err := w.generate(aesTemplate(probeLabel, newMark(1), KeyUsage{Encrypt: true, Decrypt: true}, true, false))
	if err != nil {
		return err
	}
	found, err := w.findKeys(probeLabel)
	if err == nil && !slices.Contains(found, h) {
		err = w.fail("C_FindObjects", errUnseen)
	}
	if err == nil {
		err = w.roundTrip(h)
	}
	another := func(other pkcs11.ObjectHandle) bool { return other != h && w.roundTrip(other) == nil }
	if err != nil || slices.ContainsFunc(found, another) {
		return errors.Join(err, w.destroy(h))
	}
	w.keepProbeKey(h)
	return nil
}

// housing is what a module that latches keeps the objects of a token in, as far as it is
// known. It does not change.
type housing struct {
	folder     string   // empty: not known
	unreadable []string // object files that could not be read when the token was opened
}

// findHousing looks where the objects of the token are.
func (t *Token) findHousing() {
	if !t.profile.Latches {
		return
	}
	folder, err := softhsm.Folder(t.info.Serial)
	if err == nil && folder != "" {
		t.housing.folder = folder
		t.housing.unreadable, err = softhsm.Unreadable(folder)
	}
	if err != nil {
		t.log.Warn("whether the token's objects can be read is not known", "error", err)
	}
	if n := len(t.housing.unreadable); n > 0 {
		t.log.Warn("objects of the token may not be read and count as not there", "folder", folder, "files", n)
	}
}

// check returns why the token cannot be seen now, or which of its objects cannot that
// could when it was opened, as far as is known.
func (h *housing) check() (away, hidden error) {
	if h.folder == "" {
		return nil, nil
	}
	objects, err := softhsm.Unreadable(h.folder)
	if err != nil {
		return err, nil
	}
	objects = slices.DeleteFunc(objects, func(name string) bool { return slices.Contains(h.unreadable, name) })
	if len(objects) > 0 {
		return nil, fmt.Errorf("%d objects in %s cannot be read, one of them %s", len(objects), h.folder, objects[0])
	}
	return nil, nil
}

// checkStorage returns either error of housing.check.
func (t *Token) checkStorage() error {
	away, hidden := t.housing.check()
	if err := errors.Join(away, hidden); err != nil {
		return fmt.Errorf("token %s: %w", t.name, err)
	}
	return nil
}

// Lacks says that the token had external keys of which allow (nil: all) approves, and
// has none now; "" if not so. It does not call the token.
func (t *Token) Lacks(allow func(id string) bool) string {
	if allow == nil {
		allow = func(string) bool { return true }
	}
	x := &t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	external := func(label string) bool { return !isReserved(label) && allow(label) }
	for id := range x.load() {
		if external(id) {
			return ""
		}
	}
	for label := range x.presence.had {
		if external(label) {
			return "none of the keys that it had is to be seen"
		}
	}
	for label := range x.presence.gone {
		if external(label) {
			return "all keys that it had are gone"
		}
	}
	return ""
}
