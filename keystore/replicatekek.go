package keystore

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// kek is the key-encryption key, as an object of each token.
type kek struct{ source, target pkcs11.ObjectHandle }

// transportBits is the size of the RSA key that a key-encryption key travels under.
const transportBits = 3072

// transportPair is an RSA pair of the target.
type transportPair struct {
	private           pkcs11.ObjectHandle
	modulus, exponent []byte
}

// agree brings a key-encryption key into both tokens. Its objects and all that they
// came under live as long as the sessions.
func (r *replication) agree(ctx context.Context) (kek, error) {
	if r.o.WrappingKey != "" {
		return r.agreed(ctx)
	}
	pair, err := step(ctx, r.target, func(w *worker) (transportPair, error) { return w.transportPair() })
	if err != nil {
		return kek{}, err
	}
	type parcel struct {
		key   pkcs11.ObjectHandle
		block []byte
	}
	p, err := step(ctx, r.source, func(w *worker) (p parcel, err error) {
		p.key, p.block, err = w.packKEK(pair)
		return p, err
	})
	if err != nil {
		return kek{}, err
	}
	key, err := step(ctx, r.target, func(w *worker) (pkcs11.ObjectHandle, error) { return w.unpackKEK(pair, p.block) })
	return kek{source: p.key, target: key}, err
}

// agreed finds the wrapping key that the owner has put into both tokens.
func (r *replication) agreed(ctx context.Context) (k kek, err error) {
	find := func(w *worker) (pkcs11.ObjectHandle, error) { return w.wrappingKey(r.o.WrappingKey) }
	if k.source, err = step(ctx, r.source, find); err != nil {
		return k, err
	}
	k.target, err = step(ctx, r.target, find)
	return k, err
}

func (w *worker) wrappingKey(label string) (pkcs11.ObjectHandle, error) {
	found, err := w.findKeys(label)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("wrapping key %s: %w: token %s has no AES key with this label", printable(label), ErrKeyNotFound, w.t.name)
	case len(found) > 1:
		return 0, fmt.Errorf("wrapping key %s: %w: token %s has %d AES keys with this label", printable(label), ErrKeyAmbiguous, w.t.name, len(found))
	}
	return found[0], nil
}

// transportPair makes the RSA pair in the target: the private key never leaves it
// and unwraps alone.
func (w *worker) transportPair() (p transportPair, err error) {
	ctx := w.t.module.ctx
	public := append(shape{family: familyRSA}.publicIdentity(),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, transportBits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	private := append(shape{family: familyRSA}.identity(), storage{}.attributes()...)
	private = append(private, only(pkcs11.CKA_UNWRAP, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN)...)
	pub, priv, err := ctx.GenerateKeyPair(w.session, cryptoki.Plain(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN), public, private)
	if err != nil {
		return p, w.forbidden("C_GenerateKeyPair", "make an RSA key to unwrap a key-encryption key with", err)
	}
	values, err := w.values(pub, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return p, err
	}
	return transportPair{private: priv, modulus: bytes.Clone(values[0]), exponent: bytes.Clone(values[1])}, nil
}

// packKEK makes a key-encryption key in the source, which wraps alone, and wraps it
// under the target's public key.
func (w *worker) packKEK(pair transportPair) (key pkcs11.ObjectHandle, block []byte, err error) {
	ctx := w.t.module.ctx
	public, err := ctx.CreateObject(w.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, pair.modulus),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, pair.exponent),
	})
	if err != nil {
		return 0, nil, w.forbidden("C_CreateObject", "bring in a public key to wrap a key-encryption key under", err)
	}
	template := append(shape{family: familyAES}.identity(), storage{extractable: true}.attributes()...)
	template = append(template, only(pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)...)
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, aes256KeyLength))
	key, err = ctx.GenerateKey(w.session, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), template)
	if err != nil {
		return 0, nil, w.forbidden("C_GenerateKey", "make a key-encryption key", err)
	}
	block, err = ctx.WrapKey(w.session, oaepWith(crypto.SHA1), public, key)
	if err == nil && len(block) != transportBits/8 {
		err = fmt.Errorf("it returned %d bytes", len(block))
	}
	return key, block, w.forbidden("C_WrapKey", "wrap a key-encryption key by RSAES-OAEP", err)
}

// unpackKEK makes an object of the key-encryption key in the target, which unwraps
// alone, and destroys the RSA key.
func (w *worker) unpackKEK(pair transportPair, block []byte) (pkcs11.ObjectHandle, error) {
	ctx := w.t.module.ctx
	template := append(shape{family: familyAES}.identity(), storage{}.attributes()...)
	template = append(template, only(pkcs11.CKA_UNWRAP, pkcs11.CKA_WRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)...)
	key, err := ctx.UnwrapKey(w.session, oaepWith(crypto.SHA1), pair.private, block, template)
	err = w.forbidden("C_UnwrapKey", "unwrap a key-encryption key by RSAES-OAEP", err)
	return key, errors.Join(err, w.fail("C_DestroyObject", ctx.DestroyObject(w.session, pair.private)))
}

// only returns the attributes that permit one use and deny others.
func only(permitted uint, denied ...uint) []*pkcs11.Attribute {
	attrs := []*pkcs11.Attribute{pkcs11.NewAttribute(permitted, true)}
	for _, d := range denied {
		attrs = append(attrs, pkcs11.NewAttribute(d, false))
	}
	return attrs
}
