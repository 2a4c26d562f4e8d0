package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// SealSecret returns 32 bytes with which the owner of a vault can authenticate
// what it stores of it, wrapped keys above all: these are not bound to anything,
// and whoever can write to where they are stored could have one used as another.
// The token computes the secret from purpose by an HMAC key that never leaves it,
// labelled hyok.seal.NAME, and that is made if create is true. It is the same each
// time, and the caller keeps it as any secret.
//
// ErrKeyNotFound: the token has no such key, and create is false; ErrKeyAmbiguous:
// it has several. Other errors are ErrClosed, ErrBusy, a *TokenError, or that of
// ctx.
func (v *Vault) SealSecret(ctx context.Context, purpose string, create bool) ([]byte, error) {
	if v.closed.Load() {
		return nil, fmt.Errorf("vault %s: %w", v.name, ErrClosed)
	}
	label := sealPrefix + v.name
	var secret []byte
	err := agreed(ctx, label, func() error {
		var err error
		secret, err = v.sealSecret(ctx, label, purpose, false)
		if !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		switch there, e := v.t.confirmGone(ctx, label); {
		case e != nil:
			return e
		case there:
			return ErrKeyExists // the next attempt finds it
		case create:
			secret, err = v.sealSecret(ctx, label, purpose, true)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("key %s in token %s: %w", label, v.t.name, v.t.checkWhole(ctx, label, err))
	}
	v.t.noteOwn(label)
	return secret, nil
}

// sealSecret computes the secret once.
func (v *Vault) sealSecret(ctx context.Context, label, purpose string, create bool) ([]byte, error) {
	var out []byte
	err := v.t.admin(ctx, func(w *worker) error {
		h, err := w.sealKey(label, create)
		if err != nil {
			return err
		}
		sum, err := w.mac(h, crypto.SHA256, []byte("hyok seal secret\x00"+purpose))
		if err == nil {
			out = sum
		}
		return err
	})
	if err != nil {
		return nil, err // the call may still write to out
	}
	return out, nil
}

// sealKey finds the seal key, or makes it. As in rootKey.make, whoever finds a
// twin of what he made takes his own away.
func (w *worker) sealKey(label string, create bool) (pkcs11.ObjectHandle, error) {
	template := sealTemplate(label)
	found, err := w.findSealKeys(template)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fmt.Errorf("%w: %d objects have this label; delete all but the one that the vault was used with", ErrKeyAmbiguous, len(found))
	case !create:
		return 0, ErrKeyNotFound
	}
	made, err := w.generateSpec(sealShape(), storage{label: label, onToken: true})
	if err != nil {
		return 0, err
	}
	found, err = w.findSealKeys(template)
	if err == nil && len(found) == 1 {
		return made.handle, nil
	}
	if err == nil {
		err = ErrKeyExists
	}
	return 0, errors.Join(err, w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, made.handle)))
}

func sealShape() shape { return shape{family: familyHMAC, bytes: 32, hash: crypto.SHA256} }

// sealTemplate returns what a search for a seal key asks for.
func sealTemplate(label string) []*pkcs11.Attribute {
	return append(sealShape().identity(), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
}

func (w *worker) findSealKeys(template []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	found, err := w.findObjects(template)
	if err != nil {
		return nil, err
	}
	return found, w.checkLogin()
}
