package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
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
// Secret keys do not leave the token in the clear where it unwraps them, which is
// found out by a key of our own. Otherwise they, or the AES key that they are wrapped
// under, are for a moment in this process, and wiped at once: in SoftHSM2 2.6, which
// knows OAEP with SHA-1 only, with ImportOAEPSHA256 and ImportKeyWrapSHA256. So is
// HMAC_224 material, since nothing else tells 28 bytes from 29 to 32. So is the
// private key of every pair, since a token takes what contradicts itself as well, each
// another part of it: nobody could tell which key it is then, nor whether another
// token will take it. uses is as for Generate.
func (v *Vault) ImportEncrypted(ctx context.Context, id string, spec Spec, wrapping Material, algorithm ImportAlgorithm, encrypted []byte, uses ...Use) (Material, error) {
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
	m, err := v.importTransported(ctx, order{id: id, spec: spec, shape: s, uses: uses}, t)
	if err != nil {
		return Material{}, fmt.Errorf("import key %s: %w", id, err)
	}
	return m, nil
}

// transport is encrypted key material on its way.
type transport struct {
	material *Material // RSA pair
	shape    shape     // of that
	public   *rsa.PublicKey
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
	var err error
	t.public, err = t.material.checkCiphertext(t.shape, t.block)
	return err
}

// errNotUnwrappable says that the token does not unwrap material that came so.
var errNotUnwrappable = errors.New("the token does not unwrap such material")

func (v *Vault) importTransported(ctx context.Context, o order, t transport) (Material, error) {
	if o.shape.unwrappable() {
		m, err := v.unwrapTransported(ctx, o, t, nil)
		if !errors.Is(err, errNotUnwrappable) && !errors.Is(err, errNotWrappable) {
			return m, err
		}
	}
	value, err := v.openTransport(ctx, o.shape, t)
	if err != nil {
		return Material{}, err
	}
	m, err := v.importParsed(ctx, o, value)
	if t.twoSteps && isCode(err, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		// Some tokens, as in the mode for FIPS 140, take no private key but one that
		// they have decrypted themselves.
		again, againErr := v.unwrapTransported(ctx, o, t, value.public)
		if !errors.Is(againErr, errNotUnwrappable) {
			return again, againErr
		}
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
func (v *Vault) unwrapTransported(ctx context.Context, o order, t transport, public []byte) (Material, error) {
	var out Material
	err := v.use(ctx, t.material, t.shape, func() keyCall {
		return keyCall{run: func(w *worker, h pkcs11.ObjectHandle) error {
			own := o
			own.produce = func(w *worker) (product, error) { return v.unwrapTransport(w, o.shape, t, h, public) }
			m, err := v.wrapOnce(w, &own)
			if err == nil {
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
	p = product{public: public, foreign: true}
	if p.handle, err = w.unwrapArrived(s, t, rsaKey); err != nil || !s.secret() {
		return p, err
	}
	if err = v.checkLength(w, s, p.handle, t, rsaKey); err == nil {
		return p, nil
	}
	if errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w: %w", errNotUnwrappable, err)
	}
	return p, errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, p.handle)))
}

// unwrapArrived is the unwrapping in unwrapTransport.
func (w *worker) unwrapArrived(s shape, t transport, rsaKey pkcs11.ObjectHandle) (h pkcs11.ObjectHandle, err error) {
	template := s.template(storage{extractable: true})
	if !t.twoSteps {
		if ok, err := w.unwrapsOAEP(rsaKey, t.public, t.hash); err != nil || !ok {
			return 0, errors.Join(err, errNotUnwrappable)
		}
		return w.unwrapBlock(t, rsaKey, template)
	}
	way, err := w.unwrapsKWP(t, rsaKey)
	if err != nil || way == nil {
		return 0, errors.Join(err, errNotUnwrappable)
	}
	key, err := w.transportKey(t, rsaKey)
	if err != nil {
		return 0, err
	}
	h, err = w.t.module.ctx.UnwrapKey(w.session, way.mechanism(), key, t.rest, template)
	destroyed := w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, key))
	if destroyed != nil {
		return h, errors.Join(err, destroyed)
	}
	return h, w.notArrived(err)
}

// unwrapBlock makes an object of the key in an RSA block. To a wrong padding some tokens
// answer CKR_DEVICE_ERROR: they are asked again between two blocks of our own, that
// neither a good block nor a sick token be called a wrong one.
func (w *worker) unwrapBlock(t transport, rsaKey pkcs11.ObjectHandle, template []*pkcs11.Attribute) (h pkcs11.ObjectHandle, err error) {
	for range 2 {
		h, err = w.t.module.ctx.UnwrapKey(w.session, oaepWith(t.hash), rsaKey, t.block, template)
		if !isCode(err, pkcs11.CKR_DEVICE_ERROR) {
			return h, w.notArrived(err)
		}
		if w.tryUnwrapOAEP(rsaKey, t.public, t.hash) != nil {
			return 0, w.fail("C_UnwrapKey", err)
		}
	}
	return 0, fmt.Errorf("%w (C_UnwrapKey: %v)", ErrInvalidCiphertext, err) // %v: it is not the token's failure
}

func (w *worker) tryUnwrapOAEP(rsaKey pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash) error {
	return w.tryUnwrap(func(key []byte) ([]byte, error) { return rsa.EncryptOAEP(hash.New(), rand.Reader, public, key, nil) }, oaepWith(hash), rsaKey)
}

// notArrived says what it means that C_UnwrapKey refused encrypted material.
func (w *worker) notArrived(err error) error {
	switch {
	case err == nil:
		return nil
	case isHandleGone(err):
		return w.fail("C_UnwrapKey", err)
	case isLacking(err), isTemplateRefused(err):
		return fmt.Errorf("%w: %w", errNotUnwrappable, w.fail("C_UnwrapKey", err))
	case isCode(err, pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE, pkcs11.CKR_KEY_SIZE_RANGE):
		// Whether it was damaged on its way, or is as long as no such key is.
		return fmt.Errorf("%w: %w", errNotUnwrappable, w.fail("C_UnwrapKey", err))
	}
	return w.refused("C_UnwrapKey", err, ErrInvalidCiphertext)
}

// unwrapsOAEP reports whether the token unwraps AES keys by RSAES-OAEP, which it is
// tried for once.
func (w *worker) unwrapsOAEP(rsaKey pkcs11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash) (bool, error) {
	memory := &w.t.oaep
	memory.mu.Lock()
	unwraps, known := memory.unwraps[hash]
	memory.mu.Unlock()
	if known {
		return unwraps, nil
	}
	err := w.tryUnwrapOAEP(rsaKey, public, hash)
	if isSick(err) {
		return false, err
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if memory.unwraps == nil {
		memory.unwraps = map[crypto.Hash]bool{}
	}
	memory.unwraps[hash] = err == nil
	return err == nil, nil
}

// unwrapsKWP returns the key wrap that is RFC 5649 in this token, nil if none is. It
// is tried once, under a key of our own that comes by the way of t, if it can.
func (w *worker) unwrapsKWP(t transport, rsaKey pkcs11.ObjectHandle) (*KeyWrap, error) {
	memory := &w.t.oaep
	memory.mu.Lock()
	way, tried := memory.wrap, memory.tried
	memory.mu.Unlock()
	if tried {
		return way, nil
	}
	listed, err := w.keyWraps(WrapKWP)
	if err != nil {
		return nil, err
	}
	for _, k := range listed {
		err := w.tryKWP(k, t, rsaKey)
		if isSick(err) {
			return nil, err
		}
		if err == nil {
			way = &k
			break
		}
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	memory.wrap, memory.tried = way, true
	return way, nil
}

// tryKWP has the token unwrap what RFC 5649 makes of a key.
func (w *worker) tryKWP(k KeyWrap, t transport, rsaKey pkcs11.ObjectHandle) (err error) {
	kek := make([]byte, aes256KeyLength)
	_, _ = rand.Read(kek) // never fails
	h, err := w.bringKEK(kek, t, rsaKey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h))) }()
	return w.tryUnwrap(func(key []byte) ([]byte, error) { return wrapKWP(kek, key) }, k.mechanism(), h)
}

// bringKEK makes a session object of an AES key that unwraps: by unwrapping it, since
// some tokens take no other, or else by creating it.
func (w *worker) bringKEK(kek []byte, t transport, rsaKey pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	ctx := w.t.module.ctx
	ok, err := w.unwrapsOAEP(rsaKey, t.public, t.hash)
	if err != nil {
		return 0, err
	}
	if !ok {
		h, err := ctx.CreateObject(w.session, append(transportTemplate(), pkcs11.NewAttribute(pkcs11.CKA_VALUE, kek)))
		return h, w.fail("C_CreateObject", err)
	}
	block, err := rsa.EncryptOAEP(t.hash.New(), rand.Reader, t.public, kek, nil)
	if err != nil {
		return 0, err
	}
	h, err := ctx.UnwrapKey(w.session, oaepWith(t.hash), rsaKey, block, transportTemplate())
	return h, w.fail("C_UnwrapKey", err)
}

// tryUnwrap has the token unwrap an AES key that wrap has wrapped, and compares what
// comes out.
func (w *worker) tryUnwrap(wrap func(key []byte) ([]byte, error), m cryptoki.Mechanism, by pkcs11.ObjectHandle) (err error) {
	key := make([]byte, aes256KeyLength)
	_, _ = rand.Read(key) // never fails
	wrapped, err := wrap(key)
	if err != nil {
		return err
	}
	h, err := w.t.module.ctx.UnwrapKey(w.session, m, by, wrapped, shape{family: familyAES}.template(storage{}))
	if err != nil {
		return w.fail("C_UnwrapKey", err)
	}
	defer func() { err = errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, h))) }()
	blocks := []byte(digestBlocks)
	got, err := w.encryptECB(h, blocks)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	want := make([]byte, len(blocks))
	for i := 0; i < len(blocks); i += aes.BlockSize {
		block.Encrypt(want[i:], blocks[i:])
	}
	if !bytes.Equal(got, want) {
		return w.fail("C_UnwrapKey", errWrongAnswer)
	}
	return nil
}

// transportTemplate returns the attributes of the AES key that material comes under.
func transportTemplate() []*pkcs11.Attribute {
	template := append(shape{family: familyAES}.identity(), storage{}.attributes()...)
	return append(template, pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true))
}

// transportKey makes a session object of the AES key in an RSA block.
func (w *worker) transportKey(t transport, rsaKey pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	ctx := w.t.module.ctx
	ok, err := w.unwrapsOAEP(rsaKey, t.public, t.hash)
	if err != nil {
		return 0, err
	}
	if ok {
		return w.unwrapBlock(t, rsaKey, transportTemplate())
	}
	key, err := w.decryptOAEP(rsaKey, t.public, t.hash, t.block)
	if err != nil {
		return 0, err
	}
	defer clear(key)
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return 0, fmt.Errorf("%w: it is wrapped under an AES key of %d bytes", ErrInvalidCiphertext, n)
	}
	h, err := ctx.CreateObject(w.session, append(transportTemplate(), pkcs11.NewAttribute(pkcs11.CKA_VALUE, key)))
	return h, w.fail("C_CreateObject", err)
}

// checkLength checks how long a secret key is. SoftHSM2 does not tell
// CKA_VALUE_LEN of an unwrapped key. But it refuses to use one that is shorter
// than its hash, or that AES does not have, and what key wrap makes of others is
// 8 bytes longer than they are, and up to 7 more.
func (v *Vault) checkLength(w *worker, s shape, h pkcs11.ObjectHandle, t transport, rsaKey pkcs11.ObjectHandle) error {
	values, err := w.values(h, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return err
	}
	size := ulong(values[0])
	if size == 0 {
		if size, err = v.paddedLength(w, s, h, t, rsaKey); err != nil {
			return err
		}
	}
	if size != uint64(s.bytes) {
		return otherMaterial("it has %d bytes instead of %d", size, s.bytes)
	}
	return nil
}

func (v *Vault) paddedLength(w *worker, s shape, h pkcs11.ObjectHandle, t transport, rsaKey pkcs11.ObjectHandle) (uint64, error) {
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
	way, err := w.unwrapsKWP(t, rsaKey)
	if err != nil {
		return 0, err
	}
	if way == nil {
		return 0, fmt.Errorf("%w: it does not tell how long a key is", ErrUnsupported)
	}
	wrapped, err := w.t.module.ctx.WrapKey(w.session, way.mechanism(), root.handle, h)
	return uint64(max(len(wrapped)-8, 0)), w.fail("C_WrapKey", err)
}
