package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"   // for OAEP with SHA-1, which KMS has
	_ "crypto/sha256" // for OAEP with SHA-256
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// DecryptOAEP decrypts by RSAES-OAEP (RFC 8017, section 7.1.2) with SHA-1 or
// SHA-256, for the mask as well, and an empty label. ErrInvalidCiphertext means
// that the ciphertext is not one for this key and that the token is well; other
// errors are those of Encrypt.
//
// Where the token refuses OAEP with a hash (SoftHSM2 2.6 knows it with SHA-1 only), it
// computes the bare RSA operation, and the padding is taken off here in constant
// time. Which of them it does right is found out once, by a ciphertext of our own.
func (v *Vault) DecryptOAEP(ctx context.Context, m *Material, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	s, err := v.expect(m, "decrypt by RSAES-OAEP", familyRSA)
	if err != nil {
		return nil, err
	}
	if hash != crypto.SHA1 && hash != crypto.SHA256 {
		return nil, fmt.Errorf("key %s: %w: RSAES-OAEP with %v", m.ID, ErrUnsupported, hash)
	}
	public, err := m.checkCiphertext(s, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", m.ID, err)
	}
	own := bytes.Clone(ciphertext)
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) { return w.decryptOAEP(h, public, hash, own) })
}

// checkCiphertext refuses what the token would answer a general error to: a
// ciphertext that is not as long as the modulus and less than it. It returns the
// public key.
func (m *Material) checkCiphertext(s shape, ciphertext []byte) (*rsa.PublicKey, error) {
	key, err := decodeRSA(m.Public)
	if err != nil {
		return nil, fmt.Errorf("read its public key: %w", err)
	}
	if len(ciphertext) != s.bytes {
		return nil, fmt.Errorf("%w: it has %d bytes, not the modulus's %d", ErrInvalidCiphertext, len(ciphertext), s.bytes)
	}
	if new(big.Int).SetBytes(ciphertext).Cmp(key.N) >= 0 {
		return nil, fmt.Errorf("%w: its number is not less than the modulus", ErrInvalidCiphertext)
	}
	return key, nil
}

// oaepWay is how a token decrypts by RSAES-OAEP with one hash.
type oaepWay int

const (
	oaepByToken oaepWay = iota + 1 // CKM_RSA_PKCS_OAEP
	oaepHere                       // CKM_RSA_X_509 in the token, the padding here
)

// oaepMemory is what was found out about a token's RSAES-OAEP.
type oaepMemory struct {
	mu      sync.Mutex
	ways    map[crypto.Hash]oaepWay // guarded by mu
	unwraps map[crypto.Hash]bool    // whether C_UnwrapKey does it; guarded by mu
	wrap    *KeyWrap                // that is RFC 5649, nil: none; guarded by mu
	tried   bool                    // wrap is valid; guarded by mu
}

// decryptOAEP decrypts a ciphertext that checkCiphertext has passed.
func (w *worker) decryptOAEP(h pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	way, err := w.oaepWay(h, public, hash)
	if err != nil {
		return nil, err
	}
	out, err := w.decryptBy(way, h, hash, ciphertext)
	if err == nil || !w.isUnclear(err) {
		return out, err
	}
	return w.explainOAEP(way, h, public, hash, ciphertext, err)
}

// isUnclear reports whether err may be of a wrong padding. kryoptic calls that a device
// error.
func (w *worker) isUnclear(err error) bool {
	return isCode(err, append(slices.Concat(w.t.profile.Unclear, w.t.profile.BadTag), pkcs11.CKR_DEVICE_ERROR)...)
}

// explainOAEP finds out whether the padding is wrong or the token sick: that one
// does not decrypt before and after what was encrypted for this.
func (w *worker) explainOAEP(way oaepWay, h pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash, ciphertext []byte, unclear error) ([]byte, error) {
	if w.tryOAEP(way, h, public, hash) != nil {
		return nil, unclear
	}
	out, err := w.decryptBy(way, h, hash, ciphertext)
	if err == nil {
		return out, nil
	}
	if !w.isUnclear(err) || w.tryOAEP(way, h, public, hash) != nil {
		return nil, err
	}
	return nil, badCiphertext(unclear)
}

func (w *worker) decryptBy(way oaepWay, h pkcs11.ObjectHandle, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	if way == oaepByToken {
		return w.decrypt(h, oaepWith(hash), ciphertext)
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

// oaepWay returns how the token decrypts by RSAES-OAEP, which it is tried for once.
func (w *worker) oaepWay(h pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash) (oaepWay, error) {
	memory := &w.t.oaep
	memory.mu.Lock()
	known := memory.ways[hash]
	memory.mu.Unlock()
	if known != 0 {
		return known, nil
	}
	var refused error
	for _, way := range []oaepWay{oaepByToken, oaepHere} {
		err := w.tryOAEP(way, h, public, hash)
		if err == nil {
			memory.mu.Lock()
			defer memory.mu.Unlock()
			if memory.ways == nil {
				memory.ways = map[crypto.Hash]oaepWay{}
			}
			memory.ways[hash] = way
			return way, nil
		}
		if isSick(err) {
			return 0, err
		}
		refused = errors.Join(refused, err)
	}
	return 0, fmt.Errorf("token %s: %w: RSAES-OAEP with %v: %v", w.t.name, ErrUnsupported, hash, refused) // %v: it is no failure
}

// isSick reports whether a trial that failed with err says nothing of what the token
// can do.
func isSick(err error) bool {
	return isSessionLost(err) || isHandleGone(err) || isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_DEVICE_ERROR,
		pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_SESSION_COUNT)
}

// tryOAEP has the token decrypt what was encrypted for this.
func (w *worker) tryOAEP(way oaepWay, h pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash) error {
	text := make([]byte, aes256KeyLength)
	_, _ = rand.Read(text) // never fails
	ciphertext, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, text, nil)
	if err != nil {
		return err
	}
	got, err := w.decryptBy(way, h, hash, ciphertext)
	if errors.Is(err, ErrInvalidCiphertext) || err == nil && subtle.ConstantTimeCompare(got, text) != 1 {
		return w.fail("C_Decrypt", errWrongAnswer)
	}
	return err
}

// oaepWith returns RSAES-OAEP with SHA-1 or SHA-256.
func oaepWith(hash crypto.Hash) cryptoki.Mechanism {
	p := &cryptoki.OAEP{Hash: pkcs11.CKM_SHA_1, MGF: pkcs11.CKG_MGF1_SHA1}
	if hash == crypto.SHA256 {
		p = &cryptoki.OAEP{Hash: pkcs11.CKM_SHA256, MGF: pkcs11.CKG_MGF1_SHA256}
	}
	return cryptoki.Mechanism{Type: pkcs11.CKM_RSA_PKCS_OAEP, OAEP: p}
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
