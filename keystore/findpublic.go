package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// findPublic returns the public key of an elliptic curve private key that was
// unwrapped in the token and that nobody has seen; tokens do not tell it. What
// the key agrees on with the generator of the curve is the x coordinate of its
// public key, which leaves two points, and a signature tells them apart.
func (w *worker) findPublic(s shape, h pkcs11.ObjectHandle) ([]byte, error) {
	values, err := w.values(h, pkcs11.CKA_EC_PARAMS)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(values[0], s.ecParams()) {
		return nil, fmt.Errorf("%w: it is a key of another curve", ErrMaterialSpec)
	}
	one := make([]byte, s.bytes)
	one[s.bytes-1] = 1
	generator, err := s.curve.publicPoint(one)
	if err != nil {
		return nil, err
	}
	x, err := w.agree(h, s, generator)
	if err != nil {
		return nil, w.doubted(err)
	}
	digest := sha256.Sum256([]byte(rand.Text()))
	signature, err := w.sign(h, cryptoki.Plain(pkcs11.CKM_ECDSA), digest[:])
	if err != nil {
		return nil, w.doubted(err)
	}
	for _, parity := range []byte{2, 3} { // SEC 1, section 2.3.3
		point, err := s.curve.decompress(append([]byte{parity}, x...))
		if err == nil && s.curve.verify(point, digest[:], signature) {
			return s.encodePoint(point)
		}
	}
	return nil, fmt.Errorf("%w: it is no private key of this curve", ErrInvalidMaterial)
}

// doubted is refused for an error that is the token's by now.
func (w *worker) doubted(err error) error {
	var failure *TokenError
	if !errors.As(err, &failure) || isHandleGone(err) {
		return err
	}
	return w.refused(failure.Call, failure.Err)
}

// decompress returns the uncompressed form of a point.
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

// verify verifies an ECDSA signature as PKCS#11 has it.
func (c curve) verify(point, digest, signature []byte) bool {
	half := len(signature) / 2
	if e := c.elliptic(); e != nil {
		key, err := ecdsa.ParseUncompressedPublicKey(e, point)
		if err != nil {
			return false
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
		return err == nil && ecdsa.VerifyASN1(key, digest, der)
	}
	key, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(signature[:half]) || s.SetByteSlice(signature[half:]) {
		return false
	}
	return secpecdsa.NewSignature(&r, &s).Verify(digest, key)
}
