package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// GenerateResident makes key material in the token as a token object that never
// leaves it, labelled hyok.kms.VAULT.ID. The id must be fresh: one that is known
// to be in use is ErrKeyExists, and two objects of one label are not used.
func (v *Vault) GenerateResident(ctx context.Context, id string, spec Spec) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	at := storage{label: v.label(id), onToken: true}
	if s.family == familyRSA && v.t.profile.SessionCopies {
		return v.copyResident(ctx, id, spec, s)
	}
	return v.makeResident(ctx, id, spec, s, func(w *worker) (product, error) {
		if s.family == familyAES {
			h, err := w.generate(aesTemplate(at.label, newMark(1), KeyUsage{Encrypt: true, Decrypt: true}, true, v.t.profile.SessionCopies))
			return product{handle: h}, err
		}
		return w.generateSpec(s, at)
	}, func() {})
}

// makeResident makes a token object while nobody searches, see gate. drop runs
// once, when produce will not run any more.
func (v *Vault) makeResident(ctx context.Context, id string, spec Spec, s shape, produce func(*worker) (product, error), drop func()) (Material, error) {
	if err := v.expectNew(id); err != nil {
		drop()
		return Material{}, err
	}
	var out Material
	err := v.t.adminThen(ctx, func(w *worker) error {
		m, err := v.finishResident(w, id, spec, s, produce)
		if err == nil {
			out = m
		}
		return err
	}, drop)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", id, err) // the call may still write to out
	}
	return out, nil
}

func (v *Vault) expectNew(id string) error {
	if v.t.index.load()[v.label(id)] != nil || v.residents.known(id) != nil {
		return fmt.Errorf("key %s in token %s: %w", v.label(id), v.t.name, ErrKeyExists)
	}
	return nil
}

// finishResident makes a token object and makes it known.
func (v *Vault) finishResident(w *worker, id string, spec Spec, s shape, produce func(*worker) (product, error)) (Material, error) {
	p, err := produce(w)
	if err != nil {
		return Material{}, err
	}
	m := Material{ID: id, Spec: spec, Public: p.public}
	m.Digest, err = w.digest(s, spec, p)
	if err == nil {
		err = v.makeKnown(w, id, s, p.handle)
	}
	if err != nil {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}
	return m, err
}

func (v *Vault) makeKnown(w *worker, id string, s shape, h pkcs11.ObjectHandle) error {
	if s.family != familyAES {
		v.residents.put(id, h, w.epoch)
		return nil
	}
	o, _, err := w.describe(h)
	if err == nil {
		w.t.enter(o, w.epoch)
	}
	return err
}

// copyResident makes an RSA pair in the session and copies it to the token, so
// that searches wait for the copying only.
func (v *Vault) copyResident(ctx context.Context, id string, spec Spec, s shape) (Material, error) {
	w, err := v.t.newWorker(adminWorker)
	if err != nil {
		return Material{}, err
	}
	defer close(w.calls) // closing its session destroys the first of the two
	var session product
	var over *atomic.Bool // worker.over of its session
	if err := v.t.pass(ctx, v.slow); err != nil {
		return Material{}, err
	}
	err = v.t.await(ctx, w, func(w *worker) error {
		p, err := w.generateSpec(s, storage{label: v.label(id)})
		session, over = p, w.over
		return err
	}, func() { <-v.slow }, nil)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", id, err)
	}
	if err := v.expectNew(id); err != nil {
		return Material{}, err
	}
	if err := v.t.enterChange(ctx); err != nil {
		return Material{}, err
	}
	var out Material
	err = v.t.await(ctx, w, func(w *worker) error {
		if over != w.over { // the handle may be another object's
			return fmt.Errorf("token %s lost the session meanwhile: %w", v.t.name, errStale)
		}
		m, err := v.finishResident(w, id, spec, s, func(w *worker) (product, error) {
			h, err := w.t.module.ctx.CopyObject(w.session, session.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)})
			return product{handle: h, public: session.public}, w.fail("C_CopyObject", err)
		})
		if err == nil {
			out = m
		}
		return err
	}, v.t.leaveChanged, nil)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", id, err) // the call may still write to out
	}
	return out, nil
}

// Destroy ends the use of material: an unwrapped key is destroyed, and so is a
// resident one, for ever. What is not there is destroyed already.
func (v *Vault) Destroy(ctx context.Context, m Material) error {
	s, err := v.check(m.ID, m.Spec)
	if err != nil {
		return err
	}
	if !m.Resident() {
		v.cache.drop(m.ID)
		return nil
	}
	label := v.label(m.ID)
	err = v.t.admin(ctx, func(w *worker) error {
		handles, err := w.findObjects(append(s.identity(), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)))
		if err == nil {
			err = w.checkLogin()
		}
		for _, h := range handles {
			if e := w.t.module.ctx.DestroyObject(w.session, h); err == nil && !isHandleGone(e) {
				err = w.fail("C_DestroyObject", e)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("destroy key %s: %w", m.ID, err)
	}
	v.residents.leave(m.ID)
	v.t.leave(label)
	return nil
}
