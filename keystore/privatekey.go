package keystore

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// MaterialError says what is wrong with key material that was to be imported. It
// is ErrInvalidMaterial or ErrMaterialSpec.
type MaterialError struct {
	Reason string // of the caller's concern, without anything of the material
	kind   error
}

func (e *MaterialError) Error() string { return e.kind.Error() + ": " + e.Reason }

// Unwrap returns ErrInvalidMaterial or ErrMaterialSpec.
func (e *MaterialError) Unwrap() error { return e.kind }

func invalidMaterial(format string, args ...any) error {
	return &MaterialError{fmt.Sprintf(format, args...), ErrInvalidMaterial}
}

func otherMaterial(format string, args ...any) error {
	return &MaterialError{fmt.Sprintf(format, args...), ErrMaterialSpec}
}

// privateKey is what PKCS #8 says of a private key: RFC 5208, or RFC 5958 where
// the public key stands beside it. Its slices are of the DER that it was read from.
type privateKey struct {
	algorithm pkix.AlgorithmIdentifier
	private   []byte
	public    []byte // nil: it is not said
}

// parsePKCS8 reads PKCS #8. Unlike encoding/asn1, whose sequences may have any
// members behind those that are known, it takes no byte that has no meaning.
func parsePKCS8(der []byte) (k privateKey, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(der), []byte("-----BEGIN ")) {
		return k, invalidMaterial("it is PEM text: decode it to DER first")
	}
	members, err := sequence(der, "the PKCS #8 private key")
	if err != nil {
		return k, err
	}
	noPKCS8 := invalidMaterial("it is no PKCS #8 private key in DER")
	var version int
	if len(members) < 3 || !decode(members[0], &version) || !decode(members[1], &k.algorithm) || !decode(members[2], &k.private) {
		return k, noPKCS8
	}
	if version != 0 && version != 1 {
		return k, invalidMaterial("its version of PKCS #8 is unknown")
	}
	members = members[3:]
	const attributes, public = 0, 1
	if len(members) > 0 && isTagged(members[0], attributes) {
		members = members[1:] // they say nothing of the key
	}
	if len(members) > 0 && isTagged(members[0], public) {
		bits := asn1.BitString{}
		if _, err := asn1.UnmarshalWithParams(members[0].FullBytes, &bits, "tag:1"); err != nil || bits.BitLength%8 != 0 || bits.BitLength == 0 {
			return k, invalidMaterial("the public key beside it is malformed")
		}
		k.public, members = bits.Bytes, members[1:]
	}
	if len(members) > 0 {
		return k, noPKCS8
	}
	return k, nil
}

// sequence returns the members of a SEQUENCE that is all of der.
func sequence(der []byte, what string) ([]asn1.RawValue, error) {
	var whole asn1.RawValue
	rest, err := asn1.Unmarshal(der, &whole)
	switch {
	case err != nil || whole.Class != asn1.ClassUniversal || whole.Tag != asn1.TagSequence || !whole.IsCompound:
		return nil, invalidMaterial("%s is no DER", what)
	case len(rest) > 0:
		return nil, invalidMaterial("%d bytes follow %s", len(rest), what)
	}
	var members []asn1.RawValue
	for rest = whole.Bytes; len(rest) > 0; {
		var m asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &m); err != nil {
			return nil, invalidMaterial("%s is no DER", what)
		}
		members = append(members, m)
	}
	return members, nil
}

// decode reports whether a member is a value of the type of into, which it is
// read into.
func decode(member asn1.RawValue, into any) bool { return unmarshal(member.FullBytes, into) == nil }

// isTagged reports whether a member has a tag of the context.
func isTagged(member asn1.RawValue, tag int) bool {
	return member.Class == asn1.ClassContextSpecific && member.Tag == tag
}

// parseEC reads a private key of an elliptic curve: RFC 5915, or RFC 8410 for
// Ed25519. What it says of the public key must be true.
func (s shape) parseEC(material []byte) (parsed, error) {
	k, err := parsePKCS8(material)
	if err != nil {
		return parsed{}, err
	}
	want := s.algorithm()
	if !k.algorithm.Algorithm.Equal(want.Algorithm) {
		return parsed{}, otherMaterial("it is a key of another algorithm")
	}
	if s.family == familyEC && !bytes.Equal(k.algorithm.Parameters.FullBytes, want.Parameters.FullBytes) {
		return parsed{}, otherMaterial("it is a key of another curve, or does not name its curve")
	}
	value, claimed, err := s.decodePrivate(k.private)
	if err != nil {
		return parsed{}, err
	}
	scalar, err := leftPad(value, s.bytes)
	if err != nil {
		return parsed{}, invalidMaterial("its private key is too long for the curve")
	}
	point, err := s.pointOf(scalar)
	if err != nil {
		clear(scalar)
		return parsed{}, invalidMaterial("its private key is not between 1 and the order of the curve")
	}
	for _, public := range [][]byte{claimed, k.public} {
		if public != nil && !s.isPoint(public, point) {
			clear(scalar)
			return parsed{}, invalidMaterial("its public key is not that of its private key")
		}
	}
	public, err := s.encodePoint(point)
	return parsed{public: public, attributes: s.ecAttributes(scalar)}, err
}

// decodePrivate returns the private key in what PKCS #8 holds of a curve's, and
// its public key if it is said.
func (s shape) decodePrivate(der []byte) (private, public []byte, err error) {
	if s.family == familyEdwards {
		rest, err := asn1.Unmarshal(der, &private)
		switch {
		case err != nil:
			return nil, nil, invalidMaterial("its private key is malformed")
		case len(rest) > 0:
			return nil, nil, invalidMaterial("%d bytes follow its private key", len(rest))
		case len(private) != s.bytes:
			return nil, nil, invalidMaterial("its private key has %d bytes instead of %d", len(private), s.bytes)
		}
		return private, nil, nil
	}
	members, err := sequence(der, "its EC private key")
	if err != nil {
		return nil, nil, err
	}
	var version int
	if len(members) < 2 || !decode(members[0], &version) || !decode(members[1], &private) {
		return nil, nil, invalidMaterial("its private key is malformed")
	}
	if version != 1 {
		return nil, nil, invalidMaterial("the version of its EC private key is unknown")
	}
	public, err = s.decodeOptional(members[2:])
	return private, public, err
}

// decodeOptional returns the public key among what may follow the private key in
// RFC 5915, after a look whether the curve is the one that PKCS #8 names.
func (s shape) decodeOptional(members []asn1.RawValue) (public []byte, err error) {
	const parameters, publicKey = 0, 1
	if len(members) > 0 && isTagged(members[0], parameters) {
		if !bytes.Equal(members[0].Bytes, s.ecParams()) {
			return nil, invalidMaterial("it names two curves")
		}
		members = members[1:]
	}
	if len(members) > 0 && isTagged(members[0], publicKey) {
		var bits asn1.BitString
		if unmarshal(members[0].Bytes, &bits) != nil || bits.BitLength%8 != 0 {
			return nil, invalidMaterial("its public key is malformed")
		}
		public, members = bits.Bytes, members[1:]
	}
	if len(members) > 0 {
		return nil, invalidMaterial("something unknown follows its private key")
	}
	return public, nil
}

// isPoint reports whether a public key, in any form of SEC 1, section 2.3.3, is a
// point, which is given in uncompressed form.
func (s shape) isPoint(public, point []byte) bool {
	if s.family == familyEC && len(public) == 1+s.bytes {
		var err error
		if public, err = s.curve.decompress(public); err != nil {
			return false
		}
	}
	return bytes.Equal(public, point)
}

// decompress returns the uncompressed form of a compressed point.
func (c curve) decompress(point []byte) ([]byte, error) {
	if e := c.elliptic(); e != nil {
		x, y := elliptic.UnmarshalCompressed(e, point)
		if x == nil {
			return nil, errors.New("no such point")
		}
		size := (e.Params().BitSize + 7) / 8
		return append(append([]byte{4}, x.FillBytes(make([]byte, size))...), y.FillBytes(make([]byte, size))...), nil
	}
	key, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return nil, err
	}
	return key.SerializeUncompressed(), nil
}
