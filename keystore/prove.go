package keystore

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Use is what a key pair is for. Each new pair does that once before it is handed
// out; a secret key does what its spec is for.
type Use int

// The uses of key pairs.
const (
	UseSign    Use = iota + 1
	UseDecrypt     // by RSAES-OAEP
	UseAgree       // on a shared secret
)

func (u Use) String() string {
	return map[Use]string{UseSign: "sign", UseDecrypt: "decrypt", UseAgree: "agree on a secret"}[u]
}

// uses returns what pairs of a shape can be for.
func (s shape) uses() []Use {
	switch s.family {
	case familyRSA:
		return []Use{UseSign, UseDecrypt}
	case familyEC:
		if s.curve.nist() != nil {
			return []Use{UseSign, UseAgree}
		}
		return []Use{UseSign}
	case familyEdwards:
		return []Use{UseSign}
	case familyAES, familyHMAC:
	}
	return nil
}

// orDefault returns uses, or the first one of the shape where nobody says.
func (s shape) orDefault(uses []Use) []Use {
	if all := s.uses(); len(uses) == 0 && len(all) > 0 {
		return all[:1]
	}
	return uses
}

// prove has a key that was made do what it is for, and sets the digest of a secret
// one. What was unwrapped need not be what was wrapped, nor of any use.
func (v *Vault) prove(w *worker, o *order, m *Material, h pkcs11.ObjectHandle) error {
	if o.shape.secret() {
		return v.proveSecret(w, o, m, h)
	}
	for _, u := range o.shape.orDefault(o.uses) {
		if err := w.provePair(o.shape, m.Public, u, h); err != nil {
			return err
		}
	}
	return nil
}

// proveSecret has a secret key compute its digest, and the vault's first AES key
// encrypt and decrypt.
func (v *Vault) proveSecret(w *worker, o *order, m *Material, h pkcs11.ObjectHandle) error {
	digest, err := w.digest(o.shape, o.spec, product{handle: h})
	if err != nil {
		return err
	}
	if m.Digest != nil && !bytes.Equal(digest, m.Digest) {
		return w.fail("C_UnwrapKey", errors.New("the key is another than was wrapped"))
	}
	m.Digest = digest
	if o.shape.family != familyAES || v.tried.Load() {
		return nil
	}
	if err := w.roundTrip(h); err != nil {
		return err
	}
	v.tried.Store(true)
	return nil
}

// provePair has a private key be of use once, and compares the outcome with what
// its public key says.
func (w *worker) provePair(s shape, public []byte, u Use, h pkcs11.ObjectHandle) error {
	switch u {
	case UseSign:
		return w.proveSigning(s, public, h)
	case UseDecrypt:
		key, err := decodeRSA(public)
		if err != nil {
			return err
		}
		way, err := w.oaepWay(h, key, crypto.SHA256)
		if err != nil {
			return err
		}
		return w.tryOAEP(way, h, key, crypto.SHA256)
	case UseAgree:
		return w.proveAgreement(s, public, h)
	}
	return fmt.Errorf("%w: nothing is known of the use %d", ErrUnsupported, u)
}

func (w *worker) proveSigning(s shape, public []byte, h pkcs11.ObjectHandle) error {
	digest := make([]byte, crypto.SHA256.Size())
	_, _ = rand.Read(digest) // never fails
	var mechanism cryptoki.Mechanism
	input := digest
	switch s.family {
	case familyRSA:
		var err error
		if input, mechanism, err = s.signing(SignPKCS1v15, crypto.SHA256, digest); err != nil {
			return err
		}
	case familyEC:
		mechanism = cryptoki.Plain(pkcs11.CKM_ECDSA)
	case familyEdwards:
		mechanism = cryptoki.Plain(ckmEdDSA)
	case familyAES, familyHMAC:
	}
	signature, err := w.sign(h, mechanism, input)
	if err != nil {
		return err
	}
	if !s.verifies(public, digest, signature) {
		return w.fail("C_Sign", errWrongSignature)
	}
	return nil
}

// errWrongSignature: a private key is not the one of the public key, or the token
// computes wrongly.
var errWrongSignature = errors.New("its signature is not one of the key pair")

// verifies reports whether a signature, as PKCS#11 has it, is one of a digest.
func (s shape) verifies(public, digest, signature []byte) bool {
	switch s.family {
	case familyRSA:
		key, err := decodeRSA(public)
		return err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
	case familyEC:
		point, err := s.decodePoint(public)
		return err == nil && s.curve.verify(point, digest, signature)
	case familyEdwards:
		var info subjectPublicKeyInfo
		return unmarshal(public, &info) == nil && len(info.PublicKey.Bytes) == ed25519.PublicKeySize &&
			ed25519.Verify(info.PublicKey.Bytes, digest, signature)
	case familyAES, familyHMAC:
	}
	return false
}

// proveAgreement has a private key agree with one that is made for this.
func (w *worker) proveAgreement(s shape, public []byte, h pkcs11.ObjectHandle) error {
	curve := s.curve.nist()
	if curve == nil {
		return fmt.Errorf("%w: agreeing on this curve", ErrUnsupported)
	}
	peer, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	point, err := s.decodePoint(public)
	if err != nil {
		return err
	}
	var own *ecdh.PublicKey
	if own, err = curve.NewPublicKey(point); err != nil {
		return err
	}
	want, err := peer.ECDH(own)
	if err != nil {
		return err
	}
	got, err := w.agree(h, s, peer.PublicKey().Bytes())
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return w.fail("C_DeriveKey", errors.New("the secret is not the one of the key pair"))
	}
	return nil
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
