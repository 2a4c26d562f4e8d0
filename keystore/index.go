package keystore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/time/rate"
)

// A search of a token walks all of its objects (SoftHSM2 takes a quarter of a
// second for 10,000), so no request may cause one. The index knows every AES key by
// its label; it is read without a lock and replaced as a whole. A search runs
// now and then in the background, for an id or version that the index does not
// know if the last one is not fresh, and after a known handle has become
// invalid.

// Key is an external key: all AES-256 keys of one label in one token, which are
// its versions. A Key is a name, not a handle: it may outlive what it names.
type Key struct {
	token     *Token
	id        string
	versions  []*version // ascending by number, at least one unless ambiguous
	ambiguous bool       // two objects claim to be the same version
	partial   bool       // a version was forgotten: only a search tells which is the newest
}

// version is one token object. Its handle and number never change; another
// object gets another version.
type version struct {
	number uint32
	handle pkcs11.ObjectHandle
	ckaID  []byte // as it was when the object was indexed
	// epoch is the last one of sessionCount.losses in which the handle was seen to
	// be this object's. After a loss a token may give it to another one.
	epoch atomic.Uint64
	// confirmed is the token clock when it was last seen to be; not kept up where
	// handles are stable.
	confirmed atomic.Int64

	uses   atomic.Uint32 // operations since the copy keeper last looked
	sealed atomic.Uint64 // encryptions by this process, see countSeal
	single bool          // cannot be copied; owned by the copy keeper
	// backoff is of attempts to copy it; owned by the copy keeper.
	backoff backoff
	copy    atomic.Pointer[sessionCopy] // set and taken away by the copy keeper; any operation may take it away
}

// keyIndex maps ids to keys.
type keyIndex struct {
	keys atomic.Pointer[map[string]*Key] // immutable once stored; replaced under mu

	mu       sync.Mutex
	scanning *scan         // the search that is running; guarded by mu
	took     time.Duration // how long the last search took; guarded by mu
	scanned  bool          // it succeeded; guarded by mu
	stale    bool          // a key was forgotten since it began; guarded by mu
	unknown  *rate.Limiter // of searches for unknown ids; its limit is set under mu
	presence presence      // guarded by mu

	unread unread // AES keys
}

// scan is one search of the token.
type scan struct {
	began time.Duration // token clock
	done  chan struct{}
	err   error // valid once done is closed
}

const (
	minScanGap      = 200 * time.Millisecond // between two searches for unknown ids, and
	scanShare       = 20                     // they take at most 1/20 of the time; but for
	scanBurst       = 5                      // so many at once: a key that was just made is asked for at once
	rescanShare     = 100                    // background searches take at most 1/100 of it
	scanTimeout     = time.Minute
	reservedPrefix  = "hyok." // labels of hyok's own keys, which are no external keys
	aes256KeyLength = 32
)

// SearchInterval is the least time between two background searches, by which a
// version that another process made is noticed. It grows with the token, since
// searches take at most a hundredth of the time.
const SearchInterval = 10 * time.Second

func (x *keyIndex) init() {
	x.keys.Store(&map[string]*Key{})
	x.presence.init()
	x.unknown = rate.NewLimiter(rate.Every(minScanGap), scanBurst)
}

// due reports whether there may be another search for an unknown id. mu is held.
func (x *keyIndex) due() bool { return !x.scanned || x.stale || x.unknown.Allow() }

// look reports whether there may be a search for what is not in the index beside
// those that renew it.
func (x *keyIndex) look() bool { return x.unknown.Allow() }

func (x *keyIndex) load() map[string]*Key { return *x.keys.Load() }

// external returns how many external keys there are.
func (x *keyIndex) external() int {
	n := 0
	for id := range x.load() {
		if !isReserved(id) {
			n++
		}
	}
	return n
}

// has reports whether a version is in the index still.
func (x *keyIndex) has(id string, v *version) bool {
	k, ok := x.load()[id]
	return ok && slices.Contains(k.versions, v)
}

// Find returns the key with this id. A known id costs no call of the module; an
// unknown one costs at most one search for all who ask at the same time. The
// keys of a Vault are not found.
func (t *Token) Find(ctx context.Context, id string) (*Key, error) {
	if isReserved(id) {
		return nil, t.notFound(id)
	}
	return t.find(ctx, id)
}

// find is Find for keys of a Vault too, whose ids are their labels.
func (t *Token) find(ctx context.Context, id string) (*Key, error) {
	k, ok := t.index.load()[id]
	if !ok || k.partial {
		var err error
		if k, err = t.locate(ctx, id, 0, false); err != nil {
			return nil, err
		}
	}
	if k.ambiguous {
		return nil, t.ambiguous(id)
	}
	return k, nil
}

func (t *Token) ambiguous(id string) error {
	return fmt.Errorf("key %s in token %s: %w: several objects with this label claim to be the same version; rename or delete all but one", id, t.name, ErrKeyAmbiguous)
}

// Has reports whether the index has an external key with this id, without a
// search.
func (t *Token) Has(id string) bool {
	_, ok := t.index.load()[id]
	return ok && !isReserved(id)
}

// locate returns a key that has a version (0: any) after a search: if forced, after
// one that began after the call; else it is said not to be there only after such
// a one, or if none is due. The key may be ambiguous.
func (t *Token) locate(ctx context.Context, id string, number uint32, force bool) (*Key, error) {
	asked := t.clock()
	for {
		s, err := t.search(asked, force)
		if err != nil {
			return nil, err
		}
		// A search that had begun before may have passed the object by before it
		// was made or changed.
		sure := true
		if s != nil {
			if err := t.awaitSearch(ctx, s); err != nil {
				return nil, err
			}
			if sure = s.began >= asked; sure && s.err != nil {
				return nil, s.err
			}
		}
		x := &t.index
		x.mu.Lock()
		k, ok := x.load()[id]
		stale := x.stale || x.scanning != nil // which somebody began who has found it gone
		unproven := x.presence.unproven(id, number)
		x.mu.Unlock()
		switch {
		case (sure || !force) && ok && !k.partial && (number == 0 || k.version(number) != nil):
			return k, nil
		// Whoever found its handle invalid meanwhile has taken it away: that it
		// is not in the index says nothing then.
		case sure && !stale && unproven != nil:
			return nil, t.unproven(id, unproven)
		case sure && !stale:
			if err := t.checkUnread(ctx, &t.index.unread, id); err != nil {
				return nil, err
			}
			return nil, t.notFound(id)
		}
	}
}

func (t *Token) notFound(id string) error {
	return fmt.Errorf("token %s: %w: %s", t.name, ErrKeyNotFound, printable(id))
}

// refresh waits for a search that began after the call.
func (t *Token) refresh(ctx context.Context) error {
	asked := t.clock()
	for {
		s, err := t.search(asked, true)
		if err != nil {
			return err
		}
		if err := t.awaitSearch(ctx, s); err != nil {
			return err
		}
		if s.began >= asked {
			return s.err
		}
	}
}

// awaitSearch waits for the end of a search, whose error is then valid.
func (t *Token) awaitSearch(ctx context.Context, s *scan) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("token %s: the search for keys takes longer: %w", t.name, ctx.Err())
	}
}

// search returns the search to wait for, starting one if none runs; nil if none is
// due and it is not forced.
func (t *Token) search(asked time.Duration, force bool) (*scan, error) {
	x := &t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.scanning != nil {
		return x.scanning, nil
	}
	if !force && !x.due() {
		return nil, nil
	}
	s := &scan{done: make(chan struct{}), began: max(t.clock(), asked)}
	x.scanning, x.stale = s, false
	// Not bound to a caller's context: the next one who asks wants the result.
	if !t.start(func() { t.runScan(s) }) {
		x.scanning = nil
		return nil, t.closedError()
	}
	return s, nil
}

func (t *Token) runScan(s *scan) {
	ctx, cancel := context.WithTimeout(t.background, scanTimeout)
	defer cancel()
	s.err = t.scan(ctx)
	x := &t.index
	x.mu.Lock()
	x.scanning = nil
	x.took = t.clock() - s.began
	x.unknown.SetLimit(rate.Every(max(minScanGap, scanShare*x.took)))
	x.scanned = s.err == nil
	x.mu.Unlock()
	close(s.done)
}

// keepIndex searches the token again and again, so that keys and versions that
// other processes make or delete are noticed without a request for them.
func (t *Token) keepIndex(ctx context.Context) {
	for {
		if err := t.refresh(ctx); err != nil && ctx.Err() == nil {
			t.log.Error("the search for keys failed", "error", err)
		}
		t.index.mu.Lock()
		pause := max(SearchInterval, rescanShare*t.index.took)
		t.index.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// Refresh searches the token now.
func (t *Token) Refresh(ctx context.Context) error { return t.refresh(ctx) }

// object is what the index needs to know of a token object.
type object struct {
	handle pkcs11.ObjectHandle
	label  string
	ckaID  []byte
}

// knownObjects returns the objects that are known to be under their handles.
func knownObjects(keys map[string]*Key, epoch uint64) map[pkcs11.ObjectHandle]object {
	known := make(map[pkcs11.ObjectHandle]object, len(keys))
	for id, k := range keys {
		for _, v := range k.versions {
			if v.epoch.Load() == epoch {
				known[v.handle] = object{handle: v.handle, label: id, ckaID: v.ckaID}
			}
		}
	}
	return known
}

// place of a version in the index.
type indexed struct {
	id     string
	handle pkcs11.ObjectHandle
}

func knownVersions(keys map[string]*Key) map[indexed]*version {
	known := make(map[indexed]*version, len(keys))
	for id, k := range keys {
		for _, v := range k.versions {
			known[indexed{id, v.handle}] = v
		}
	}
	return known
}

// buildKeys groups objects, as they were found in an epoch, by label. Versions that
// are known keep their counters and copies.
func buildKeys(t *Token, objects []object, known map[indexed]*version, epoch uint64) map[string]*Key {
	groups := byLabel(objects)
	keys := make(map[string]*Key, len(groups))
	for id, group := range groups {
		group, _ = settle(group)
		k := &Key{token: t, id: id, ambiguous: ambiguous(group), versions: make([]*version, 0, len(group))}
		for _, o := range group {
			v := known[indexed{id, o.handle}]
			if v == nil || v.number != o.number || !bytes.Equal(v.ckaID, o.ckaID) {
				v = &version{number: o.number, handle: o.handle, ckaID: o.ckaID}
			}
			v.epoch.Store(epoch)
			k.versions = append(k.versions, v)
		}
		keys[id] = k
	}
	return keys
}

// forget takes a version whose object is gone out of the index.
func (t *Token) forget(id string, gone *version) {
	x := &t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.load()
	k, ok := old[id]
	if !ok || !slices.Contains(k.versions, gone) {
		return
	}
	keys := maps.Clone(old)
	rest := slices.DeleteFunc(slices.Clone(k.versions), func(v *version) bool { return v == gone })
	if len(rest) == 0 {
		delete(keys, id)
	} else {
		keys[id] = &Key{token: t, id: id, versions: rest, ambiguous: k.ambiguous, partial: true}
	}
	x.keys.Store(&keys)
	x.stale = true // it may be there under another handle
}

// enter adds an object that was just made to the index. A search that had begun
// before may take it away again; whoever asks for it then causes another.
func (t *Token) enter(o object, epoch uint64) {
	x := &t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	keys := maps.Clone(x.load())
	for id, k := range buildKeys(t, []object{o}, nil, epoch) {
		keys[id] = k
		x.presence.enter(id, o.number())
	}
	x.keys.Store(&keys)
}

// leave takes a key whose objects were destroyed out of the index.
func (t *Token) leave(id string) {
	t.index.mu.Lock()
	t.index.presence.drop(id)
	t.index.mu.Unlock()
	if k, ok := t.index.load()[id]; ok {
		for _, v := range k.versions {
			t.forget(id, v)
		}
	}
}

// objects returns the keys of the index with a label, or all of them. Those that
// are known are not asked again.
func (w *worker) objects(label string, known map[pkcs11.ObjectHandle]object) ([]object, error) {
	found, _, err := w.allObjects(label, known)
	return found, err
}

// allObjects is objects that also returns the labels of hyok's own keys that are not
// in the index.
func (w *worker) allObjects(label string, known map[pkcs11.ObjectHandle]object) (found []object, own []string, err error) {
	const tries = 3 // an object that goes while we look may have got another handle
	for n := 1; ; n++ {
		found, own, err := w.objectsOnce(label, known)
		if err == nil || !isHandleGone(err) || n == tries {
			return found, own, err
		}
	}
}

func (w *worker) objectsOnce(label string, known map[pkcs11.ObjectHandle]object) (found []object, own []string, err error) {
	handles, err := w.findKeys(label)
	if err != nil {
		return nil, nil, err
	}
	found = make([]object, 0, len(handles))
	unreadable := map[pkcs11.ObjectHandle]error{}
	for _, h := range handles {
		if o, ok := known[h]; ok && w.t.profile.StableHandles {
			found = append(found, o)
			continue
		}
		o, ok, err := w.describe(h)
		switch {
		case isTold(err) && label == "":
			unreadable[h] = err
		case err != nil:
			return nil, nil, err
		case ok:
			found = append(found, o)
		case isReserved(o.label):
			own = append(own, o.label)
		}
	}
	if label != "" {
		return found, own, nil
	}
	return found, own, w.passOver(&w.t.index.unread, unreadable)
}

// findKeys returns the handles of all AES token keys, or of those with a label.
// CKA_TOKEN must be said, since session copies carry the same label.
func (w *worker) findKeys(label string) ([]pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	handles, err := w.findObjects(template)
	if err != nil {
		return nil, err
	}
	// To a session that is not logged in, keys are not there: what was found
	// counts only if the login held until now.
	return handles, w.checkLogin()
}

// checkLogin fails as a lost session does unless the user is logged in.
func (w *worker) checkLogin() error {
	if !w.t.info.loginRequired() {
		return nil
	}
	si, err := w.t.module.ctx.GetSessionInfo(w.session)
	if err == nil && si.State != pkcs11.CKS_RO_USER_FUNCTIONS && si.State != pkcs11.CKS_RW_USER_FUNCTIONS {
		err = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return w.fail("C_GetSessionInfo", err)
}

func (w *worker) findObjects(template []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	handles, err := w.t.module.ctx.FindObjects(w.session, template)
	return handles, w.fail("C_FindObjects", err)
}

// handleForce is how long a handle is believed to be the same object's where another
// may get it.
const handleForce = 700 * time.Millisecond

// confirm makes sure that a handle still is that of a version, should the token have
// lost its sessions since it was seen to be, or give handles anew.
func (w *worker) confirm(id string, v *version) error {
	seen, begin := v.epoch.Load() == w.epoch, w.t.clock()
	if seen && (w.t.profile.StableHandles || begin-time.Duration(v.confirmed.Load()) < handleForce) {
		return nil
	}
	o, ok, err := w.describe(v.handle)
	switch {
	case err != nil && seen:
		return nil // the operation itself tells what the matter is
	case err != nil && !isStranger(err):
		return err
	case err != nil || !ok || o.label != id || !bytes.Equal(o.ckaID, v.ckaID):
		return w.fail("C_GetAttributeValue", pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID))
	}
	v.epoch.Store(w.epoch)
	v.confirmed.Store(int64(begin))
	return nil
}

// describe reads what the index needs of one object; ok is false for objects
// that are not in it: of another length than 256 bits, without a label, or
// hyok's own but for the resident keys of vaults.
func (w *worker) describe(h pkcs11.ObjectHandle) (o object, ok bool, err error) {
	values, err := w.t.attributes(w.session, h, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return o, false, err
	}
	o = object{handle: h, label: string(values[0]), ckaID: values[1]}
	_, marked := parseMark(o.ckaID)
	size := uint64(aes256KeyLength) // of a sensitive key some modules do not tell it
	if values[2] != nil {
		size = ulong(values[2])
	}
	// SoftHSM2 does not tell the length of a key that was unwrapped: of one with
	// our mark it is known.
	if size != aes256KeyLength && (size != 0 || !marked) {
		return o, false, nil
	}
	return o, o.label != "" && (!isReserved(o.label) || strings.HasPrefix(o.label, residentPrefix)), nil
}
