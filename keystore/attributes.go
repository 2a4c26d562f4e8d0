package keystore

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// ulong decodes a CK_ULONG attribute, which has the size and byte order of the
// host; hyok runs on little-endian 64-bit hosts and on big-endian ones.
func ulong(b []byte) uint64 {
	switch len(b) {
	case 8:
		return binary.NativeEndian.Uint64(b)
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return 0
}

// boolean decodes a CK_BBOOL attribute.
func boolean(b []byte) bool { return len(b) == 1 && b[0] != 0 }

// isFalse reports whether a CK_BBOOL attribute was told and is false.
func isFalse(b []byte) bool { return len(b) == 1 && b[0] == 0 }

func isReserved(label string) bool { return strings.HasPrefix(label, reservedPrefix) }

// permissions are the attributes of a key that decide what may be done with it.
type permissions struct {
	encrypt, decrypt bool
	// noEncrypt and noDecrypt: so the token says; it may as well not tell.
	noEncrypt, noDecrypt bool

	mark   mark
	marked bool
	ckaID  []byte
}

// usable reports whether two readings permit the same.
func (p permissions) same(q permissions) bool {
	return p.encrypt == q.encrypt && p.decrypt == q.decrypt && string(p.ckaID) == string(q.ckaID)
}

// permissions reads the present permissions of an object from the token.
func (w *worker) permissions(h pkcs11.ObjectHandle) (permissions, error) {
	return readPermissions(w.t, w.session, h)
}

func readPermissions(t *Token, s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (permissions, error) {
	values, err := t.attributes(s, h, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_ID)
	if err != nil {
		return permissions{}, err
	}
	p := permissions{encrypt: boolean(values[0]), decrypt: boolean(values[1]), noEncrypt: isFalse(values[0]), noDecrypt: isFalse(values[1]), ckaID: values[2]}
	p.mark, p.marked = parseMark(p.ckaID)
	return p, nil
}

// attributes reads attributes of an object. The value is nil of one that the object
// does not have or the token does not tell.
func (t *Token) attributes(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, types ...uint) ([][]byte, error) {
	wanted := make([]*pkcs11.Attribute, len(types))
	for i, kind := range types {
		wanted[i] = &pkcs11.Attribute{Type: kind}
	}
	told, err := t.module.ctx.GetAttributeValue(s, h, wanted)
	if err != nil {
		return nil, t.callError("C_GetAttributeValue", err)
	}
	values := make([][]byte, len(told))
	for i, a := range told {
		values[i] = a.Value
	}
	return values, nil
}

// values is attributes for those that the object must have.
func (w *worker) values(h pkcs11.ObjectHandle, types ...uint) ([][]byte, error) {
	values, err := w.t.attributes(w.session, h, types...)
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		if value == nil {
			return nil, w.fail("C_GetAttributeValue", fmt.Errorf("%w: the token does not tell attribute 0x%X", pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID), types[i]))
		}
	}
	return values, nil
}
