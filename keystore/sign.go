package keystore

import (
	"bytes"
	"context"
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// SignScheme is a way to sign.
type SignScheme string

// The ways to sign.
const (
	// SignPSS: RSASSA-PSS (RFC 8017, section 8.1), the salt as long as the digest.
	SignPSS SignScheme = "RSASSA_PSS"
	// SignPKCS1v15: RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
	SignPKCS1v15 SignScheme = "RSASSA_PKCS1_V1_5"
	// SignECDSA: ECDSA; the signature is an ASN.1 SEQUENCE in DER (RFC 3279,
	// section 2.2.3).
	SignECDSA SignScheme = "ECDSA"
	// SignEd25519: Ed25519 (RFC 8032, section 5.1), of the message itself.
	SignEd25519 SignScheme = "ED25519"
)

// Sign signs input: the message for SignEd25519, for the others its digest by
// hash, which is SHA-256, SHA-384 or SHA-512. An input of another length than the
// hash's, and a scheme that the key is not for (ErrMaterialSpec), are refused.
// Other errors are those of Encrypt.
func (v *Vault) Sign(ctx context.Context, m *Material, scheme SignScheme, hash crypto.Hash, input []byte) ([]byte, error) {
	families := map[SignScheme]family{SignPSS: familyRSA, SignPKCS1v15: familyRSA, SignECDSA: familyEC, SignEd25519: familyEdwards}
	s, err := v.expect(m, "sign by "+printable(string(scheme)), families[scheme])
	if err != nil {
		return nil, err
	}
	own, mechanism := bytes.Clone(input), cryptoki.Plain(ckmEdDSA)
	if scheme != SignEd25519 {
		if own, mechanism, err = s.signing(scheme, hash, input); err != nil {
			return nil, fmt.Errorf("key %s: %w", m.ID, err)
		}
	}
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) {
		signature, err := w.sign(h, mechanism, own)
		if err != nil || s.family != familyEC {
			return signature, err
		}
		der, err := encodeECDSA(signature, s.bytes)
		return der, w.fail("C_Sign", err)
	})
}

// signing returns what the token signs for a digest, and how.
func (s shape) signing(scheme SignScheme, hash crypto.Hash, digest []byte) ([]byte, cryptoki.Mechanism, error) {
	h, ok := signHashes()[hash]
	if !ok {
		return nil, cryptoki.Mechanism{}, fmt.Errorf("%w: signing with %v", ErrUnsupported, hash)
	}
	if len(digest) != hash.Size() {
		return nil, cryptoki.Mechanism{}, fmt.Errorf("the digest has %d bytes: those of %v have %d", len(digest), hash, hash.Size())
	}
	switch scheme {
	case SignPSS:
		return bytes.Clone(digest), cryptoki.Mechanism{Type: pkcs11.CKM_RSA_PKCS_PSS, PSS: &cryptoki.PSS{Hash: h.mechanism, MGF: h.mgf, Salt: uint(hash.Size())}}, nil
	case SignPKCS1v15:
		return append([]byte(h.prefix), digest...), cryptoki.Plain(pkcs11.CKM_RSA_PKCS), nil
	case SignECDSA, SignEd25519:
	}
	// The leftmost bits count (FIPS 186-5, section 6.4.1); the orders of the
	// curves have whole bytes, but for P-521's, which no hash exceeds.
	return bytes.Clone(digest[:min(len(digest), s.bytes)]), cryptoki.Plain(pkcs11.CKM_ECDSA), nil
}

// signHash is what PKCS#11 calls a hash, and the DER of its DigestInfo before
// the digest (RFC 8017, section 9.2, note 1).
type signHash struct {
	mechanism, mgf uint
	prefix         string
}

func signHashes() map[crypto.Hash]signHash {
	return map[crypto.Hash]signHash{
		crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"},
		crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384, "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"},
		crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512, "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"},
	}
}

// encodeECDSA turns r and s of the same length each, as PKCS#11 has them (v2.40,
// section 2.3.1), into DER.
func encodeECDSA(signature []byte, size int) ([]byte, error) {
	if len(signature) != 2*size {
		return nil, fmt.Errorf("it returned a signature of %d bytes instead of %d", len(signature), 2*size)
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	if r.Sign() == 0 || s.Sign() == 0 {
		return nil, errors.New("it returned a signature with a zero")
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// MAC returns the HMAC (RFC 2104) of a message. hash must be the one of the key's
// spec. Errors are those of Encrypt.
func (v *Vault) MAC(ctx context.Context, m *Material, hash crypto.Hash, message []byte) ([]byte, error) {
	s, err := v.expect(m, "compute an HMAC", familyHMAC)
	if err != nil {
		return nil, err
	}
	if hash != s.hash {
		return nil, fmt.Errorf("key %s: %w: %s cannot compute an HMAC with %v", m.ID, ErrMaterialSpec, m.Spec, hash)
	}
	own := bytes.Clone(message)
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) { return w.mac(h, hash, own) })
}

// Random returns n bytes, at most a mebibyte, of the token's generator.
func (t *Token) Random(ctx context.Context, n int) ([]byte, error) {
	const most = 1 << 20
	if n < 0 || n > most {
		return nil, fmt.Errorf("%d random bytes were asked for: it must be 0 to %d", n, most)
	}
	if n == 0 {
		return []byte{}, nil
	}
	var out []byte
	err := t.doInLane(ctx, func(w *worker) error {
		random, err := w.t.module.ctx.GenerateRandom(w.session, n)
		if err == nil && len(random) != n {
			err = fmt.Errorf("it returned %d bytes instead of %d", len(random), n)
		}
		if err != nil {
			return w.fail("C_GenerateRandom", err)
		}
		out = random
		return nil
	}, func() {})
	if err != nil {
		return nil, err // the call may still write to out
	}
	return out, nil
}
