package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// keyObject is an object of the token that holds a key of a vault, while somebody
// uses it.
type keyObject interface {
	// object returns the handle if the key may be used now. The worker whose
	// goroutine calls it calls the module with the handle at once.
	object(w *worker) (pkcs11.ObjectHandle, error)
	release() // ends the use
	discard() // says that the handle names nothing any more
}

// keyCall is an operation with a key: run may run more than once, and wipe (nil:
// nothing to wipe) runs once, when run will not run any more.
type keyCall struct {
	run  func(*worker, pkcs11.ObjectHandle) error
	wipe func()
}

// useTries bounds how often an operation is begun anew because its key has
// another handle by now.
const useTries = 3

// use runs an operation with the key of m, which has shape s; with another
// handle it is made anew.
func (v *Vault) use(ctx context.Context, m *Material, s shape, newCall func() keyCall) error {
	var err error
	for range useTries {
		err = v.rooted(ctx, func() error { return v.useOnce(ctx, m, s, newCall) })
		if !isHandleGone(err) && !errors.Is(err, errStale) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return fmt.Errorf("key %s in token %s: %w", m.ID, v.t.name, ErrKeyUsage)
	case isLacking(err) && !errors.Is(err, ErrUnsupported):
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, errStale), errors.Is(err, errRootMoved):
		err = v.t.callError("C_OpenSession", fmt.Errorf("the token loses its sessions again and again: %w", err))
	}
	return fmt.Errorf("key %s: %w", m.ID, err)
}

func (v *Vault) useOnce(ctx context.Context, m *Material, s shape, newCall func() keyCall) error {
	k, err := v.find(ctx, m)
	if err != nil {
		return err
	}
	call := newCall()
	drop := func() {
		k.release()
		if call.wipe != nil {
			call.wipe()
		}
	}
	run := func(w *worker) error {
		h, err := k.object(w)
		if err != nil {
			return err
		}
		return w.objectMeaning(call.run(w, h), h)
	}
	// What takes long would make all who are behind it in a lane wait.
	if s.light() {
		err = v.t.doInLane(ctx, run, drop)
	} else {
		err = v.t.doThen(ctx, run, drop)
	}
	if isHandleGone(err) || errors.Is(err, errStale) {
		k.discard()
	}
	return err
}

// find returns the object of m, which the caller releases.
func (v *Vault) find(ctx context.Context, m *Material) (keyObject, error) {
	if m.Resident() {
		return v.residents.get(ctx, m)
	}
	return v.cache.get(ctx, m)
}

// expect returns the shape of m if it is of the family that an operation needs.
func (v *Vault) expect(m *Material, what string, families ...family) (shape, error) {
	s, err := v.check(m.ID, m.Spec)
	if err != nil {
		return s, err
	}
	for _, f := range families {
		if s.family == f {
			return s, nil
		}
	}
	return s, fmt.Errorf("key %s: %w: %s cannot %s", m.ID, ErrMaterialSpec, m.Spec, what)
}

// Encrypt seals plaintext with AES-256-GCM. The IV is fresh, from the token's
// generator. Errors: ErrMaterialSpec (m is no AES key), ErrKeyNotFound (a
// resident key is gone), ErrKeyUsage, ErrRootKey, ErrWrappedKey (m.Wrapped does not
// open), ErrUnsupported (the token does not do it), ErrBusy, a *TokenError, or that
// of ctx.
func (v *Vault) Encrypt(ctx context.Context, m *Material, plaintext, aad []byte) (Sealed, error) {
	s, err := v.expect(m, "encrypt with AES-GCM", familyAES)
	if err != nil {
		return Sealed{}, err
	}
	if m.Resident() {
		k, err := v.residentKey(ctx, m.ID)
		if err != nil {
			return Sealed{}, err
		}
		return k.Encrypt(ctx, k.Newest(), plaintext, aad)
	}
	var out Sealed
	err = v.use(ctx, m, s, func() keyCall {
		in, ad := ownCopies(plaintext, aad)
		return keyCall{
			run: func(w *worker, h pkcs11.ObjectHandle) error {
				sealed, err := w.seal(h, in, ad)
				if err == nil {
					out = sealed
				}
				return err
			},
			wipe: func() { clear(in) },
		}
	})
	if err != nil {
		return Sealed{}, err // the call may still write to out
	}
	return out, nil
}

// Decrypt opens what was sealed with the key, by Encrypt or by anybody else.
// ErrInvalidCiphertext means that the ciphertext, the tag, the IV or the
// additional data is wrong and that the token is well; other errors are those of
// Encrypt.
func (v *Vault) Decrypt(ctx context.Context, m *Material, sealed Sealed, aad []byte) ([]byte, error) {
	s, err := v.expect(m, "decrypt with AES-GCM", familyAES)
	if err != nil {
		return nil, err
	}
	if m.Resident() {
		k, err := v.residentKey(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		return k.Decrypt(ctx, k.Newest(), sealed, aad)
	}
	if len(sealed.Tag) != tagSize || len(sealed.IV) == 0 {
		return nil, fmt.Errorf("key %s: %w: it needs an IV and a tag of %d bytes", m.ID, ErrInvalidCiphertext, tagSize)
	}
	text, ad := ownCopies(sealed.Ciphertext, aad)
	iv, tag := ownCopies(sealed.IV, sealed.Tag)
	return v.useForBytes(ctx, m, s, func(w *worker, h pkcs11.ObjectHandle) ([]byte, error) {
		return w.unseal(h, Sealed{IV: iv, Ciphertext: text, Tag: tag}, ad)
	})
}

// useForBytes is use for an operation that returns bytes and reads nothing that
// has to be wiped.
func (v *Vault) useForBytes(ctx context.Context, m *Material, s shape, op func(*worker, pkcs11.ObjectHandle) ([]byte, error)) ([]byte, error) {
	var out []byte
	err := v.use(ctx, m, s, func() keyCall {
		return keyCall{run: func(w *worker, h pkcs11.ObjectHandle) error {
			result, err := op(w, h)
			if err == nil {
				out = result
			}
			return err
		}}
	})
	if err != nil {
		return nil, err // the call may still write to out
	}
	return out, nil
}
