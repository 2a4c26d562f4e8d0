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
		o = r.known(m.ID)
	}
	switch {
	case o != nil:
		return o, r.usable(o)
	case r.due():
		return nil, errStale // what was found holds no more
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
	known := maps.Clone(r.objects)
	r.mu.Unlock()
	var found map[string]*resident
	var epoch uint64
	err := r.v.t.doSearch(ctx, func(w *worker) error {
		objects, err := r.look(w, known)
		if err == nil {
			found, epoch = objects, w.epoch
		}
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, o := range r.objects {
		if known[id] != o && found[id] == nil {
			found[id] = o // made while the search ran
		}
	}
	r.objects = found
	r.took = r.v.t.clock() - begin
	r.ended = r.v.t.clock()
	r.epoch = epoch
	return nil
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
		if o.epoch == w.epoch {
			ids[o.handle] = id
		}
	}
	found := map[string]*resident{}
	for _, kind := range residentKinds() {
		handles, err := w.findObjects(append(kind, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)))
		if err != nil {
			return nil, err
		}
		for _, h := range handles {
			id, ok := ids[h]
			if !ok {
				if id, ok, err = r.idOf(w, h); err != nil {
					return nil, err
				}
			}
			if ok {
				found[id] = &resident{r: r, id: id, handle: h, epoch: w.epoch, ambiguous: found[id] != nil}
			}
		}
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
	values, err := w.values(h, pkcs11.CKA_LABEL)
	if isCode(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID) {
		return "", false, nil
	} else if err != nil {
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
