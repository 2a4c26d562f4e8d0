package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// errNotWrappable says that the token does not wrap such keys.
var errNotWrappable = errors.New("the token cannot wrap such a key")

// product is an object that a call has made, with the public key if it is a pair.
type product struct {
	handle pkcs11.ObjectHandle
	public []byte // DER
}

// Generate makes key material in the token and returns it wrapped under the root
// key. No key is looked for, so that the cost does not grow with the token. Where
// the token cannot wrap the spec (Ed25519 in SoftHSM2), it is made resident.
func (v *Vault) Generate(ctx context.Context, id string, spec Spec) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	if s.family == familyEdwards {
		return v.GenerateResident(ctx, id, spec)
	}
	m, err := v.wrapNew(ctx, id, spec, s, func(w *worker) (product, error) {
		return w.generateSpec(s, storage{extractable: true})
	}, func() {})
	if errors.Is(err, errNotWrappable) {
		return v.GenerateResident(ctx, id, spec)
	}
	return m, err
}

// wrapNew returns what produce makes, wrapped. The object is of the session only
// and destroyed afterwards. drop runs once, when produce will not run any more.
func (v *Vault) wrapNew(ctx context.Context, id string, spec Spec, s shape, produce func(*worker) (product, error), drop func()) (Material, error) {
	var out Material
	err := v.runNew(ctx, s, func(w *worker) error {
		m, err := v.wrapOnce(w, spec, s, produce)
		if err == nil {
			m.ID = id
			out = m
		}
		return err
	}, drop)
	if err != nil {
		return Material{}, fmt.Errorf("key %s: %w", id, err) // the call may still write to out
	}
	return out, nil
}

// runNew runs what makes a key of shape s: not in a lane if that takes long, and
// few at once if it takes very long.
func (v *Vault) runNew(ctx context.Context, s shape, run func(*worker) error, drop func()) error {
	n := newDrops(drop)
	defer n.done()
	return v.rooted(ctx, func() error {
		if s.light() {
			return v.t.doInLane(ctx, run, n.add())
		}
		if s.family != familyRSA {
			return v.t.doThen(ctx, run, n.add())
		}
		if err := v.t.pass(ctx, v.slow); err != nil {
			return err
		}
		over := n.add()
		return v.t.doThen(ctx, run, func() {
			<-v.slow
			over()
		})
	})
}

// wrapOnce makes a key, wraps it and destroys it.
func (v *Vault) wrapOnce(w *worker, spec Spec, s shape, produce func(*worker) (product, error)) (m Material, err error) {
	p, err := produce(w)
	if err != nil {
		return m, err
	}
	defer func() {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}()
	m = Material{Spec: spec, Public: p.public}
	if m.Digest, err = w.digest(s, spec, p); err != nil {
		return m, err
	}
	// Looked at now, since under another key that has its handle nobody would
	// ever open what is wrapped.
	root := v.root.object.Load()
	if root == nil {
		return m, errRootMoved
	}
	if root, err = v.root.look(w, root); err != nil {
		return m, err
	}
	m.Wrapped, err = w.t.module.ctx.WrapKey(w.session, keyWrap(), root.handle, p.handle)
	switch {
	case isCode(err, pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID):
		v.root.object.CompareAndSwap(root, nil)
		return m, errRootMoved
	case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return m, v.root.denied(w, "wrap")
	case isCode(err, pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_MECHANISM_INVALID):
		return m, fmt.Errorf("%w: %w", errNotWrappable, w.fail("C_WrapKey", err))
	case err == nil && len(m.Wrapped) == 0:
		err = errors.New("it returned nothing")
	}
	return m, w.fail("C_WrapKey", err)
}

func keyWrap() cryptoki.Mechanism { return cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD) }

// unwrapNow makes a session object of a wrapped key.
func (v *Vault) unwrapNow(w *worker, e *unwrapped) (pkcs11.ObjectHandle, error) {
	s, err := e.spec.shape()
	if err != nil {
		return 0, err
	}
	root, err := v.root.usable(w)
	if err != nil {
		return 0, err
	}
	h, err := w.t.module.ctx.UnwrapKey(w.session, keyWrap(), root.handle, e.wrapped, s.template(storage{}))
	if err == nil {
		return h, nil
	}
	switch {
	case isHandleGone(err):
		v.root.object.CompareAndSwap(root, nil)
		return 0, errRootMoved
	case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return 0, v.root.denied(w, "unwrap")
	}
	return 0, w.refused("C_UnwrapKey", err)
}

// refused tells a bad input, which some tokens call a general error, from a sick
// token: that one does not pass the self-test.
func (w *worker) refused(call string, err error) error {
	failure := w.fail(call, err)
	if isSessionLost(err) || isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY,
		pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_SESSION_COUNT) {
		return failure
	}
	if testErr := w.selfTest(); testErr != nil {
		return errors.Join(failure, testErr)
	}
	return fmt.Errorf("%w (%v)", ErrInvalidMaterial, failure) // %v: it is not the token's failure
}

// generateSpec makes a key or key pair; of a pair only the private key stays.
func (w *worker) generateSpec(s shape, at storage) (product, error) {
	if !s.secret() {
		return w.generatePair(s, at)
	}
	mechanism := uint(pkcs11.CKM_AES_KEY_GEN)
	if s.family == familyHMAC {
		mechanism = pkcs11.CKM_GENERIC_SECRET_KEY_GEN
	}
	template := append(s.template(at), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, s.bytes))
	h, err := w.t.module.ctx.GenerateKey(w.session, cryptoki.Plain(mechanism), template)
	return product{handle: h}, w.fail("C_GenerateKey", err)
}

// generatePair makes a key pair. The public key is a session object, and is read
// and destroyed.
func (w *worker) generatePair(s shape, at storage) (p product, err error) {
	ctx := w.t.module.ctx
	mechanism, public := s.pairGeneration()
	pub, priv, err := ctx.GenerateKeyPair(w.session, cryptoki.Plain(mechanism), public, s.template(at))
	if err != nil {
		return p, w.fail("C_GenerateKeyPair", err)
	}
	p = product{handle: priv}
	p.public, err = w.readPublic(s, pub)
	err = errors.Join(err, w.fail("C_DestroyObject", ctx.DestroyObject(w.session, pub)))
	if err != nil {
		err = errors.Join(err, w.fail("C_DestroyObject", ctx.DestroyObject(w.session, priv)))
	}
	return p, err
}

// pairGeneration returns the mechanism that generates pairs of this shape, and
// the template of their public keys.
func (s shape) pairGeneration() (mechanism uint, public []*pkcs11.Attribute) {
	public = []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}
	if s.family == familyRSA {
		return pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, append(public,
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 8*s.bytes),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	}
	public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, s.ecParams()))
	if s.family == familyEdwards {
		return ckmECEdwardsKeyPairGen, public
	}
	return pkcs11.CKM_EC_KEY_PAIR_GEN, public
}

// readPublic returns the SubjectPublicKeyInfo of a public key object.
func (w *worker) readPublic(s shape, h pkcs11.ObjectHandle) ([]byte, error) {
	if s.family == familyRSA {
		values, err := w.values(h, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
		if err != nil {
			return nil, err
		}
		public, err := encodeRSA(values[0], values[1])
		return public, w.fail("C_GetAttributeValue", err)
	}
	values, err := w.values(h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	public, err := s.encodePoint(s.rawPoint(values[0]))
	return public, w.fail("C_GetAttributeValue", err)
}

// rawPoint returns the point in CKA_EC_POINT: PKCS#11 v2.40 (section 2.3.3) says
// a DER OCTET STRING, and some tokens leave that wrapping out.
func (s shape) rawPoint(value []byte) []byte {
	size := 1 + 2*s.bytes
	if s.family == familyEdwards {
		size = s.bytes
	}
	var point []byte
	if len(value) != size && unmarshal(value, &point) == nil {
		return point
	}
	return value
}
