package keystore

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1"   // for OAEP with SHA-1, which KMS has
	_ "crypto/sha256" // for OAEP with SHA-256
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// DecryptOAEP decrypts by RSAES-OAEP (RFC 8017, section 7.1.2) with SHA-1 or
// SHA-256, for the mask as well, and an empty label. ErrInvalidCiphertext means
// that the ciphertext is not one for this key and that the token is well; other
// errors are those of Encrypt.
//
// With SHA-256 the token computes the bare RSA operation, since SoftHSM2 knows
// OAEP with SHA-1 only, and the padding is taken off here in constant time.
func (v *Vault) DecryptOAEP(ctx context.Context, m *Material, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	s, err := v.expect(m, "decrypt by RSAES-OAEP", familyRSA)
	if err != nil {
		return nil, err
	}
	if hash != crypto.SHA1 && hash != crypto.SHA256 {
		return nil, fmt.Errorf("key %s: %w: RSAES-OAEP with %v", m.ID, ErrUnsupported, hash)
	}
	if err := m.checkCiphertext(s, ciphertext); err != nil {
		return nil, fmt.Errorf("key %s: %w", m.ID, err)
	}
	own := bytes.Clone(ciphertext)
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) { return w.decryptOAEP(h, hash, own) })
}

// checkCiphertext refuses what the token would answer a general error to: a
// ciphertext that is not as long as the modulus and less than it.
func (m *Material) checkCiphertext(s shape, ciphertext []byte) error {
	key, err := decodeRSA(m.Public)
	if err != nil {
		return fmt.Errorf("read its public key: %w", err)
	}
	if len(ciphertext) != s.bytes {
		return fmt.Errorf("%w: it has %d bytes, not the modulus's %d", ErrInvalidCiphertext, len(ciphertext), s.bytes)
	}
	if new(big.Int).SetBytes(ciphertext).Cmp(key.N) >= 0 {
		return fmt.Errorf("%w: its number is not less than the modulus", ErrInvalidCiphertext)
	}
	return nil
}

// decryptOAEP decrypts a ciphertext that checkCiphertext has passed.
func (w *worker) decryptOAEP(h pkcs11.ObjectHandle, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	if hash == crypto.SHA1 {
		out, err := w.decrypt(h, oaepSHA1(), ciphertext)
		if err == nil || !isCode(err, slices.Concat(w.t.profile.Unclear, w.t.profile.BadTag)...) {
			return out, err
		}
		// The padding is wrong or the token sick: to the bare operation no
		// ciphertext is wrong.
	}
	block, err := w.decrypt(h, cryptoki.Plain(pkcs11.CKM_RSA_X_509), ciphertext)
	if err != nil {
		return nil, err
	}
	defer clear(block)
	if len(block) > len(ciphertext) {
		return nil, w.fail("C_Decrypt", errors.New("it returned more than the modulus has"))
	}
	padded := make([]byte, len(ciphertext)) // some tokens leave leading zeros out
	defer clear(padded)
	copy(padded[len(padded)-len(block):], block)
	return unpadOAEP(hash, padded)
}

func oaepSHA1() cryptoki.Mechanism {
	return cryptoki.Mechanism{Type: pkcs11.CKM_RSA_PKCS_OAEP, OAEP: &cryptoki.OAEP{Hash: pkcs11.CKM_SHA_1, MGF: pkcs11.CKG_MGF1_SHA1}}
}

func (w *worker) decrypt(h pkcs11.ObjectHandle, mechanism cryptoki.Mechanism, ciphertext []byte) ([]byte, error) {
	out, err := w.t.module.ctx.Decrypt(w.session, mechanism, h, ciphertext)
	return out, w.fail("C_Decrypt", err)
}

// unpadOAEP takes the padding off an encoded message with an empty label (RFC
// 8017, section 7.1.2, step 3), which it overwrites. How long that takes depends
// on the lengths alone until it is known whether the padding is right.
func unpadOAEP(hash crypto.Hash, em []byte) ([]byte, error) {
	size := hash.Size()
	if len(em) < 2*size+2 {
		return nil, fmt.Errorf("%w: it is too short for OAEP", ErrInvalidCiphertext)
	}
	seed, db := em[1:1+size], em[1+size:]
	mask(seed, hash, db)
	mask(db, hash, seed)
	label := hash.New().Sum(nil)
	right := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeCompare(label, db[:size])
	// The message follows the first 1 after zeros.
	looking, wrong, at := 1, 0, 0
	for i, b := range db[size:] {
		zero, one := subtle.ConstantTimeByteEq(b, 0), subtle.ConstantTimeByteEq(b, 1)
		at = subtle.ConstantTimeSelect(looking&one, i, at)
		wrong = subtle.ConstantTimeSelect(looking&(1-zero)&(1-one), 1, wrong)
		looking = subtle.ConstantTimeSelect(one, 0, looking)
	}
	if right&(1-wrong)&(1-looking) != 1 {
		return nil, fmt.Errorf("%w: the OAEP padding is wrong", ErrInvalidCiphertext)
	}
	return bytes.Clone(db[size+at+1:]), nil
}

// mask adds MGF1 of seed (RFC 8017, appendix B.2.1) to out.
func mask(out []byte, hash crypto.Hash, seed []byte) {
	h := hash.New()
	for counter := uint32(0); len(out) > 0; counter++ {
		h.Reset()
		h.Write(seed)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		n := subtle.XORBytes(out, out, h.Sum(nil))
		out = out[n:]
	}
}
