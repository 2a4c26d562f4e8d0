package keystore

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Import stores key material of the caller's: the bare bytes of AES and HMAC
// keys, PKCS #8 in DER of private keys. It comes back wrapped, or resident where
// the token cannot wrap the spec (Ed25519). ErrInvalidMaterial: it is not
// decodable or contradicts itself; ErrMaterialSpec: it is of another kind or
// length than spec says. The caller wipes material.
func (v *Vault) Import(ctx context.Context, id string, spec Spec, material []byte) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	value, err := s.parse(material)
	if err != nil {
		return Material{}, fmt.Errorf("import key %s: %w", id, err)
	}
	return v.importParsed(ctx, id, spec, s, value)
}

// importParsed stores value, and wipes it.
func (v *Vault) importParsed(ctx context.Context, id string, spec Spec, s shape, value parsed) (Material, error) {
	create := func(at storage) func(w *worker) (product, error) {
		return func(w *worker) (product, error) {
			template := append(s.template(at), value.attributes...)
			if s.family == familyAES && at.onToken {
				template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, newMark(1).bytes()))
			}
			h, err := w.t.module.ctx.CreateObject(w.session, template)
			return product{handle: h, public: value.public}, w.fail("C_CreateObject", err)
		}
	}
	n := newDrops(value.wipe)
	defer n.done()
	resident := func() (Material, error) {
		return v.makeResident(ctx, id, spec, s, create(storage{label: v.label(id), onToken: true}), n.add())
	}
	if s.family == familyEdwards {
		return resident()
	}
	m, err := v.wrapNew(ctx, id, spec, s, create(storage{extractable: true}), n.add())
	if errors.Is(err, errNotWrappable) {
		return resident()
	}
	return m, err
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
			return parsed{}, fmt.Errorf("%w: it has %d bytes instead of %d", ErrMaterialSpec, len(material), s.bytes)
		}
		return parsed{attributes: []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, bytes.Clone(material))}}, nil
	case familyRSA:
		return s.parseRSA(material)
	case familyEC, familyEdwards:
	}
	return s.parseEC(material)
}

func (s shape) parseRSA(material []byte) (parsed, error) {
	key, err := parsePKCS8(material)
	if err != nil {
		return parsed{}, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return parsed{}, fmt.Errorf("%w: it is no RSA key", ErrMaterialSpec)
	}
	defer wipeRSA(private)
	if private.N.BitLen() != 8*s.bytes {
		return parsed{}, fmt.Errorf("%w: its modulus has %d bits instead of %d", ErrMaterialSpec, private.N.BitLen(), 8*s.bytes)
	}
	if len(private.Primes) != 2 {
		return parsed{}, fmt.Errorf("%w: its modulus has %d primes instead of 2", ErrMaterialSpec, len(private.Primes))
	}
	public, err := encodeRSA(private.N.Bytes(), big.NewInt(int64(private.E)).Bytes())
	if err != nil {
		return parsed{}, fmt.Errorf("%w: %w", ErrInvalidMaterial, err)
	}
	private.Precompute()
	p := parsed{public: public}
	for _, part := range []struct {
		attribute uint
		value     *big.Int
	}{
		{pkcs11.CKA_MODULUS, private.N}, {pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(private.E))}, {pkcs11.CKA_PRIVATE_EXPONENT, private.D},
		{pkcs11.CKA_PRIME_1, private.Primes[0]}, {pkcs11.CKA_PRIME_2, private.Primes[1]},
		{pkcs11.CKA_EXPONENT_1, private.Precomputed.Dp}, {pkcs11.CKA_EXPONENT_2, private.Precomputed.Dq}, {pkcs11.CKA_COEFFICIENT, private.Precomputed.Qinv},
	} {
		p.attributes = append(p.attributes, pkcs11.NewAttribute(part.attribute, part.value.Bytes()))
	}
	return p, nil
}

// parsePKCS8 is x509.ParsePKCS8PrivateKey, which does not know secp256k1, for
// RSA keys.
func parsePKCS8(material []byte) (any, error) {
	var info privateKeyInfo
	if err := unmarshal(material, &info); err != nil {
		return nil, fmt.Errorf("%w: it is no PKCS #8 private key", ErrInvalidMaterial) // not err: it may quote
	}
	defer clear(info.PrivateKey)
	oidRSA := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	if !info.Algorithm.Algorithm.Equal(oidRSA) {
		return nil, fmt.Errorf("%w: it is no RSA key", ErrMaterialSpec)
	}
	key, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		return nil, fmt.Errorf("%w: it is no valid RSA private key", ErrInvalidMaterial)
	}
	return key, nil
}

// parseEC decodes a private key of an elliptic curve: RFC 5915, or RFC 8410 for
// Ed25519.
func (s shape) parseEC(material []byte) (parsed, error) {
	var info privateKeyInfo
	if err := unmarshal(material, &info); err != nil {
		return parsed{}, fmt.Errorf("%w: it is no PKCS #8 private key", ErrInvalidMaterial)
	}
	defer clear(info.PrivateKey)
	want := s.algorithm()
	if !info.Algorithm.Algorithm.Equal(want.Algorithm) || s.family == familyEC && !bytes.Equal(info.Algorithm.Parameters.FullBytes, want.Parameters.FullBytes) {
		return parsed{}, fmt.Errorf("%w: it is a key of another curve or algorithm", ErrMaterialSpec)
	}
	scalar, claimed, err := s.decodePrivate(info.PrivateKey)
	if err != nil {
		return parsed{}, err
	}
	point, err := s.pointOf(scalar)
	if err != nil || len(claimed) > 0 && !bytes.Equal(claimed, point) {
		clear(scalar)
		return parsed{}, fmt.Errorf("%w: it is no private key of this curve, or its public key is another's", ErrInvalidMaterial)
	}
	public, err := s.encodePoint(point)
	return parsed{public: public, attributes: []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, s.ecParams()),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, scalar),
	}}, err
}

// decodePrivate returns the private key in what PKCS #8 holds of a curve's, and
// the uncompressed public point if it is told.
func (s shape) decodePrivate(der []byte) (scalar, claimed []byte, err error) {
	var value []byte
	if s.family == familyEdwards {
		err = unmarshal(der, &value)
		if err == nil && len(value) != s.bytes {
			err = errors.New("its length is wrong")
		}
	} else {
		var key ecPrivateKey
		err = unmarshal(der, &key)
		if value = key.PrivateKey; err == nil && len(key.Curve) > 0 && !key.Curve.Equal(s.oid) {
			err = errors.New("it names two curves")
		}
		if point := key.PublicKey.Bytes; len(point) == 1+2*s.bytes {
			claimed = point // another form, compressed, is not compared
		}
	}
	defer clear(value)
	if err == nil {
		scalar, err = leftPad(value, s.bytes)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: it is no private key of this curve", ErrInvalidMaterial)
	}
	return scalar, claimed, nil
}
