package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Import stores key material of the caller's: the bare bytes of AES and HMAC
// keys, PKCS #8 in DER of private keys. It comes back wrapped, or resident where
// the token cannot wrap the spec (Ed25519). A *MaterialError says what is wrong
// with it: ErrInvalidMaterial, it is not decodable or contradicts itself;
// ErrMaterialSpec, it is of another kind or length than spec says. The caller
// wipes material.
//
// As with Generate, what is returned was of use once, and ErrUnsupported says that
// the token does not make or use such keys.
func (v *Vault) Import(ctx context.Context, id string, spec Spec, material []byte, uses ...Use) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	value, err := s.parse(material)
	if err != nil {
		return Material{}, fmt.Errorf("import key %s: %w", id, err)
	}
	return v.importParsed(ctx, order{id: id, spec: spec, shape: s, uses: uses}, value)
}

// importParsed stores value, and wipes it.
func (v *Vault) importParsed(ctx context.Context, o order, value parsed) (Material, error) {
	n := newDrops(value.wipe)
	defer n.done()
	in := func(at storage) *order {
		own := o
		own.drop = n.add()
		own.produce = func(w *worker) (product, error) { return w.createParsed(o.shape, at, value) }
		return &own
	}
	resident := func() (Material, error) {
		return v.makeResident(ctx, in(storage{label: v.label(o.id), onToken: true}))
	}
	if o.shape.family == familyEdwards {
		return resident()
	}
	m, err := v.wrapNew(ctx, in(storage{extractable: true}))
	if errors.Is(err, errNotWrappable) {
		return resident()
	}
	return m, err
}

// createParsed makes an object of key material.
func (w *worker) createParsed(s shape, at storage, value parsed) (product, error) {
	template := append(s.template(at), value.attributes...)
	if s.family == familyAES && at.onToken {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, newMark(1).bytes()))
	}
	h, err := w.t.module.ctx.CreateObject(w.session, template)
	if s.family == familyEC && isTemplateRefused(err) {
		if point, e := s.decodePoint(value.public); e == nil {
			h, err = w.t.module.ctx.CreateObject(w.session, append(template, pkcs11.NewAttribute(ckaNSSDB, point)))
		}
	}
	return product{handle: h, public: value.public, foreign: true}, w.fail("C_CreateObject", err)
}

// parsed is key material as attributes of the object that is to hold it.
type parsed struct {
	attributes []*pkcs11.Attribute // with copies of the secret
	public     []byte              // DER
}

// wipe overwrites the copies of the secret.
func (p parsed) wipe() {
	for _, a := range p.attributes {
		clear(a.Value)
	}
}

// parse decodes key material and checks it against the shape.
func (s shape) parse(material []byte) (parsed, error) {
	switch s.family {
	case familyAES, familyHMAC:
		if len(material) != s.bytes {
			return parsed{}, otherMaterial("it has %d bytes instead of %d", len(material), s.bytes)
		}
		return parsed{attributes: []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, bytes.Clone(material))}}, nil
	case familyRSA:
		return s.parseRSA(material)
	case familyEC, familyEdwards:
	}
	return s.parseEC(material)
}

// ecAttributes returns the private key of a curve as PKCS#11 has it.
func (s shape) ecAttributes(scalar []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, s.ecParams()),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, scalar),
	}
}
