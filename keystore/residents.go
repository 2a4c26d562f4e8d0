package keystore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// residents knows the token objects of a vault by their id: all but AES keys,
// which are in the token's index and are used as external keys are.
type residents struct {
	v         *Vault
	searching chan struct{} // capacity 1: held by who searches

	mu      sync.Mutex
	objects map[string]*resident // by id; guarded by mu
	ended   time.Duration        // token clock when the last search ended; 0: to be searched anew; guarded by mu
	took    time.Duration        // how long it took; guarded by mu
	epoch   uint64               // sessionCount.losses when it began; guarded by mu
	had     map[string]bool      // by id: was seen in the token, and is not known to be gone; guarded by mu
	doubted bool                 // something was not found while the token's storage could not be read; guarded by mu

	unread unread
}

// resident is one token object.
type resident struct {
	r         *residents
	id        string
	handle    pkcs11.ObjectHandle
	epoch     uint64 // sessionCount.losses when the handle was got
	ambiguous bool   // another object has the same label
}

func (r *residents) init(v *Vault) {
	r.v, r.searching, r.objects = v, make(chan struct{}, 1), map[string]*resident{}
	r.had = map[string]bool{}
}

// get returns the object of m. One that is not known is searched for, though not
// by each who asks.
func (r *residents) get(ctx context.Context, m *Material) (*resident, error) {
	if o := r.known(m.ID); o != nil {
		return o, r.usable(o)
	}
	if err := r.v.t.pass(ctx, r.searching); err != nil {
		return nil, err
	}
	defer func() { <-r.searching }()
	o := r.known(m.ID)
	if o == nil && r.due() {
		if err := r.search(ctx); err != nil {
			return nil, err
		}
		if o = r.known(m.ID); o == nil {
			if err := r.v.t.vouch(ctx, r.v.label(m.ID)); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case o != nil:
		return o, r.usable(o)
	case r.due():
		return nil, errStale // what was found holds no more
	}
	if err := r.v.t.checkUnread(ctx, &r.unread, r.v.label(m.ID)); err != nil {
		return nil, err
	}
	return nil, r.v.t.notFound(r.v.label(m.ID))
}

func (r *residents) known(id string) *resident {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.objects[id]
	if o == nil || r.stale(o.epoch) {
		return nil
	}
	return o
}

func (r *residents) usable(o *resident) error {
	if o.ambiguous {
		return fmt.Errorf("key %s in token %s: %w: several objects are labelled %s", o.id, r.v.t.name, ErrKeyAmbiguous, r.v.label(o.id))
	}
	return nil
}

// stale reports whether the token has lost its sessions, and perhaps changed its
// handles, since an epoch.
func (r *residents) stale(epoch uint64) bool { return epoch != r.v.t.sessions.losses.Load() }

// due reports whether it is time for another search.
func (r *residents) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended == 0 || r.stale(r.epoch) || r.v.t.clock()-r.ended >= max(minScanGap, scanShare*r.took)
}

// search finds the vault's objects in the token. The caller holds searching.
func (r *residents) search(ctx context.Context) error {
	begin := r.v.t.clock()
	r.mu.Lock()
	r.ended = 0
	r.mu.Unlock()
	f, err := r.searchOnce(ctx)
	if err != nil {
		return err
	}
	if r.lacks(f) {
		if err := r.confirm(ctx, f); err != nil {
			return err
		}
		if f, err = r.searchOnce(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, o := range r.objects {
		if f.known[id] != o && f.objects[id] == nil {
			f.objects[id] = o // made while the search ran
		}
	}
	r.objects, r.had, r.doubted = f.objects, map[string]bool{}, false
	for id := range f.objects {
		r.had[id] = true
	}
	r.took = r.v.t.clock() - begin
	r.ended = r.v.t.clock()
	r.epoch = f.epoch
	return nil
}

// residentsFound is what a search has found.
type residentsFound struct {
	known, objects map[string]*resident // when it began, and found; by id
	epoch          uint64
}

func (r *residents) searchOnce(ctx context.Context) (*residentsFound, error) {
	r.mu.Lock()
	known := maps.Clone(r.objects)
	r.mu.Unlock()
	var f *residentsFound
	err := r.v.t.doSearch(ctx, func(w *worker) error {
		objects, err := r.look(w, known)
		if err == nil {
			f = &residentsFound{known, objects, w.epoch}
		}
		return err
	})
	if err != nil {
		return nil, err // the call may still write to f
	}
	return f, nil
}

// lacks reports whether a search has not found what was there.
func (r *residents) lacks(f *residentsFound) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.had {
		if f.objects[id] == nil {
			return true
		}
	}
	return false
}

// confirm has the token prove that what a search lacks is gone, see absence.go.
func (r *residents) confirm(ctx context.Context, f *residentsFound) error {
	t := r.v.t
	r.mu.Lock()
	vanished, doubted := len(f.objects) == 0 && len(r.had) > 1 && !t.viewedSince(r.epoch), r.doubted
	r.mu.Unlock()
	if vanished {
		return t.sicken("of %s a search finds no object", printable(r.v.label("*")))
	}
	if err := t.checkStorage(); err != nil {
		r.mu.Lock()
		r.doubted = true
		r.mu.Unlock()
		return t.unproven(r.v.label("*"), err)
	}
	if doubted {
		r.mu.Lock()
		r.doubted = false
		r.mu.Unlock()
		return t.sicken("what could not be read may be there")
	}
	return t.proveOrSicken(ctx, false)
}

// look lists the vault's objects. The label of one that is known is not read
// again.
func (r *residents) look(w *worker, known map[string]*resident) (map[string]*resident, error) {
	const tries = 3 // an object that goes while we look may have got another handle
	for n := 1; ; n++ {
		found, err := r.lookOnce(w, known)
		if err == nil || !isHandleGone(err) || n == tries {
			return found, err
		}
	}
}

func (r *residents) lookOnce(w *worker, known map[string]*resident) (map[string]*resident, error) {
	ids := map[pkcs11.ObjectHandle]string{}
	for id, o := range known {
		if o.epoch == w.epoch && w.t.profile.StableHandles {
			ids[o.handle] = id
		}
	}
	found := map[string]*resident{}
	unreadable := map[pkcs11.ObjectHandle]error{}
	for _, kind := range residentKinds() {
		handles, err := w.findObjects(append(kind, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)))
		if err != nil {
			return nil, err
		}
		for _, h := range handles {
			id, ok := ids[h]
			if !ok {
				id, ok, err = r.idOf(w, h)
				if isTold(err) {
					unreadable[h] = err
				} else if err != nil {
					return nil, err
				}
			}
			if ok {
				found[id] = &resident{r: r, id: id, handle: h, epoch: w.epoch, ambiguous: found[id] != nil}
			}
		}
	}
	if err := w.passOver(&r.unread, unreadable); err != nil {
		return nil, err
	}
	return found, w.checkLogin()
}

// residentKinds returns what to search for: pairs by their private keys, and the
// secret keys that are in no index.
func residentKinds() [][]*pkcs11.Attribute {
	return [][]*pkcs11.Attribute{
		{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)},
		{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET)},
	}
}

// idOf returns the id of an object; ok: it is one of the vault's.
func (r *residents) idOf(w *worker, h pkcs11.ObjectHandle) (id string, ok bool, err error) {
	values, err := w.t.attributes(w.session, h, pkcs11.CKA_LABEL)
	if err != nil {
		return "", false, err
	}
	id, ok = strings.CutPrefix(string(values[0]), r.v.label(""))
	return id, ok, nil
}

// put enters an object that was made.
func (r *residents) put(id string, h pkcs11.ObjectHandle, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects[id] = &resident{r: r, id: id, handle: h, epoch: epoch}
	r.had[id] = true
}

// leave takes out an object that was destroyed by this process.
func (r *residents) leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.objects, id)
	delete(r.had, id)
	r.ended = 0
}

// The methods of keyObject.

func (o *resident) object(w *worker) (pkcs11.ObjectHandle, error) {
	if o.epoch != w.epoch {
		return 0, errStale
	}
	return o.handle, nil
}

func (o *resident) release() {}

func (o *resident) discard() {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	if o.r.objects[o.id] == o {
		delete(o.r.objects, o.id)
		o.r.ended = 0 // what was found does not say that it is gone
	}
}

// Residents searches the token for the vault's token objects and returns their
// ids, sorted: to compare them with what the caller has stored.
func (v *Vault) Residents(ctx context.Context) ([]string, error) {
	if v.closed.Load() {
		return nil, fmt.Errorf("vault %s: %w", v.name, ErrClosed)
	}
	if err := v.t.refresh(ctx); err != nil {
		return nil, err
	}
	if err := v.t.pass(ctx, v.residents.searching); err != nil {
		return nil, err
	}
	err := v.residents.search(ctx)
	<-v.residents.searching
	if err != nil {
		return nil, err
	}
	return v.residents.ids(), nil
}

func (r *residents) ids() []string {
	var ids []string
	for label := range r.v.t.index.load() {
		if id, ok := strings.CutPrefix(label, r.v.label("")); ok {
			ids = append(ids, id)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ids = slices.AppendSeq(ids, maps.Keys(r.objects))
	slices.Sort(ids)
	return slices.Compact(ids)
}

// residentKey returns a resident AES key, as the index has it.
func (v *Vault) residentKey(ctx context.Context, id string) (*Key, error) {
	return v.t.find(ctx, v.label(id))
}
