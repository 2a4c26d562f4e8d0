package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// SetEnabled disables all versions of a key, or enables them again. Disabling
// withdraws CKA_ENCRYPT and CKA_DECRYPT, so that it holds for every user of the
// token, and marks the key with what to give back.
func (t *Token) SetEnabled(ctx context.Context, id string, enabled bool) error {
	if isReserved(id) {
		return t.notFound(id)
	}
	return t.admin(ctx, func(w *worker) error {
		found, err := w.unambiguous(id)
		if err != nil {
			return err
		}
		for _, o := range found {
			p, err := w.permissions(o.handle)
			if err != nil {
				return err
			}
			if p.mark.disabled != enabled {
				continue // as it should be
			}
			if err := w.change(o.handle, p, switched(p, enabled)); err != nil {
				return err
			}
		}
		return w.removeLeftBehind(id)
	})
}

// switched returns the attributes that disable a key with permissions p or
// enable it again.
func switched(p permissions, enabled bool) []*pkcs11.Attribute {
	m, usage := p.mark, KeyUsage{}
	var id []byte
	switch {
	case enabled && m.adopted:
		usage, id = KeyUsage{Encrypt: m.encrypt, Decrypt: m.decrypt}, m.rest
	case enabled:
		usage = KeyUsage{Encrypt: m.encrypt, Decrypt: m.decrypt}
		m.disabled, m.encrypt, m.decrypt = false, false, false
		m.changes++
		id = m.bytes()
	default:
		if !p.marked {
			m = mark{version: 1, adopted: true, rest: p.ckaID}
		}
		m.disabled, m.encrypt, m.decrypt = true, p.encrypt, p.decrypt
		m.changes++
		id = m.bytes()
	}
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, usage.Encrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, usage.Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
}

func (w *worker) setAttributes(h pkcs11.ObjectHandle, attrs []*pkcs11.Attribute) error {
	err := w.t.module.ctx.SetAttributeValue(w.session, h, attrs)
	if isCode(err, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_ATTRIBUTE_READ_ONLY) {
		return fmt.Errorf("token %s: %w: the key's attributes cannot be changed (CKA_MODIFIABLE is false, or the token forbids it): destroy the key, or take it out of its key store, to stop its use", w.t.name, ErrUnsupported)
	}
	return w.fail("C_SetAttributeValue", err)
}

// change gives a token key with permissions p other attributes. SoftHSM2 (2.6.1)
// writes an object anew over its old file, so that a process which is killed in
// C_SetAttributeValue leaves an empty file: the key is lost. There a copy with the
// attributes takes the place of a key that hyok made, and whoever is killed in
// between leaves both, see settle.
func (w *worker) change(h pkcs11.ObjectHandle, p permissions, attrs []*pkcs11.Attribute) error {
	if !w.t.profile.HalfKeys || !p.marked || p.mark.adopted {
		return w.setAttributes(h, attrs)
	}
	ctx := w.t.module.ctx
	values, err := w.values(h, pkcs11.CKA_MODIFIABLE)
	if err != nil {
		return err
	}
	if !boolean(values[0]) {
		return w.setAttributes(h, attrs) // which says what is forbidden
	}
	_, err = ctx.CopyObject(w.session, h, attrs)
	switch {
	case isNotCopied(err):
		return w.setAttributes(h, attrs)
	case err != nil:
		return w.fail("C_CopyObject", err)
	}
	return w.destroy(h)
}

// isNotCopied reports whether the token refuses to copy a key: CKA_COPYABLE is false,
// or it copies none, as SoftHSM2 does whose objects are in a database
// (CKR_ATTRIBUTE_VALUE_INVALID), where there is no file to lose.
func isNotCopied(err error) bool {
	return isCode(err, pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_TEMPLATE_INCOMPLETE)
}

// destroy destroys an object, unless another process has done so.
func (w *worker) destroy(h pkcs11.ObjectHandle) error {
	if err := w.t.module.ctx.DestroyObject(w.session, h); !isHandleGone(err) {
		return w.fail("C_DestroyObject", err)
	}
	return nil
}

// settle parts the objects of one label, in ascending order, into those that count
// and those that a killed process has left behind in change: of two objects of one
// and the same key the newer one counts. A process that is in the midst of change
// finds the same, so that nobody destroys what another one keeps.
func settle(found []numbered) (count, behind []numbered) {
	for _, o := range found {
		last := len(count) - 1
		switch {
		case last < 0 || count[last].number != o.number || !sameKey(count[last].ckaID, o.ckaID):
			count = append(count, o)
		case newer(o.ckaID, count[last].ckaID):
			behind = append(behind, count[last])
			count[last] = o
		default:
			behind = append(behind, o)
		}
	}
	return count, behind
}

// sameKey reports whether two objects of one label and version are one key, by the
// random bytes of their marks.
func sameKey(a, b []byte) bool {
	m, marked := parseMark(a)
	n, also := parseMark(b)
	return marked && also && !m.adopted && !n.adopted && len(m.rest) > 0 && bytes.Equal(m.rest, n.rest)
}

// newer reports whether the first of two objects of one key takes the place of the
// other. Two processes may have changed it at once: the disabled one counts then.
func newer(a, b []byte) bool {
	m, _ := parseMark(a)
	n, _ := parseMark(b)
	switch (m.changes - n.changes) & changesMask {
	case 1:
		return true
	case changesMask:
		return false
	}
	return m.disabled && !n.disabled
}

// removeLeftBehind destroys what a killed process has left behind of a key. Of
// objects that are alike in everything none is picked: they hide each other until
// the key is changed the next time, and are older than it then.
func (w *worker) removeLeftBehind(id string) error {
	found, err := w.versions(id)
	if err != nil {
		return err
	}
	count, behind := settle(found)
	var errs []error
	for _, o := range behind {
		alike := slices.ContainsFunc(count, func(c numbered) bool { return c.number == o.number && bytes.Equal(c.ckaID, o.ckaID) })
		if !alike {
			errs = append(errs, w.destroy(o.handle))
		}
	}
	return errors.Join(errs...)
}
