package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// SharedSecret returns the x coordinate of the point that the key and another's
// public key (SubjectPublicKeyInfo in DER) agree on: the raw secret of ECDH (SP
// 800-56A, section 5.7.1.2), as long as the curve's field, leading zeros kept.
// ErrInvalidPublicKey: it is no public key of the same curve. Other errors are
// those of Encrypt.
func (v *Vault) SharedSecret(ctx context.Context, m *Material, peerPublic []byte) ([]byte, error) {
	s, err := v.expect(m, "agree on a secret", familyEC)
	if err != nil {
		return nil, err
	}
	point, err := s.decodePoint(peerPublic)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w: %w", m.ID, ErrInvalidPublicKey, err)
	}
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) { return w.agree(h, s, point) })
}

// agree derives the shared secret as a readable session object and reads it.
func (w *worker) agree(h pkcs11.ObjectHandle, s shape, point []byte) (secret []byte, err error) {
	ctx := w.t.module.ctx
	mechanism := cryptoki.Mechanism{Type: pkcs11.CKM_ECDH1_DERIVE, ECDH: &cryptoki.ECDH{Public: point}}
	template := append(shape{family: familyHMAC}.identity(), storage{readable: true}.attributes()...)
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, s.bytes))
	derived, err := ctx.DeriveKey(w.session, mechanism, h, template)
	if err != nil {
		return nil, w.fail("C_DeriveKey", err)
	}
	defer func() { err = errors.Join(err, w.fail("C_DestroyObject", ctx.DestroyObject(w.session, derived))) }()
	values, err := w.values(derived, pkcs11.CKA_VALUE)
	if err != nil {
		return nil, err
	}
	if len(values[0]) != s.bytes {
		return nil, w.fail("C_DeriveKey", fmt.Errorf("it derived %d bytes instead of %d", len(values[0]), s.bytes))
	}
	return values[0], nil
}
