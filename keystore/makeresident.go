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
// to be in use is ErrKeyExists, and two objects of one label are not used. As with
// Generate, what is returned was of use once.
func (v *Vault) GenerateResident(ctx context.Context, id string, spec Spec, uses ...Use) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	at := storage{label: v.label(id), onToken: true}
	o := &order{id: id, spec: spec, shape: s, uses: uses, drop: func() {}}
	if s.family == familyRSA {
		return v.generateResidentRSA(ctx, o, at)
	}
	o.produce = func(w *worker) (product, error) {
		if s.family == familyAES {
			h, err := w.generate(aesTemplate(at.label, newMark(1), KeyUsage{Encrypt: true, Decrypt: true}, true, v.t.profile.SessionCopies))
			return product{handle: h}, err
		}
		return w.generateSpec(s, at)
	}
	return v.makeResident(ctx, o)
}

func (v *Vault) generateResidentRSA(ctx context.Context, o *order, at storage) (Material, error) {
	g, err := v.t.enterGeneration(ctx)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", o.id, err)
	}
	if v.t.profile.SessionCopies {
		return v.copyResident(ctx, o, g)
	}
	o.drop = g.end
	o.produce = func(w *worker) (p product, err error) {
		err = g.in(func(w *worker) error {
			p, err = w.generateSpec(o.shape, at)
			return err
		})(w)
		return p, err
	}
	return v.makeResident(ctx, o)
}

// makeResident makes a token object while nobody searches, see gate.
func (v *Vault) makeResident(ctx context.Context, o *order) (Material, error) {
	if err := v.expectNew(o.id); err != nil {
		o.drop()
		return Material{}, err
	}
	var out Material
	err := v.t.adminThen(ctx, func(w *worker) error {
		m, err := v.finishResident(w, o)
		if err == nil {
			out = m
		}
		return err
	}, o.drop)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", o.id, err) // the call may still write to out
	}
	return out, nil
}

func (v *Vault) expectNew(id string) error {
	if v.t.index.load()[v.label(id)] != nil || v.residents.known(id) != nil {
		return fmt.Errorf("key %s in token %s: %w", v.label(id), v.t.name, ErrKeyExists)
	}
	return nil
}

// finishResident makes a token object, proves it and makes it known.
func (v *Vault) finishResident(w *worker, o *order) (Material, error) {
	p, err := o.produce(w)
	if err != nil {
		return Material{}, unable(err)
	}
	m := Material{ID: o.id, Spec: o.spec, Public: p.public}
	if p.public != nil {
		m.Digest, err = w.digest(o.shape, o.spec, p)
	}
	if err == nil {
		err = v.prove(w, o, &m, p.handle)
	}
	if err == nil {
		err = v.makeKnown(w, o.id, o.shape, p.handle)
	}
	if err != nil {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}
	return m, unable(err)
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
func (v *Vault) copyResident(ctx context.Context, o *order, g *generation) (Material, error) {
	w, err := v.t.newWorker(adminWorker)
	if err != nil {
		g.end()
		return Material{}, err
	}
	defer close(w.calls) // closing its session destroys the first of the two
	var session product
	var over *atomic.Bool // worker.over of its session
	err = v.t.awaitCall(ctx, w, &call{run: g.in(func(w *worker) error {
		p, err := w.generateSpec(o.shape, storage{label: v.label(o.id)})
		session, over = p, w.over
		return err
	}), drop: g.end, slow: g}, nil)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", o.id, unable(err))
	}
	if err := v.expectNew(o.id); err != nil {
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
		o.produce = func(w *worker) (product, error) {
			h, err := w.t.module.ctx.CopyObject(w.session, session.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)})
			return product{handle: h, public: session.public}, w.fail("C_CopyObject", err)
		}
		m, err := v.finishResident(w, o)
		if err == nil {
			out = m
		}
		return err
	}, v.t.leaveChanged, nil)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", o.id, unable(err)) // the call may still write to out
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
	found, err := v.destroyObjects(ctx, s, label)
	if err == nil && found == 0 {
		// That it is not to be seen is not yet that it is gone.
		if err = v.t.vouch(ctx, label); err == nil {
			_, err = v.destroyObjects(ctx, s, label)
		}
	}
	if err != nil {
		return fmt.Errorf("destroy key %s: %w", m.ID, err)
	}
	v.residents.leave(m.ID)
	v.t.leave(label)
	return nil
}

// destroyObjects destroys the token objects with a label, and returns how many it found.
func (v *Vault) destroyObjects(ctx context.Context, s shape, label string) (found int, err error) {
	n := 0
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
		if err == nil {
			n = len(handles)
		}
		return err
	})
	if err != nil {
		return 0, err // the call may still write to n
	}
	return n, nil
}
