package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// Everything wrapped hangs on the root key, so its end is the end of all of that,
// see Vault. It is looked at by the operations themselves: by one of them every
// rootRound, and by each of them once the last good look is rootForce ago.
const (
	rootRound = 300 * time.Millisecond
	rootForce = 700 * time.Millisecond
	rootTries = 3 // of what finds that the root key has another handle
)

// errRootMoved says that the root key is not under its known handle any more.
var errRootMoved = errors.New("the root key is not where it was")

// rootKey is the root key of a vault and what is known of it.
type rootKey struct {
	v     *Vault
	label string

	object   atomic.Pointer[rootObject] // nil: to be searched for
	checked  atomic.Int64               // token clock when the last good look began
	checking atomic.Bool                // somebody looks
	worstAge atomic.Int64               // nanoseconds, see VaultStats.RootAge
	lost     atomic.Bool                // the last search has found that it is gone

	searching chan struct{} // capacity 1: held by who searches
	// Owned by who holds searching:
	missed time.Duration // token clock when a search ended that did not find it; 0: it was found
	took   time.Duration // how long that search took
}

// rootObject is the token object of the root key. CKA_ID has random bytes: an
// object with another one is another key.
type rootObject struct {
	handle pkcs11.ObjectHandle
	ckaID  []byte
	epoch  uint64 // sessionCount.losses when it was known to be there
}

func (r *rootKey) init(v *Vault) {
	r.v, r.label = v, rootPrefix+v.name
	r.searching = make(chan struct{}, 1)
}

// reopen finds the root key of a vault that was used before. That it is missing is
// for those to tell who need it.
func (r *rootKey) reopen(ctx context.Context) error {
	err := r.search(ctx, true)
	if errors.Is(err, ErrRootKey) {
		r.v.t.log.Error("the root key is missing: keys wrapped under it cannot be used until it is back in the token", "key", r.label)
		return nil
	}
	return err
}

// open finds the root key or makes it.
func (r *rootKey) open(ctx context.Context) error {
	err := agreed(ctx, r.label, func() error {
		err := r.search(ctx, true)
		if errors.Is(err, ErrRootKey) {
			if made := r.v.t.admin(ctx, r.make); made != nil {
				err = fmt.Errorf("make the root key %s: %w", r.label, made)
			} else {
				err = r.search(ctx, true)
			}
		}
		if err == nil {
			err = r.prove(ctx)
		}
		return err
	})
	return r.v.t.checkWhole(ctx, r.label, err)
}

// agreed runs what finds a key or makes it, and again where another process may
// have done the same: for a moment there are two then, or none, since both take
// theirs away.
func agreed(ctx context.Context, label string, attempt func() error) error {
	const tries = 8
	for n := time.Duration(1); ; n++ {
		err := attempt()
		passing := errors.Is(err, ErrRootKey) || errors.Is(err, ErrKeyExists) || errors.Is(err, ErrKeyAmbiguous) ||
			isCode(err, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE)
		if n == tries || !passing {
			return err
		}
		select {
		case <-time.After(rand.N(n * 40 * time.Millisecond)):
		case <-ctx.Done():
			return fmt.Errorf("find the key %s: %w", label, ctx.Err())
		}
	}
}

// prove has the root key wrap something. SoftHSM2 shows a key that another process
// makes before it has its value.
func (r *rootKey) prove(ctx context.Context) error {
	_, err := r.v.wrapNew(ctx, r.v.trial(SpecAES256, shape{family: familyAES, bytes: aes256KeyLength}))
	if errors.Is(err, errNotWrappable) {
		return nil // then keys are resident
	}
	return err
}

// make makes the root key unless it is there. As in create, whoever finds a twin
// of what he made takes his own away.
func (r *rootKey) make(w *worker) error {
	before, err := w.findKeys(r.label)
	if err != nil || len(before) > 0 {
		return err
	}
	h, err := w.generate(rootTemplate(r.label))
	if err != nil {
		return err
	}
	after, err := w.findKeys(r.label)
	if err == nil && len(after) == 1 {
		return nil
	}
	if err == nil {
		err = ErrKeyExists
	}
	return errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
}

// rootTemplate returns the attributes of a root key: it wraps and unwraps, and
// never leaves the token.
func rootTemplate(label string) []*pkcs11.Attribute {
	template := shape{family: familyAES}.identity()
	template = append(template, storage{label: label, onToken: true}.attributes()...)
	template = append(template,
		pkcs11.NewAttribute(pkcs11.CKA_ID, newMark(1).bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, true), // or its usage could not be withdrawn
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
	)
	for _, never := range []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE} {
		template = append(template, pkcs11.NewAttribute(never, false))
	}
	return template
}

// search looks for the root key, unless somebody has found it meanwhile. One
// that is gone is searched for only now and then, unless now is true.
func (r *rootKey) search(ctx context.Context, now bool) error {
	t := r.v.t
	if err := t.pass(ctx, r.searching); err != nil {
		return err
	}
	defer func() { <-r.searching }()
	if r.object.Load() != nil {
		return nil
	}
	if !now && r.missed != 0 && t.clock()-r.missed < max(minScanGap, scanShare*r.took) {
		return r.gone()
	}
	begin := t.clock()
	found, err := r.find(ctx)
	if errors.Is(err, ErrRootKey) {
		r.v.cache.flush()
		there, unsure := t.confirmGone(ctx, r.label)
		if unsure != nil {
			return unsure
		}
		if there {
			found, err = r.find(ctx)
		}
	}
	if errors.Is(err, ErrRootKey) {
		r.missed, r.took = t.clock(), t.clock()-begin
		r.lost.Store(true)
	}
	if err != nil {
		return err
	}
	r.missed = 0
	r.lost.Store(false)
	t.noteOwn(r.label)
	r.object.Store(found)
	r.checked.Store(0) // the next operation looks what is permitted
	return nil
}

func (r *rootKey) find(ctx context.Context) (*rootObject, error) {
	var found []*rootObject
	err := r.v.t.doSearch(ctx, func(w *worker) error {
		handles, err := w.findKeys(r.label)
		if err != nil {
			return err
		}
		var objects []*rootObject
		for _, h := range handles {
			_, id, err := w.rootState(h)
			if err != nil {
				return err
			}
			objects = append(objects, &rootObject{handle: h, ckaID: id, epoch: w.epoch})
		}
		found = objects
		return nil
	})
	switch {
	case isHandleGone(err):
		return nil, r.gone()
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, r.gone()
	case len(found) > 1:
		return nil, fmt.Errorf("root key %s in token %s: %w: %d objects have this label; delete all but the one that the vault was used with", r.label, r.v.t.name, ErrKeyAmbiguous, len(found))
	}
	return found[0], nil
}

func (r *rootKey) gone() error {
	return fmt.Errorf("%w: no key labelled %s is in token %s, so that nothing wrapped under it can be used", ErrRootKey, r.label, r.v.t.name)
}

// usable returns the root key if it was looked at lately, and looks at it
// otherwise; errRootMoved means that it has to be searched for.
func (r *rootKey) usable(w *worker) (*rootObject, error) {
	now, o := w.t.clock(), r.object.Load()
	if o == nil {
		return nil, errRootMoved
	}
	age := now - time.Duration(r.checked.Load())
	fresh := age < rootForce && r.checked.Load() != 0 && o.epoch == w.t.sessions.losses.Load()
	if fresh {
		if age < rootRound || !r.checking.CompareAndSwap(false, true) {
			r.noteAge(age)
			return o, nil
		}
		defer r.checking.Store(false)
	}
	return r.look(w, o)
}

// look looks at the root key in the token.
func (r *rootKey) look(w *worker, o *rootObject) (*rootObject, error) {
	begin, epoch := w.t.clock(), w.t.sessions.losses.Load()
	permitted, id, err := w.rootState(o.handle)
	if o.epoch == epoch && w.isGone(r.label, o.handle, err) {
		err = w.handleGone()
	}
	switch {
	case isHandleGone(err), err == nil && !bytes.Equal(id, o.ckaID), o.epoch != epoch && isStranger(err):
		r.object.CompareAndSwap(o, nil)
		r.v.cache.flush()
		return nil, errRootMoved
	case err != nil:
		return nil, err
	case !permitted:
		return nil, r.denied(w, "unwrap")
	}
	if o.epoch != epoch {
		seen := &rootObject{handle: o.handle, ckaID: o.ckaID, epoch: epoch}
		r.object.CompareAndSwap(o, seen)
		o = seen
	}
	r.checked.Store(int64(begin))
	return o, nil
}

// denied says that the token does not permit something with the root key, and
// takes what is unwrapped out of use.
func (r *rootKey) denied(w *worker, what string) error {
	r.checked.Store(0)
	r.v.cache.flush()
	return fmt.Errorf("%w: token %s does not permit to %s with %s (CKA_WRAP or CKA_UNWRAP is false)", ErrRootKey, w.t.name, what, r.label)
}

func (r *rootKey) noteAge(age time.Duration) {
	if was := r.worstAge.Load(); int64(age) > was {
		r.worstAge.CompareAndSwap(was, int64(age))
	}
}

// rootState reads what the token permits with a root key, and its CKA_ID.
func (w *worker) rootState(h pkcs11.ObjectHandle) (permitted bool, id []byte, err error) {
	values, err := w.t.attributes(w.session, h, pkcs11.CKA_UNWRAP, pkcs11.CKA_ID)
	if err != nil {
		return false, nil, err
	}
	return values[0] == nil || boolean(values[0]), values[1], nil
}

// rooted runs what needs the root key, and again when the key has been found
// under another handle.
func (v *Vault) rooted(ctx context.Context, attempt func() error) error {
	for n := 1; ; n++ {
		err := attempt()
		if !errors.Is(err, errRootMoved) || n == rootTries {
			return err
		}
		if err := v.root.search(ctx, false); err != nil {
			return err
		}
	}
}

// Lacks says that the vault has lost its root key; "" if not so, as far as is known. It
// does not call the token.
func (v *Vault) Lacks() string {
	if !v.root.lost.Load() {
		return ""
	}
	return fmt.Sprintf("the root key %s is gone", v.root.label)
}

// lookAtRoots looks at the root keys of the token's vaults, so that it is known without
// a request whether they are there.
func (t *Token) lookAtRoots(ctx context.Context) {
	t.life.mu.Lock()
	vaults := slices.Clone(t.life.vaults)
	t.life.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for _, v := range vaults {
		_ = v.rooted(ctx, func() error { // what is the matter is known then
			return t.do(ctx, func(w *worker) error {
				_, err := v.root.usable(w)
				return err
			})
		})
	}
}
