package keystore

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/miekg/pkcs11"
)

// dataPair is a key pair of which the caller gets both keys in the clear.
type dataPair struct{ private, public []byte }

// GenerateDataKeyPair makes a key pair for the caller, who gets its private key
// in the clear, as PKCS #8, and wipes it; the public key is a
// SubjectPublicKeyInfo; both in DER. The token makes the pair, as readable
// session objects. Where it refuses to make such, it is made in this process.
func (v *Vault) GenerateDataKeyPair(ctx context.Context, spec Spec) (privatePKCS8, publicDER []byte, err error) {
	s, err := v.check("data-key-pair", spec)
	if err != nil {
		return nil, nil, err
	}
	if s.secret() {
		return nil, nil, fmt.Errorf("%w: %s is no key pair", ErrMaterialSpec, spec)
	}
	var g *generation
	if s.family == familyRSA {
		if g, err = v.t.enterGeneration(ctx); err != nil {
			return nil, nil, fmt.Errorf("make a data key pair: %w", err)
		}
	}
	var out dataPair
	err = v.runNew(ctx, s, g, func(w *worker) error {
		pair, err := w.readablePair(s)
		if err == nil {
			out = pair
		}
		return err
	}, func() {})
	if errors.Is(err, ErrUnsupported) || isLacking(err) || isTemplateRefused(err) || isCode(err, pkcs11.CKR_ATTRIBUTE_SENSITIVE) {
		out, err = s.pairByGo()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a data key pair: %w", err) // the call may still write to out
	}
	return out.private, out.public, nil
}

// readablePair makes a pair in the token, reads it and destroys it.
func (w *worker) readablePair(s shape) (pair dataPair, err error) {
	p, err := w.generatePair(s, storage{readable: true})
	if err != nil {
		return pair, err
	}
	defer func() {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}()
	pair.public = p.public
	if s.family == familyRSA {
		pair.private, err = w.readRSA(p.handle)
		return pair, err
	}
	values, err := w.values(p.handle, pkcs11.CKA_VALUE)
	if err != nil {
		return pair, err
	}
	defer clear(values[0])
	scalar, err := leftPad(values[0], s.bytes)
	if err != nil {
		return pair, w.fail("C_GetAttributeValue", err)
	}
	defer clear(scalar)
	point, err := s.pointOf(scalar)
	if err != nil {
		return pair, w.fail("C_GetAttributeValue", err)
	}
	if public, err := s.encodePoint(point); err != nil || !bytes.Equal(public, pair.public) {
		return pair, w.fail("C_GenerateKeyPair", errNoPair)
	}
	pair.private, err = s.encodePrivate(scalar, point)
	return pair, err
}

// errNoPair: what the token calls a key pair is none.
var errNoPair = errors.New("its public key is not that of its private key")

// pointOf returns the public point of a private key.
func (s shape) pointOf(scalar []byte) ([]byte, error) {
	if s.family == familyEdwards {
		return ed25519.NewKeyFromSeed(scalar)[ed25519.SeedSize:], nil
	}
	return s.curve.publicPoint(scalar)
}

func (w *worker) readRSA(h pkcs11.ObjectHandle) ([]byte, error) {
	values, err := w.values(h, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, value := range values[2:] {
			clear(value)
		}
	}()
	public, err := rsaPublic(values[0], values[1])
	if err != nil {
		return nil, w.fail("C_GetAttributeValue", err)
	}
	number := func(i int) *big.Int { return new(big.Int).SetBytes(values[i]) }
	key := &rsa.PrivateKey{PublicKey: *public, D: number(2), Primes: []*big.Int{number(3), number(4)}}
	defer wipeRSA(key)
	if err := key.Validate(); err != nil {
		return nil, w.fail("C_GenerateKeyPair", err)
	}
	key.Precompute()
	return x509.MarshalPKCS8PrivateKey(key)
}

// wipeRSA overwrites the numbers of a private key, as far as they are ours: what
// crypto/rsa has computed from them is out of reach.
func wipeRSA(key *rsa.PrivateKey) {
	for _, n := range append([]*big.Int{key.D, key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}, key.Primes...) {
		if n != nil {
			clear(n.Bits())
		}
	}
}

// pairByGo makes a pair in this process.
func (s shape) pairByGo() (pair dataPair, err error) {
	var private, public any
	switch {
	case s.family == familyRSA:
		var key *rsa.PrivateKey
		if key, err = rsa.GenerateKey(rand.Reader, 8*s.bytes); err == nil {
			defer wipeRSA(key)
			private, public = key, key.Public()
		}
	case s.family == familyEdwards:
		public, private, err = ed25519.GenerateKey(rand.Reader)
	case s.curve.elliptic() != nil:
		var key *ecdsa.PrivateKey
		if key, err = ecdsa.GenerateKey(s.curve.elliptic(), rand.Reader); err == nil {
			private, public = key, key.Public()
		}
	default:
		return s.secp256k1ByGo()
	}
	if err != nil {
		return pair, err
	}
	if pair.private, err = x509.MarshalPKCS8PrivateKey(private); err == nil {
		pair.public, err = x509.MarshalPKIXPublicKey(public)
	}
	return pair, err
}

func (s shape) secp256k1ByGo() (pair dataPair, err error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return pair, err
	}
	defer key.Zero()
	scalar, point := key.Serialize(), key.PubKey().SerializeUncompressed()
	defer clear(scalar)
	if pair.private, err = s.encodePrivate(scalar, point); err == nil {
		pair.public, err = s.encodePoint(point)
	}
	return pair, err
}

// leftPad returns value with n bytes: leading zeros are added or taken away.
func leftPad(value []byte, n int) ([]byte, error) {
	for len(value) > n && value[0] == 0 {
		value = value[1:]
	}
	if len(value) > n {
		return nil, fmt.Errorf("a number of %d bytes where at most %d are", len(value), n)
	}
	out := make([]byte, n)
	copy(out[n-len(value):], value)
	return out, nil
}
