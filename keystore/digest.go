package keystore

import (
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// The digest of secret material is of what the token makes of these texts with
// it. No AES-GCM encryption uses the blocks: its counter would have to be that
// large.
const (
	digestDomain = "hyok key material digest 1"
	digestBlocks = "hyok digest of an AES key 000001" // two blocks
	digestText   = "hyok digest of an HMAC key"
)

// digest returns Material.Digest of an object.
func (w *worker) digest(s shape, spec Spec, p product) ([]byte, error) {
	var proof []byte
	var err error
	switch s.family {
	case familyAES:
		proof, err = w.encryptECB(p.handle, []byte(digestBlocks))
	case familyHMAC:
		proof, err = w.mac(p.handle, s.hash, []byte(digestText))
	case familyRSA, familyEC, familyEdwards:
		proof = p.public
	}
	if err != nil {
		return nil, err
	}
	input, err := asn1.Marshal(struct {
		Domain, Spec string
		Proof        []byte
	}{digestDomain, string(spec), proof})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(input)
	return sum[:], nil
}

func (w *worker) encryptECB(h pkcs11.ObjectHandle, blocks []byte) ([]byte, error) {
	out, _, err := w.t.module.ctx.Encrypt(w.session, cryptoki.Plain(pkcs11.CKM_AES_ECB), h, blocks)
	if err == nil && len(out) != len(blocks) {
		err = fmt.Errorf("it returned %d bytes for %d", len(out), len(blocks))
	}
	return out, w.fail("C_Encrypt", err)
}

func (w *worker) mac(h pkcs11.ObjectHandle, hash crypto.Hash, message []byte) ([]byte, error) {
	mechanism, err := hmacMechanism(hash)
	if err != nil {
		return nil, err
	}
	out, err := w.sign(h, cryptoki.Plain(mechanism), message)
	if err == nil && len(out) != hash.Size() {
		err = w.fail("C_Sign", fmt.Errorf("it returned %d bytes for %v", len(out), hash))
	}
	return out, err
}

func (w *worker) sign(h pkcs11.ObjectHandle, mechanism cryptoki.Mechanism, input []byte) ([]byte, error) {
	out, err := w.t.module.ctx.Sign(w.session, mechanism, h, input)
	return out, w.fail("C_Sign", err)
}
