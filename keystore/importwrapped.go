package keystore

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// ImportAlgorithm says how key material that is to be imported is encrypted under
// an RSA key.
type ImportAlgorithm string

// The ways to encrypt key material. RSA_AES_KEY_WRAP is an AES key by RSAES-OAEP,
// as long as the modulus, and behind it the material under that AES key by AES
// key wrap with padding (RFC 5649).
const (
	ImportOAEPSHA1      ImportAlgorithm = "RSAES_OAEP_SHA_1"
	ImportOAEPSHA256    ImportAlgorithm = "RSAES_OAEP_SHA_256"
	ImportKeyWrapSHA1   ImportAlgorithm = "RSA_AES_KEY_WRAP_SHA_1"
	ImportKeyWrapSHA256 ImportAlgorithm = "RSA_AES_KEY_WRAP_SHA_256"
)

func (a ImportAlgorithm) parts() (hash crypto.Hash, twoSteps bool, err error) {
	switch a {
	case ImportOAEPSHA1:
		return crypto.SHA1, false, nil
	case ImportOAEPSHA256:
		return crypto.SHA256, false, nil
	case ImportKeyWrapSHA1:
		return crypto.SHA1, true, nil
	case ImportKeyWrapSHA256:
		return crypto.SHA256, true, nil
	}
	return 0, false, fmt.Errorf("%w: %s is no way to encrypt key material", ErrUnsupported, printable(string(a)))
}

// ImportEncrypted stores key material, in the form that Import takes, that is
// encrypted under the public key of wrapping, an RSA pair of this vault.
// ErrInvalidCiphertext: it does not decrypt. What is wrong with the material
// itself is a *MaterialError, as of Import.
//
// Secret keys do not leave the token in the clear, with exceptions that SoftHSM2
// demands. It knows OAEP with SHA-1 only: with ImportOAEPSHA256 the material, and
// with ImportKeyWrapSHA256 the AES key that it is wrapped under, is for a moment in
// this process, and wiped at once. So is HMAC_224 material, since nothing else
// tells 28 bytes from 29 to 32. So is the private key of every pair, since a token
// takes what contradicts itself as well, each another part of it: nobody could
// tell which key it is then, nor whether another token will take it.
func (v *Vault) ImportEncrypted(ctx context.Context, id string, spec Spec, wrapping Material, algorithm ImportAlgorithm, encrypted []byte) (Material, error) {
	s, err := v.check(id, spec)
	if err != nil {
		return Material{}, err
	}
	t := transport{material: &wrapping}
	if t.shape, err = v.expect(&wrapping, "unwrap key material", familyRSA); err != nil {
		return Material{}, err
	}
	if t.hash, t.twoSteps, err = algorithm.parts(); err != nil {
		return Material{}, err
	}
	if err := t.split(encrypted); err != nil {
		return Material{}, fmt.Errorf("import key %s: %w", id, err)
	}
	m, err := v.importTransported(ctx, id, spec, s, t)
	if err != nil {
		return Material{}, fmt.Errorf("import key %s: %w", id, err)
	}
	return m, nil
}

// transport is encrypted key material on its way.
type transport struct {
	material *Material // RSA pair
	shape    shape     // of that
	hash     crypto.Hash
	twoSteps bool
	block    []byte // RSA ciphertext
	rest     []byte // under the AES key in block; two steps only
}

// split takes encrypted apart and checks what can be checked without a key.
func (t *transport) split(encrypted []byte) error {
	own, size := bytes.Clone(encrypted), t.shape.bytes
	t.block = own
	if t.twoSteps {
		if len(own) <= size {
			return fmt.Errorf("%w: it has %d bytes: %d are the AES key and the material follows", ErrInvalidCiphertext, len(own), size)
		}
		t.block, t.rest = own[:size:size], own[size:]
		if len(t.rest) < 16 || len(t.rest)%8 != 0 {
			return fmt.Errorf("%w: %d bytes behind the AES key are no wrapped key", ErrInvalidCiphertext, len(t.rest))
		}
	}
	return t.material.checkCiphertext(t.shape, t.block)
}

func (v *Vault) importTransported(ctx context.Context, id string, spec Spec, s shape, t transport) (Material, error) {
	if s.unwrappable() && (t.twoSteps || t.hash == crypto.SHA1) {
		return v.unwrapTransported(ctx, id, spec, s, t, nil)
	}
	value, err := v.openTransport(ctx, s, t)
	if err != nil {
		return Material{}, err
	}
	m, err := v.importParsed(ctx, id, spec, s, value)
	if t.twoSteps && isCode(err, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		// Some tokens, as in the mode for FIPS 140, take no private key but one that
		// they have decrypted themselves.
		return v.unwrapTransported(ctx, id, spec, s, t, value.public)
	}
	return m, err
}

// openTransport decrypts key material in this process and reads it.
func (v *Vault) openTransport(ctx context.Context, s shape, t transport) (parsed, error) {
	material, err := v.DecryptOAEP(ctx, t.material, t.hash, t.block)
	if err != nil {
		return parsed{}, err
	}
	defer func() { clear(material) }()
	if t.twoSteps {
		key := material
		material, err = unwrapKWP(key, t.rest)
		clear(key)
		if err != nil {
			return parsed{}, err
		}
	}
	return s.parse(material)
}

// unwrappable reports whether material of this shape can be decrypted in the
// token and still be checked, see ImportEncrypted.
func (s shape) unwrappable() bool { return s.secret() && s.bytes%8 == 0 }

// unwrapTransported decrypts material in the token and wraps it there. public is
// the public key of a pair.
func (v *Vault) unwrapTransported(ctx context.Context, id string, spec Spec, s shape, t transport, public []byte) (Material, error) {
	var out Material
	err := v.use(ctx, t.material, t.shape, func() keyCall {
		return keyCall{run: func(w *worker, h pkcs11.ObjectHandle) error {
			m, err := v.wrapOnce(w, spec, s, func(w *worker) (product, error) { return v.unwrapTransport(w, s, t, h, public) })
			if err == nil {
				m.ID = id
				out = m
			}
			return err
		}}
	})
	if err != nil {
		return Material{}, err // the call may still write to out
	}
	return out, nil
}

// unwrapTransport makes a session object of encrypted material.
func (v *Vault) unwrapTransport(w *worker, s shape, t transport, rsaKey pkcs11.ObjectHandle, public []byte) (p product, err error) {
	template := s.template(storage{extractable: true})
	p.public = public
	if !t.twoSteps {
		p.handle, err = w.t.module.ctx.UnwrapKey(w.session, oaepSHA1(), rsaKey, t.block, template)
	} else {
		var key pkcs11.ObjectHandle
		if key, err = w.transportKey(t, rsaKey); err != nil {
			return p, err
		}
		p.handle, err = w.t.module.ctx.UnwrapKey(w.session, keyWrap(), key, t.rest, template)
		if destroyed := w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, key)); destroyed != nil {
			return p, errors.Join(err, destroyed)
		}
	}
	if err != nil {
		return p, w.refusedTransport(err)
	}
	if s.secret() {
		err = v.checkLength(w, s, p.handle)
	}
	if err != nil {
		err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
	}
	return p, err
}

// refusedTransport tells what does not decrypt from a sick token and from a key that
// is gone.
func (w *worker) refusedTransport(err error) error {
	if isHandleGone(err) {
		return w.fail("C_UnwrapKey", err)
	}
	if err = w.refused("C_UnwrapKey", err); errors.Is(err, ErrInvalidMaterial) {
		return fmt.Errorf("%w: %v", ErrInvalidCiphertext, err)
	}
	return err
}

// transportKey makes a session object of the AES key in an RSA block.
func (w *worker) transportKey(t transport, rsaKey pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	ctx := w.t.module.ctx
	template := append(shape{family: familyAES}.identity(), storage{}.attributes()...)
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true))
	if t.hash == crypto.SHA1 {
		h, err := ctx.UnwrapKey(w.session, oaepSHA1(), rsaKey, t.block, template)
		if err != nil {
			err = w.refusedTransport(err)
		}
		return h, err
	}
	key, err := w.decryptOAEP(rsaKey, t.hash, t.block)
	if err != nil {
		return 0, err
	}
	defer clear(key)
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return 0, fmt.Errorf("%w: it is wrapped under an AES key of %d bytes", ErrInvalidCiphertext, n)
	}
	h, err := ctx.CreateObject(w.session, append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE, key)))
	return h, w.fail("C_CreateObject", err)
}

// checkLength checks how long a secret key is. SoftHSM2 does not tell
// CKA_VALUE_LEN of an unwrapped key. But it refuses to use one that is shorter
// than its hash, or that AES does not have, and what key wrap makes of others is
// 8 bytes longer than they are, and up to 7 more.
func (v *Vault) checkLength(w *worker, s shape, h pkcs11.ObjectHandle) error {
	values, err := w.values(h, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return err
	}
	size := ulong(values[0])
	if size == 0 {
		if size, err = v.paddedLength(w, s, h); err != nil {
			return err
		}
	}
	if size != uint64(s.bytes) {
		return otherMaterial("it has %d bytes instead of %d", size, s.bytes)
	}
	return nil
}

func (v *Vault) paddedLength(w *worker, s shape, h pkcs11.ObjectHandle) (uint64, error) {
	_, err := w.digest(s, "", product{handle: h})
	if isCode(err, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_MECHANISM_INVALID) {
		return 0, otherMaterial("its length is not %d bytes", s.bytes)
	} else if err != nil {
		return 0, err
	}
	root, err := v.root.usable(w)
	if err != nil {
		return 0, err
	}
	wrapped, err := w.t.module.ctx.WrapKey(w.session, keyWrap(), root.handle, h)
	return uint64(max(len(wrapped)-8, 0)), w.fail("C_WrapKey", err)
}
