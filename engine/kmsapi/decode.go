package kmsapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// reader reads one body after another. It holds no part of one in between.
type reader struct {
	body   bytes.Buffer
	tokens jsontext.Decoder // of body, which it reads without copying it
}

// decode reads the members of body into the structure v. The syntax is that of
// I-JSON (RFC 7493): UTF-8, and no name twice in an object. An error is always
// a serializationError.
func (r *reader) decode(body []byte, v reflect.Value, f decodeFunc) error {
	if len(body) == 0 {
		return nil // no members
	}
	defer r.reset(nil)
	r.reset(body)
	d := &r.tokens
	if kind := d.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindBeginArray {
		return errSyntax
	}
	err := f(d, v)
	if err == nil {
		if _, err = d.ReadToken(); err == io.EOF {
			return nil
		}
	}
	var own serializationError
	if errors.As(err, &own) {
		return own
	}
	return errSyntax
}

func (r *reader) reset(body []byte) {
	r.body = *bytes.NewBuffer(body)
	r.tokens.Reset(&r.body)
}

// decodeFunc reads one value other than null into v, which is zero. An error
// that is no serializationError is one of syntax.
type decodeFunc func(d *jsontext.Decoder, v reflect.Value) error

// decodePlanner makes the decodeFunc of types, each once. The Go names of the
// SDK's members are the names on the wire.
type decodePlanner map[reflect.Type]decodeFunc

// plan returns how to read a value of the type. It panics on types that the
// SDK does not use, which only another version of the SDK can bring.
func (p decodePlanner) plan(t reflect.Type) decodeFunc {
	if f, ok := p[t]; ok {
		return f
	}
	// A type that contains itself finds this one.
	p[t] = func(d *jsontext.Decoder, v reflect.Value) error { return p[t](d, v) }
	p[t] = p.make(t)
	return p[t]
}

func (p decodePlanner) make(t reflect.Type) decodeFunc {
	if t == reflect.TypeFor[time.Time]() {
		return decodeTime
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t == reflect.TypeFor[*string]() {
			return decodeStringPointer
		}
		return p.pointer(t)
	case reflect.String:
		return decodeString
	case reflect.Bool:
		return decodeBool
	case reflect.Int32:
		return decodeInt
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return decodeBlob
		}
		return p.list(t)
	case reflect.Map:
		if t == reflect.TypeFor[map[string]string]() {
			return decodeMap
		}
	case reflect.Struct:
		return p.structure(t)
	}
	panic(fmt.Sprintf("kmsapi: the protocol has no form for a %v", t))
}

func (p decodePlanner) pointer(t reflect.Type) decodeFunc {
	inner := p.plan(t.Elem())
	return func(d *jsontext.Decoder, v reflect.Value) error {
		v.Set(reflect.New(t.Elem()))
		return inner(d, v.Elem())
	}
}

func (p decodePlanner) list(t reflect.Type) decodeFunc {
	element := p.plan(t.Elem())
	return func(d *jsontext.Decoder, v reflect.Value) error {
		if err := open(d, jsontext.KindBeginArray, aList); err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(t, 0, 0))
		for d.PeekKind() != jsontext.KindEndArray {
			if null, err := skipNull(d); err != nil {
				return err
			} else if null {
				continue // AWS takes no notice of it
			}
			n := v.Len()
			v.Grow(1)
			v.SetLen(n + 1)
			if err := element(d, v.Index(n)); err != nil {
				return err
			}
		}
		_, err := d.ReadToken()
		return err
	}
}

func (p decodePlanner) structure(t reflect.Type) decodeFunc {
	type member struct {
		index  int
		decode decodeFunc
	}
	members := map[string]member{}
	for field := range fields(t) {
		members[field.Name] = member{field.Index[0], p.plan(field.Type)}
	}
	return func(d *jsontext.Decoder, v reflect.Value) error {
		if err := open(d, jsontext.KindBeginObject, aStructure); err != nil {
			return err
		}
		for d.PeekKind() != jsontext.KindEndObject {
			name, err := readText(d)
			if err != nil {
				return err
			}
			m, known := members[string(name)]
			if !known {
				err = d.SkipValue()
			} else if null, e := skipNull(d); e != nil || null {
				err = e
			} else {
				err = m.decode(d, v.Field(m.index))
			}
			if err != nil {
				return err
			}
		}
		_, err := d.ReadToken()
		return err
	}
}

// open reads the start of an object or an array.
func open(d *jsontext.Decoder, start jsontext.Kind, wanted string) error {
	if kind := d.PeekKind(); kind != start {
		return wrongKind(kind, wanted)
	}
	_, err := d.ReadToken()
	return err
}

// skipNull reads the next value if it is null, which counts as absent.
func skipNull(d *jsontext.Decoder) (bool, error) {
	if d.PeekKind() != jsontext.KindNull {
		return false, nil
	}
	_, err := d.ReadToken()
	return true, err
}
