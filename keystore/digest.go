package keystore

import (
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"

	"github.com/miekg/pkcs11"
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
	ctx := w.t.module.ctx
	if err := ctx.EncryptInit(w.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil)}, h); err != nil {
		return nil, w.fail("C_EncryptInit", err)
	}
	out, err := ctx.Encrypt(w.session, blocks)
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
	out, err := w.sign(h, pkcs11.NewMechanism(mechanism, nil), message)
	if err == nil && len(out) != hash.Size() {
		err = w.fail("C_Sign", fmt.Errorf("it returned %d bytes for %v", len(out), hash))
	}
	return out, err
}

func (w *worker) sign(h pkcs11.ObjectHandle, mechanism *pkcs11.Mechanism, input []byte) ([]byte, error) {
	ctx := w.t.module.ctx
	if err := ctx.SignInit(w.session, []*pkcs11.Mechanism{mechanism}, h); err != nil {
		return nil, w.fail("C_SignInit", err)
	}
	out, err := ctx.Sign(w.session, input)
	return out, w.fail("C_Sign", err)
}
