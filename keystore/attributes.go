package keystore

import (
	"encoding/binary"
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

func isReserved(label string) bool { return strings.HasPrefix(label, reservedPrefix) }

// permissions are the attributes of a key that decide what may be done with it.
type permissions struct {
	encrypt, decrypt bool
	mark             mark
	marked           bool
	ckaID            []byte
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
	attrs, err := t.module.ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, nil),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil),
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil),
	})
	if err != nil {
		return permissions{}, t.callError("C_GetAttributeValue", err)
	}
	var p permissions
	for _, a := range attrs {
		switch a.Type {
		case pkcs11.CKA_ENCRYPT:
			p.encrypt = boolean(a.Value)
		case pkcs11.CKA_DECRYPT:
			p.decrypt = boolean(a.Value)
		case pkcs11.CKA_ID:
			p.ckaID = a.Value
			p.mark, p.marked = parseMark(a.Value)
		}
	}
	return p, nil
}
