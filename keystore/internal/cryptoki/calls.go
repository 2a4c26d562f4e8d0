package cryptoki

/*
#cgo noescape slot_list
#cgo nocallback slot_list
#cgo noescape mechanism_list
#cgo nocallback mechanism_list
#cgo noescape find_objects
#cgo nocallback find_objects
#cgo noescape attributes
#cgo nocallback attributes
#cgo noescape compute
#cgo nocallback compute
#cgo noescape wrap_key
#cgo nocallback wrap_key
#cgo noescape generate_random
#cgo nocallback generate_random
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include "calls.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// The calls of this file go to the module itself: the library asks twice, first for
// the length, where one call does, returns no attribute where one of several is
// absent, and believes the numbers that it is answered.

// functions is the CK_FUNCTION_LIST of a module.
type functions = C.struct_functions

// What modules are believed to answer at most.
const (
	mostSlots          = 1 << 14
	mostMechanisms     = 1 << 14
	mostObjects        = 1 << 22
	mostAttributeBytes = 1 << 20
)

// CheckModule returns an error if the file at path cannot be a PKCS#11 module.
func CheckModule(path string) error {
	_, err := loadChecked(path, func() (struct{}, error) { return struct{}{}, nil })
	return err
}

// loadChecked loads the library at path, looks at it and, while it is loaded, calls
// load.
func loadChecked[T any](path string, load func() (T, error)) (t T, err error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why [512]C.char
	library := C.load_library(name, &why[0], C.ulong_t(len(why)))
	if library == nil {
		return t, fmt.Errorf("%s cannot be loaded as a PKCS#11 module: %s", path, C.GoString(&why[0]))
	}
	defer C.unload_library(library)
	return load()
}

// loadedModule is what a Ctx of the library points to: it keeps the list of functions
// to itself, and a second list would not do, since that of p11-kit-proxy knows other
// sessions.
type loadedModule struct {
	handle    unsafe.Pointer
	functions *functions
}

// A Ctx is nothing but that pointer, or else this does not compile.
var _ = [1]struct{}{}[unsafe.Sizeof(pkcs11.Ctx{})-unsafe.Sizeof(unsafe.Pointer(nil))]

// functionsOf returns the list of functions that ctx calls.
func functionsOf(ctx *pkcs11.Ctx) (*functions, error) {
	m := *(**loadedModule)(unsafe.Pointer(ctx))
	if m.functions == nil {
		return nil, errors.New("its C_GetFunctionList answers nothing")
	}
	if missing := C.missing_function(m.functions); missing != nil {
		return nil, fmt.Errorf("it has no %s", C.GoString(missing))
	}
	return m.functions, nil
}

// returned is the error for a return value.
func returned(rv C.rv_t) error {
	if rv == C.CKR_OK_ {
		return nil
	}
	return pkcs11.Error(rv)
}

// tooMany says that the module does not keep to PKCS#11.
func tooMany(what string, n C.ulong_t, room int) error {
	return fmt.Errorf("the module answers %d %s where there is room for %d", uint64(n), what, room)
}

// reserved returns text as a C string, nil for none.
func reserved(text string) unsafe.Pointer {
	if text == "" {
		return nil
	}
	return unsafe.Pointer(C.CString(text))
}

func free(p unsafe.Pointer) { C.free(p) }

func initialize(f *functions, parameters unsafe.Pointer) error {
	return returned(C.initialize(f, (*C.char)(parameters)))
}

func slotList(f *functions, present bool) ([]uint, error) {
	flag := C.int(0)
	if present {
		flag = 1
	}
	return numbers("slots", mostSlots, func(list, n *C.ulong_t) C.rv_t { return C.slot_list(f, flag, list, n) })
}

func mechanismList(f *functions, slot uint) ([]uint, error) {
	return numbers("mechanisms", mostMechanisms, func(list, n *C.ulong_t) C.rv_t { return C.mechanism_list(f, C.ulong_t(slot), list, n) })
}

// numbers asks how many there are of what, and then for these.
func numbers(what string, most C.ulong_t, ask func(list, n *C.ulong_t) C.rv_t) ([]uint, error) {
	for {
		var n C.ulong_t
		if rv := ask(nil, &n); rv != C.CKR_OK_ && rv != C.CKR_BUFFER_TOO_SMALL_ || n == 0 {
			return nil, returned(rv)
		}
		if n > most {
			return nil, tooMany(what, n, int(most))
		}
		list := make([]uint, n)
		room := n
		switch rv := ask((*C.ulong_t)(unsafe.Pointer(&list[0])), &n); {
		case rv == C.CKR_BUFFER_TOO_SMALL_ && n > room: // there is another one by now
		case rv != C.CKR_OK_:
			return nil, returned(rv)
		case n > room:
			return nil, tooMany(what, n, len(list))
		default:
			return list[:n], nil
		}
	}
}

// findObjects returns what C_FindObjects finds until there is no more.
func findObjects(f *functions, s Session) ([]Object, error) {
	const batch = 1024
	var found []Object
	for len(found) <= mostObjects {
		var buffer [batch]Object
		var n C.ulong_t
		rv := C.find_objects(f, C.ulong_t(s), (*C.ulong_t)(unsafe.Pointer(&buffer[0])), batch, &n)
		switch {
		case rv != C.CKR_OK_:
			return nil, returned(rv)
		case n > batch:
			return nil, tooMany("objects", n, batch)
		case n == 0:
			return found, nil
		}
		found = append(found, buffer[:n]...)
	}
	return nil, fmt.Errorf("the module finds objects without end: %d by now", len(found))
}

// usualAttribute has room for nearly every attribute: a modulus of 4096 bits.
const usualAttribute = 512

// getAttributes returns attributes of an object in the order of t, with nil for those
// that the object does not have or the token does not tell: those are no errors
// (PKCS#11 v2.40, section 5.7), yet not every module then fills in the others, so
// that each is read alone.
func getAttributes(f *functions, s Session, o Object, t Template) (Template, error) {
	if len(t) > C.MOST_ATTRIBUTES {
		return nil, fmt.Errorf("%d attributes are too many: %d can be read at once", len(t), int(C.MOST_ATTRIBUTES))
	}
	values := make([]pkcs11.Attribute, len(t))
	told := make(Template, len(t))
	for i := range t {
		values[i].Type = t[i].Type
		told[i] = &values[i]
	}
	err := readAttributes(f, s, o, values)
	if len(t) > 0 && isUntold(err) {
		for i := range values {
			if err = readAttribute(f, s, o, &values[i]); err != nil {
				return nil, err
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return told, nil
}

// isUntold reports whether err says that one of several attributes could not be
// told, or needs more room.
func isUntold(err error) bool {
	code, ok := err.(pkcs11.Error)
	return ok && (code == C.CKR_ATTRIBUTE_SENSITIVE_ || code == C.CKR_ATTRIBUTE_TYPE_INVALID_ || code == C.CKR_BUFFER_TOO_SMALL_)
}

// readAttributes reads several attributes by one call.
func readAttributes(f *functions, s Session, o Object, attributes []pkcs11.Attribute) error {
	const few = 8
	var own [few * usualAttribute]byte
	buffer := own[:]
	if len(attributes) > few {
		buffer = make([]byte, len(attributes)*usualAttribute)
	}
	defer clear(buffer)
	var types, lengths [C.MOST_ATTRIBUTES]C.ulong_t
	for i, a := range attributes {
		types[i] = C.ulong_t(a.Type)
	}
	rv := C.attributes(f, C.ulong_t(s), C.ulong_t(o), &types[0], C.ulong_t(len(attributes)), (*C.byte_t)(&buffer[0]), usualAttribute, &lengths[0])
	if rv != C.CKR_OK_ {
		return returned(rv)
	}
	for i := range attributes {
		value, err := attributeIn(buffer[i*usualAttribute:(i+1)*usualAttribute], lengths[i])
		if err != nil {
			return err
		}
		attributes[i].Value = value
	}
	return nil
}

// unavailable is CK_UNAVAILABLE_INFORMATION.
const unavailable = ^C.ulong_t(0)

// attributeIn returns a copy of the value in a buffer.
func attributeIn(buffer []byte, length C.ulong_t) ([]byte, error) {
	switch {
	case length == unavailable:
		return nil, nil
	case length > C.ulong_t(len(buffer)):
		return nil, tooMany("bytes of an attribute", length, len(buffer))
	}
	return append([]byte{}, buffer[:length]...), nil
}

// readAttribute reads one attribute, however long.
func readAttribute(f *functions, s Session, o Object, a *pkcs11.Attribute) error {
	err := readAttributes(f, s, o, unsafe.Slice(a, 1))
	switch code, _ := err.(pkcs11.Error); code {
	case C.CKR_ATTRIBUTE_SENSITIVE_, C.CKR_ATTRIBUTE_TYPE_INVALID_:
		a.Value = nil
		return nil
	case C.CKR_BUFFER_TOO_SMALL_:
		return readLongAttribute(f, s, o, a)
	}
	return err
}

func readLongAttribute(f *functions, s Session, o Object, a *pkcs11.Attribute) error {
	kind, length := C.ulong_t(a.Type), C.ulong_t(0)
	if err := returned(C.attributes(f, C.ulong_t(s), C.ulong_t(o), &kind, 1, nil, 0, &length)); err != nil {
		return err
	}
	if length == 0 || length > mostAttributeBytes {
		return tooMany("bytes of an attribute", length, mostAttributeBytes)
	}
	buffer := make([]byte, length)
	if err := returned(C.attributes(f, C.ulong_t(s), C.ulong_t(o), &kind, 1, (*C.byte_t)(&buffer[0]), length, &length)); err != nil {
		return err
	}
	if length > C.ulong_t(len(buffer)) {
		return tooMany("bytes of an attribute", length, len(buffer))
	}
	a.Value = buffer[:length]
	return nil
}

// flat returns m without the texts of its parameters.
func (m *Mechanism) flat() C.struct_mechanism {
	c := C.struct_mechanism{_type: C.ulong_t(m.Type)}
	switch {
	case m.GCM != nil:
		c.kind, c.first_length, c.second_length = C.GCM, C.ulong_t(len(m.GCM.IV)), C.ulong_t(len(m.GCM.AAD))
	case m.OAEP != nil:
		c.kind, c.hash, c.mgf = C.OAEP, C.ulong_t(m.OAEP.Hash), C.ulong_t(m.OAEP.MGF)
	case m.PSS != nil:
		c.kind, c.hash, c.mgf, c.salt = C.PSS, C.ulong_t(m.PSS.Hash), C.ulong_t(m.PSS.MGF), C.ulong_t(m.PSS.Salt)
	}
	return c
}

// The most that hyok's mechanisms return beyond what they were given.
const (
	gcmTag     = 16
	appendedIV = 16
	usualRoom  = 2048 // a signature of, or a text under, the longest RSA key; a wrapped private key takes twice that
)

// operation is one of those that a compute begins and finishes.
type operation C.int

const (
	encrypting = operation(C.ENCRYPT)
	decrypting = operation(C.DECRYPT)
	signing    = operation(C.SIGN)
)

func (o operation) calls() (begin, finish string) {
	switch o {
	case encrypting:
		return "C_EncryptInit", "C_Encrypt"
	case decrypting:
		return "C_DecryptInit", "C_Decrypt"
	}
	return "C_SignInit", "C_Sign"
}

// compute begins and finishes an operation whose output goes to room. It returns the
// output, which is a part of room unless that is too small, and the IV as the
// parameters of AES-GCM held it afterwards.
func compute(f *functions, op operation, s Session, m *Mechanism, key Object, in, room []byte) (out, iv []byte, err error) {
	var own [64]byte // for nearly every IV: the module may write there
	var aad []byte
	used := own[:0]
	if m.GCM != nil {
		used, aad = append(used, m.GCM.IV...), m.GCM.AAD
	}
	c := m.flat()
	o := C.struct_output{room: C.ulong_t(len(room))}
	rv := C.compute(f, C.int(op), C.ulong_t(s), &c, data(used), data(aad), C.ulong_t(key), data(in), C.ulong_t(len(in)), data(room), &o)
	begin, finish := op.calls()
	switch {
	case o.begun == 0:
		return nil, nil, &CallError{begin, pkcs11.Error(rv)}
	default:
		out, err = outputIn(&o, rv, room)
	}
	if err != nil {
		return nil, nil, &CallError{finish, err}
	}
	if m.GCM != nil {
		iv = m.GCM.IV
	}
	if !bytes.Equal(used, iv) {
		iv = bytes.Clone(used)
	}
	return out, iv, nil
}

// outputIn returns the output of a call, and wipes and frees what the call has made
// for it.
func outputIn(o *C.struct_output, rv C.rv_t, room []byte) ([]byte, error) {
	if o.larger != nil {
		larger := unsafe.Slice((*byte)(o.larger), int(o.room))
		defer C.free_output(o)
		defer clear(larger)
		room = bytes.Clone(larger)
	}
	switch {
	case rv != C.CKR_OK_:
		return nil, pkcs11.Error(rv)
	case o.length > C.ulong_t(len(room)):
		return nil, tooMany("bytes", o.length, len(room))
	}
	return room[:o.length], nil
}

func data(b []byte) *C.byte_t { return (*C.byte_t)(unsafe.SliceData(b)) }

// computeUsual is compute for an output of the usual length.
func computeUsual(f *functions, op operation, s Session, m *Mechanism, key Object, in []byte) ([]byte, error) {
	var room [usualRoom]byte
	defer clear(room[:])
	out, _, err := compute(f, op, s, m, key, in, room[:])
	if err != nil {
		return nil, err
	}
	return append([]byte{}, out...), nil
}

func wrapKey(f *functions, s Session, m *Mechanism, wrapping, key Object) ([]byte, error) {
	var room [2 * usualRoom]byte
	c := m.flat()
	o := C.struct_output{room: C.ulong_t(len(room))}
	rv := C.wrap_key(f, C.ulong_t(s), &c, C.ulong_t(wrapping), C.ulong_t(key), data(room[:]), &o)
	out, err := outputIn(&o, rv, room[:])
	return bytes.Clone(out), err
}

func generateRandom(f *functions, s Session, n int) ([]byte, error) {
	out := make([]byte, n)
	if n == 0 {
		return out, nil
	}
	if err := returned(C.generate_random(f, C.ulong_t(s), data(out), C.ulong_t(n))); err != nil {
		return nil, err
	}
	return out, nil
}
