package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// errNotWrappable says that the token does not wrap such keys.
var errNotWrappable = errors.New("the token cannot wrap such a key")

// product is an object that a call has made, with the public key if it is a pair.
type product struct {
	handle  pkcs11.ObjectHandle
	public  []byte // DER
	foreign bool   // its secret was made elsewhere
}

// order says which key material is to be made, and how.
type order struct {
	id    string
	spec  Spec
	shape shape
	uses  []Use       // of a pair, which it is proven for
	trial bool        // nothing of it stays
	slow  *generation // that produce is; nil: none
	// produce makes the object, and drop runs once, when produce will not run any
	// more.
	produce func(*worker) (product, error)
	drop    func()
}

// Generate makes key material in the token and returns it wrapped under the root
// key. No key is looked for, so that the cost does not grow with the token. Where
// the token cannot wrap the spec (Ed25519 in SoftHSM2), it is made resident.
//
// What is returned was unwrapped and of use once, a pair for uses, or else for
// signing. ErrUnsupported: the token does not make or use such keys.
func (v *Vault) Generate(ctx context.Context, id string, spec Spec, uses ...Use) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	if wraps, known := v.wrappable.of(s.family); known && !wraps {
		return v.GenerateResident(ctx, id, spec, uses...)
	}
	m, err := v.generateWrapped(ctx, &order{id: id, spec: spec, shape: s, uses: uses, drop: func() {}, produce: func(w *worker) (product, error) {
		return w.generateSpec(s, storage{extractable: true})
	}})
	if errors.Is(err, errNotWrappable) {
		v.wrappable.note(s.family, false) // so that the next one is not made in vain
		return v.GenerateResident(ctx, id, spec, uses...)
	}
	return m, err
}

// generateWrapped is wrapNew for an order that generates.
func (v *Vault) generateWrapped(ctx context.Context, o *order) (Material, error) {
	if o.shape.family == familyRSA {
		var err error
		if o.slow, err = v.t.enterGeneration(ctx); err != nil {
			return Material{}, fmt.Errorf("key %s: %w", o.id, err)
		}
	}
	return v.wrapNew(ctx, o)
}

// wrapNew returns what an order makes, wrapped. The object is of the session only
// and destroyed afterwards.
func (v *Vault) wrapNew(ctx context.Context, o *order) (Material, error) {
	var out Material
	err := v.runNew(ctx, o.shape, o.slow, func(w *worker) error {
		m, err := v.wrapOnce(w, o)
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

// runNew runs what makes a key of shape s: not in a lane if that takes long. The
// generation g, if it is one, ends with it.
func (v *Vault) runNew(ctx context.Context, s shape, g *generation, run func(*worker) error, drop func()) error {
	n := newDrops(func() {
		if g != nil {
			g.end()
		}
		drop()
	})
	defer n.done()
	return v.rooted(ctx, func() error {
		switch {
		case g != nil:
			return v.t.generate(ctx, g, run, n.add())
		case s.light():
			return v.t.doInLane(ctx, run, n.add())
		}
		return v.t.doThen(ctx, run, n.add())
	})
}

// wrapOnce makes a key, wraps it and destroys it. What was wrapped stays unwrapped
// in the cache.
func (v *Vault) wrapOnce(w *worker, o *order) (m Material, err error) {
	p, err := o.produce(w)
	if err != nil {
		return m, unable(err)
	}
	defer func() {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}()
	m = Material{ID: o.id, Spec: o.spec, Public: p.public}
	if p.foreign || p.public != nil {
		if m.Digest, err = w.digest(o.shape, o.spec, p); err != nil {
			return m, unable(err)
		}
	}
	h, err := v.wrap(w, o, &m, p.handle)
	if err != nil {
		return m, err
	}
	if o.trial {
		return m, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h))
	}
	v.cache.adopt(w, &m, h)
	return m, nil
}

// wrap wraps a key by the first key wrap of the token that it can be unwrapped by,
// and returns the unwrapped one.
func (v *Vault) wrap(w *worker, o *order, m *Material, key pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	listed, err := w.keyWraps(v.wrappable.way(o.shape.family))
	if err != nil {
		return 0, err
	}
	refused := fmt.Errorf("%w: %w", errNotWrappable, w.t.noKeyWrap())
	for _, m.Wrap = range listed {
		h, err := v.wrapBy(w, o, m, key)
		if errors.Is(err, errNotWrappable) {
			refused = err
			continue
		}
		if err == nil {
			v.wrappable.noteWay(o.shape.family, m.Wrap)
		}
		return h, err
	}
	return 0, refused
}

// wrapBy wraps a key by m.Wrap, unwraps it and proves what comes out.
func (v *Vault) wrapBy(w *worker, o *order, m *Material, key pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	// Looked at now, since under another key that has its handle nobody would
	// ever open what is wrapped.
	root := v.root.object.Load()
	if root == nil {
		return 0, errRootMoved
	}
	root, err := v.root.look(w, root)
	if err != nil {
		return 0, err
	}
	m.Wrapped, err = w.t.module.ctx.WrapKey(w.session, m.Wrap.mechanism(), root.handle, key)
	switch {
	case isCode(err, pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID):
		v.root.object.CompareAndSwap(root, nil)
		return 0, errRootMoved
	case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return 0, v.root.denied(w, "wrap")
	case isLacking(err), isCode(err, pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_KEY_UNEXTRACTABLE):
		return 0, fmt.Errorf("%w: %w", errNotWrappable, w.fail("C_WrapKey", err))
	case err == nil && len(m.Wrapped) == 0:
		err = errors.New("it returned nothing")
	}
	if err != nil {
		return 0, w.fail("C_WrapKey", err)
	}
	h, err := w.unwrapBy(m.Wrap, root.handle, m, o.shape)
	if isUnwrapRefused(err) {
		return 0, fmt.Errorf("%w so that it is unwrapped again: %w", errNotWrappable, err)
	} else if err != nil {
		return 0, v.unwrapFailed(w, root, err)
	}
	if err := unable(v.prove(w, o, m, h)); err != nil {
		return 0, errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h)))
	}
	return h, nil
}

// isUnwrapRefused reports whether err says that a token does not unwrap such keys.
func isUnwrapRefused(err error) bool {
	return isLacking(err) || isTemplateRefused(err) ||
		isCode(err, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE)
}

// unable says of a token that it does not make or use such keys, if that is what err
// says.
func unable(err error) error {
	if !errors.Is(err, ErrUnsupported) && (isLacking(err) || isTemplateRefused(err) || isCode(err, pkcs11.CKR_KEY_SIZE_RANGE)) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// unwrapNow makes a session object of a wrapped key.
func (v *Vault) unwrapNow(w *worker, m *Material) (pkcs11.ObjectHandle, error) {
	s, err := m.Spec.shape()
	if err != nil {
		return 0, err
	}
	root, err := v.root.usable(w)
	if err != nil {
		return 0, err
	}
	h, err := w.unwrap(root.handle, m, s)
	if err != nil {
		return 0, w.wrappedBy(m.Wrap, v.unwrapFailed(w, root, err))
	}
	return h, nil
}

// wrappedBy says of what does not open by which key wrap it was wrapped, and that the
// token does not support it if it does not list that.
func (w *worker) wrappedBy(k KeyWrap, err error) error {
	listed, listErr := w.keyWraps(k)
	if listErr == nil && !slices.Contains(listed, k) && errors.Is(err, ErrWrappedKey) {
		return fmt.Errorf("%w: it was wrapped by %s, which token %s does not list: %w", ErrUnsupported, k.Mechanism(), w.t.name, err)
	}
	return fmt.Errorf("wrapped by %s: %w", k.Mechanism(), err)
}

// unwrapFailed says what it means that the token did not unwrap what it wrapped. It
// never is anything of a caller's.
func (v *Vault) unwrapFailed(w *worker, root *rootObject, err error) error {
	switch {
	case isHandleGone(err):
		v.root.object.CompareAndSwap(root, nil)
		return errRootMoved
	case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return v.root.denied(w, "unwrap")
	}
	// Whatever code it is: the root key may be gone or withdrawn.
	if _, lookErr := v.root.look(w, root); lookErr != nil {
		return lookErr
	}
	var failure *TokenError
	if !errors.As(err, &failure) || errors.Is(err, ErrUnsupported) {
		return err
	}
	return w.refused(failure.Call, failure.Err, ErrWrappedKey)
}

// refused tells a bad input, which some tokens call a general error and which blame
// names, from a sick token, which does not pass the self-test, and from one that
// does not do such things.
func (w *worker) refused(call string, err, blame error) error {
	failure := w.fail(call, err)
	if isLacking(err) || isTemplateRefused(err) {
		return fmt.Errorf("%w: %w", ErrUnsupported, failure)
	}
	if isSessionLost(err) || isDeviceFailure(err) || isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
		return failure
	}
	if testErr := w.selfTest(); testErr != nil {
		return errors.Join(failure, testErr)
	}
	return fmt.Errorf("%w (%v)", blame, failure) // %v: it is not the token's failure
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
	if s.family != familyRSA && isCode(err, w.t.profile.Unclear...) {
		// Some tokens call it a general error that they do not have the curve.
		if pub, priv, err = ctx.GenerateKeyPair(w.session, cryptoki.Plain(mechanism), public, s.template(at)); isCode(err, w.t.profile.Unclear...) && w.selfTest() == nil {
			return p, fmt.Errorf("token %s: %w: it makes no such key pair, and is well (C_GenerateKeyPair: %v)", w.t.name, ErrUnsupported, err) // %v: it is no failure
		}
	}
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
	public = append(s.publicIdentity(),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))
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
