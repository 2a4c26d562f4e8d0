package engine

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/hyok-kms/hyok/keystore"
)

// publicKey is the public half of a key pair. What needs no secret is done with
// it here rather than in the token.
type publicKey struct {
	rsa     *rsa.PublicKey
	ecdsa   *ecdsa.PublicKey
	secp    *secp256k1.PublicKey
	ed25519 ed25519.PublicKey
}

// parsePublicKey reads a SubjectPublicKeyInfo in DER.
func parsePublicKey(der []byte) (p publicKey, err error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		// The standard library knows no secp256k1.
		if p.secp, err = parseSecp256k1(der); err != nil {
			return p, fmt.Errorf("read a public key: %w", err)
		}
		return p, nil
	}
	switch k := parsed.(type) {
	case *rsa.PublicKey:
		p.rsa = k
	case *ecdsa.PublicKey:
		p.ecdsa = k
	case ed25519.PublicKey:
		p.ed25519 = k
	default:
		return p, fmt.Errorf("read a public key: its type %T is none of ours", parsed)
	}
	return p, nil
}

// parseSecp256k1 reads a SubjectPublicKeyInfo (RFC 5480) of the curve secp256k1
// (SEC 2, section 2.4.1).
func parseSecp256k1(der []byte) (*secp256k1.PublicKey, error) {
	var info struct {
		Algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil {
		return nil, err
	}
	ecPublicKey, curve := asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	if len(rest) > 0 || !info.Algorithm.Algorithm.Equal(ecPublicKey) || !info.Algorithm.Curve.Equal(curve) {
		return nil, errors.New("it is of no known curve")
	}
	return secp256k1.ParsePubKey(info.Key.RightAlign())
}

// verifies reports whether signature is one of what s describes.
func (p *publicKey) verifies(s *signing, signature []byte) bool {
	switch s.scheme {
	case keystore.SignPSS:
		// AWS KMS makes salts as long as the digest and accepts no other.
		return rsa.VerifyPSS(p.rsa, s.hash, s.input, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case keystore.SignPKCS1v15:
		return rsa.VerifyPKCS1v15(p.rsa, s.hash, s.input, signature) == nil
	case keystore.SignECDSA:
		if p.secp != nil {
			parsed, err := secpecdsa.ParseDERSignature(signature)
			return err == nil && parsed.Verify(s.input, p.secp)
		}
		return ecdsa.VerifyASN1(p.ecdsa, s.input, signature)
	}
	options := &ed25519.Options{}
	if s.prehashed {
		options.Hash = crypto.SHA512
	}
	return ed25519.VerifyWithOptions(p.ed25519, s.input, signature, options) == nil
}
