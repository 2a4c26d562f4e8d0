package keystore

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256        = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384        = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidP521        = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	oidSecp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	oidEd25519     = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// curve is a short Weierstrass curve. Points are uncompressed (SEC 1, section
// 2.3.3), scalars as long as a coordinate.
type curve int

const (
	curveP256 curve = iota + 1
	curveP384
	curveP521
	curveSecp256k1
)

// nist returns Go's implementation; nil: it has none.
func (c curve) nist() ecdh.Curve {
	switch c {
	case curveP256:
		return ecdh.P256()
	case curveP384:
		return ecdh.P384()
	case curveP521:
		return ecdh.P521()
	case curveSecp256k1:
	}
	return nil
}

// elliptic returns what crypto/ecdsa calls the curve; nil: Go does not have it.
func (c curve) elliptic() elliptic.Curve {
	switch c {
	case curveP256:
		return elliptic.P256()
	case curveP384:
		return elliptic.P384()
	case curveP521:
		return elliptic.P521()
	case curveSecp256k1:
	}
	return nil
}

// checkPoint reports whether point is on the curve and not at infinity.
func (c curve) checkPoint(point []byte) error {
	var err error
	if n := c.nist(); n != nil {
		_, err = n.NewPublicKey(point)
	} else if len(point) != secp256k1.PubKeyBytesLenUncompressed || point[0] != secp256k1.PubKeyFormatUncompressed {
		err = fmt.Errorf("the point of %d bytes is not in uncompressed form", len(point)) // ParsePubKey takes the hybrid one too
	} else {
		_, err = secp256k1.ParsePubKey(point)
	}
	return err
}

// publicPoint returns the point that belongs to a private scalar.
func (c curve) publicPoint(scalar []byte) ([]byte, error) {
	if n := c.nist(); n != nil {
		key, err := n.NewPrivateKey(scalar)
		if err != nil {
			return nil, err
		}
		return key.PublicKey().Bytes(), nil
	}
	var d secp256k1.ModNScalar
	if len(scalar) != secp256k1.PrivKeyBytesLen || d.SetByteSlice(scalar) || d.IsZero() {
		return nil, fmt.Errorf("the private key is not between 1 and the order of the curve")
	}
	key := secp256k1.NewPrivateKey(&d)
	defer key.Zero()
	defer d.Zero()
	return key.PubKey().SerializeUncompressed(), nil
}
