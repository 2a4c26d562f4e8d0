package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// draft is a version of a key that is to be made.
type draft struct {
	id      string
	newest  uint32 // version that it follows; 0: the key is not there yet
	mark    mark
	produce func(*worker, mark) (pkcs11.ObjectHandle, error)
	made    pkcs11.ObjectHandle // what produce returned; owned by the worker
}

// GenerateKey makes an AES-256 key in the token: sensitive, never extractable
// unless usage.Replicable says otherwise, for encryption and decryption at most.
func (t *Token) GenerateKey(ctx context.Context, id string, usage KeyUsage) error {
	return t.GenerateKeys(ctx, []string{id}, usage, nil)
}

// GenerateKeys is GenerateKey for many keys, by two searches of the token in all.
// It makes none if one of the ids is there already (ErrKeyExists). When it fails
// later, or ctx ends, the error says how many were made; they stay. Unless it is
// nil, progress is told how many are made by now, by another goroutine but not
// after GenerateKeys has returned; it must not block.
func (t *Token) GenerateKeys(ctx context.Context, ids []string, usage KeyUsage, progress func(done int)) error {
	seen := make(map[string]bool, len(ids))
	drafts := make([]*draft, 0, len(ids))
	for _, id := range ids {
		if seen[id] {
			return fmt.Errorf("key %s is to be made twice", printable(id))
		}
		seen[id] = true
		drafts = append(drafts, t.generated(id, 0, usage))
	}
	return t.create(ctx, drafts, progress, func() {})
}

// generated returns the draft of a version that the token generates.
func (t *Token) generated(id string, newest uint32, usage KeyUsage) *draft {
	return &draft{id: id, newest: newest, mark: newMark(newest + 1), produce: func(w *worker, m mark) (pkcs11.ObjectHandle, error) {
		template := aesTemplate(id, m, usage, true, t.profile.SessionCopies)
		if t.profile.HalfKeys {
			return w.makeWhole(template, nil, w.generate)
		}
		h, err := w.generate(template)
		return h, w.provenExternal(h, usage, err)
	}}
}

// provenExternal has a new external key encrypt and decrypt, if it may, and destroys
// one that does not. err is that of making it.
func (w *worker) provenExternal(h pkcs11.ObjectHandle, usage KeyUsage, err error) error {
	if err == nil && usage.Encrypt && usage.Decrypt {
		if err = w.roundTrip(h); err != nil {
			err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
		}
	}
	return unable(err)
}

// ImportKey stores 32 bytes of key material as a key, which then is sensitive
// and not extractable. The caller wipes material.
func (t *Token) ImportKey(ctx context.Context, id string, usage KeyUsage, material []byte) error {
	if len(material) != aes256KeyLength {
		return fmt.Errorf("key material has %d bytes: AES-256 takes %d", len(material), aes256KeyLength)
	}
	own := slices.Clone(material)
	d := &draft{id: id, mark: newMark(1), produce: func(w *worker, m mark) (pkcs11.ObjectHandle, error) {
		template := append(aesTemplate(id, m, usage, true, t.profile.SessionCopies), pkcs11.NewAttribute(pkcs11.CKA_VALUE, own))
		h, err := w.t.module.ctx.CreateObject(w.session, template)
		return h, w.provenExternal(h, usage, w.fail("C_CreateObject", err))
	}}
	return t.create(ctx, []*draft{d}, nil, func() { clear(own) })
}

// RotateKey makes a new version of a key, with the usage of the newest, and
// returns its number. Older versions stay as they are.
func (t *Token) RotateKey(ctx context.Context, id string) (uint32, error) {
	return t.rotate(ctx, id, VersionInfo.replicable)
}

// RotateKeyAs is RotateKey for a version that can be replicated in another way than
// the newest.
func (t *Token) RotateKeyAs(ctx context.Context, id string, as Replicable) (uint32, error) {
	return t.rotate(ctx, id, func(VersionInfo) Replicable { return as })
}

func (t *Token) rotate(ctx context.Context, id string, as func(newest VersionInfo) Replicable) (uint32, error) {
	info, err := t.Describe(ctx, id)
	if err != nil {
		return 0, err
	}
	if info.Disabled {
		return 0, fmt.Errorf("key %s in token %s: %w: enable it first", id, t.name, ErrKeyDisabled)
	}
	newest := info.Newest()
	d := t.generated(id, newest.Number, KeyUsage{Encrypt: newest.Encrypt, Decrypt: newest.Decrypt, Replicable: as(newest)})
	return d.mark.version, t.create(ctx, []*draft{d}, nil, func() {})
}

// create makes what drafts describe. Two processes may make the same version at
// once: each looks again afterwards, and one that finds a twin of its object
// takes its own away. drop runs once, when nothing of drafts is used any more.
func (t *Token) create(ctx context.Context, drafts []*draft, progress func(int), drop func()) error {
	for _, d := range drafts {
		if err := ValidateID(d.id); err != nil {
			drop()
			return err
		}
	}
	total, made := len(drafts), &tally{progress: progress}
	err := t.adminThen(ctx, func(w *worker) error { return w.create(ctx, drafts, made) }, drop)
	n := made.end()
	switch {
	case err == nil:
		return t.refresh(ctx)
	case n == 0:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%d of %d keys were made, and perhaps one more: %w", n, total, err)
	}
	return fmt.Errorf("%d of %d keys were made: %w", n, total, err)
}

// create makes the drafts in their order until one fails or ctx ends.
func (w *worker) create(ctx context.Context, drafts []*draft, made *tally) error {
	before, err := w.objectsOf(drafts, nil)
	if err != nil {
		return err
	}
	if w.t.profile.HalfKeys {
		w.sweepStaged()
	}
	groups := byLabel(before)
	for _, d := range drafts {
		if err := w.t.expectNewest(d.id, groups[d.id], d.newest); err != nil {
			return err
		}
	}
	for i, d := range drafts {
		if err = ctx.Err(); err == nil {
			d.made, err = d.produce(w, d.mark)
		}
		if err != nil {
			drafts = drafts[:i]
			break
		}
		made.add(1)
	}
	if len(drafts) == 0 {
		return err
	}
	return errors.Join(err, w.removeTwins(drafts, before, made))
}

// removeTwins destroys those of our objects that another process made as well.
func (w *worker) removeTwins(drafts []*draft, before []object, made *tally) error {
	known := make(map[pkcs11.ObjectHandle]object, len(before)+len(drafts))
	for _, o := range before {
		known[o.handle] = o
	}
	for _, d := range drafts {
		known[d.made] = object{handle: d.made, label: d.id, ckaID: d.mark.bytes()}
	}
	w.t.noticeChanges()
	after, err := w.objectsOf(drafts, known)
	if err != nil {
		return fmt.Errorf("look whether another process made the same: %w", err)
	}
	groups := byLabel(after)
	var errs []error
	for _, d := range drafts {
		twins := slices.DeleteFunc(groups[d.id], func(o numbered) bool { return o.number != d.mark.version })
		if len(twins) > 1 {
			made.add(-1)
			errs = append(errs,
				fmt.Errorf("key %s in token %s: %w: another process made version %d at the same time; look at it and try again", d.id, w.t.name, ErrKeyExists, d.mark.version),
				w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, d.made)))
		}
	}
	return errors.Join(errs...)
}

// objectsOf returns the objects of the drafts' keys by one search, perhaps with
// others. The token walks all of its objects whether one label is asked for or
// none.
func (w *worker) objectsOf(drafts []*draft, known map[pkcs11.ObjectHandle]object) ([]object, error) {
	if len(drafts) == 1 {
		return w.objects(drafts[0].id, known)
	}
	return w.objects("", known)
}

func (t *Token) expectNewest(id string, have []numbered, newest uint32) error {
	switch {
	case len(have) == 0 && newest == 0:
		return nil
	case len(have) == 0:
		return t.notFound(id)
	case newest == 0:
		return fmt.Errorf("key %s in token %s: %w", id, t.name, ErrKeyExists)
	case have[len(have)-1].number != newest:
		return fmt.Errorf("key %s in token %s was rotated by somebody else meanwhile: look at it and try again", id, t.name)
	}
	return nil
}

// tally counts what a worker has made for a caller who may leave before.
type tally struct {
	mu       sync.Mutex
	n        int       // guarded by mu
	over     bool      // the caller has taken n and gone; guarded by mu
	progress func(int) // may be nil; called under mu
}

func (c *tally) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.n += n; c.progress != nil && n > 0 {
		c.progress(c.n)
	}
}

// end returns the count, which stays.
func (c *tally) end() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	return c.n
}
