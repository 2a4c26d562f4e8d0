package keystore

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Go's crypto/x509 encodes all key pairs but those of secp256k1, so elliptic
// curve keys of every kind are encoded and decoded here.

// subjectPublicKeyInfo is RFC 5280, section 4.1.
type subjectPublicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

// privateKeyInfo is PKCS #8, RFC 5208, as it is written here; parsePKCS8 reads it.
type privateKeyInfo struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

// ecPrivateKey is SEC 1, appendix C.4, or RFC 5915, section 3, as it is written
// here.
type ecPrivateKey struct {
	Version    int
	PrivateKey []byte
	PublicKey  asn1.BitString `asn1:"explicit,tag:1"`
}

// algorithm returns the identifier of the keys of a curve.
func (s shape) algorithm() pkix.AlgorithmIdentifier {
	if s.family == familyEdwards {
		return pkix.AlgorithmIdentifier{Algorithm: s.oid} // no parameters, RFC 8410 section 3
	}
	return pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: s.ecParams()}}
}

// encodePoint returns the SubjectPublicKeyInfo of a point of an elliptic curve,
// after a look whether it is one.
func (s shape) encodePoint(point []byte) ([]byte, error) {
	if s.family == familyEdwards {
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 public key of %d bytes", len(point))
		}
	} else if err := s.curve.checkPoint(point); err != nil {
		return nil, err
	}
	return asn1.Marshal(subjectPublicKeyInfo{s.algorithm(), asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
}

// decodePoint returns the point in the SubjectPublicKeyInfo of a curve's public
// key, after a look whether it is on that curve.
func (s shape) decodePoint(der []byte) ([]byte, error) {
	var info subjectPublicKeyInfo
	if err := unmarshal(der, &info); err != nil {
		return nil, err
	}
	if !info.Algorithm.Algorithm.Equal(oidECPublicKey) || !bytes.Equal(info.Algorithm.Parameters.FullBytes, s.ecParams()) {
		return nil, errors.New("it is a key of another curve or algorithm")
	}
	if info.PublicKey.BitLength%8 != 0 {
		return nil, errors.New("the point is no whole number of bytes")
	}
	return info.PublicKey.Bytes, s.curve.checkPoint(info.PublicKey.Bytes)
}

// encodeRSA returns the SubjectPublicKeyInfo of an RSA key.
func encodeRSA(modulus, exponent []byte) ([]byte, error) {
	key, err := rsaPublic(modulus, exponent)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(key)
}

func rsaPublic(modulus, exponent []byte) (*rsa.PublicKey, error) {
	e := new(big.Int).SetBytes(exponent)
	if e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return nil, errors.New("its public exponent is not an odd number from 3 to 2^31 - 1")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}, nil
}

// decodeRSA returns the RSA public key in a SubjectPublicKeyInfo.
func decodeRSA(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("it is no RSA public key")
	}
	return key, nil
}

// encodePrivate returns the PKCS #8 form of an elliptic curve key. The caller
// wipes it.
func (s shape) encodePrivate(scalar, point []byte) ([]byte, error) {
	var inner []byte
	var err error
	if s.family == familyEdwards {
		inner, err = asn1.Marshal(scalar) // RFC 8410, section 7
	} else {
		inner, err = asn1.Marshal(ecPrivateKey{Version: 1, PrivateKey: scalar, PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
	}
	if err != nil {
		return nil, err
	}
	defer clear(inner)
	return asn1.Marshal(privateKeyInfo{0, s.algorithm(), inner})
}

// unmarshal decodes all of der.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the structure", len(rest))
	}
	return err
}
