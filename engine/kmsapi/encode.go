package kmsapi

import (
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// encoder appends JSON to a buffer. The SDK's own serializers and the JSON
// package leave out either too much (Enabled: false) or too little, and leave
// copies of plaintexts in buffers that they keep.
type encoder struct{ buf []byte }

// reserve makes room for n bytes more. A buffer that is outgrown is wiped.
func (e *encoder) reserve(n int) {
	if cap(e.buf)-len(e.buf) >= n {
		return
	}
	e.buf = regrow(e.buf, max(2*cap(e.buf), len(e.buf)+n, minBuffer))
}

// minBuffer is the least capacity of a buffer that has any, in bytes.
const minBuffer = 1 << 10

// regrow returns a copy of b with the capacity, and wipes b.
func regrow(b []byte, capacity int) []byte {
	grown := make([]byte, len(b), capacity)
	copy(grown, b)
	clear(b[:cap(b)])
	return grown
}

// encodeFunc appends one value.
type encodeFunc func(*encoder, reflect.Value)

// memberPlan is how a member of a structure is sent.
type memberPlan struct {
	index  int
	name   string // with quotes and colon
	encode encodeFunc
}

// encodePlanner makes the encodeFunc of types, each once.
type encodePlanner map[reflect.Type]encodeFunc

// plan returns how to append a value of the type. It panics on types that the
// SDK does not use, which only another version of the SDK can bring.
func (p encodePlanner) plan(t reflect.Type) encodeFunc {
	if f, ok := p[t]; ok {
		return f
	}
	// A type that contains itself finds this one.
	p[t] = func(e *encoder, v reflect.Value) { p[t](e, v) }
	p[t] = p.make(t)
	return p[t]
}

func (p encodePlanner) make(t reflect.Type) encodeFunc {
	if t == reflect.TypeFor[time.Time]() {
		return encodeTime
	}
	switch t.Kind() {
	case reflect.Pointer:
		inner := p.plan(t.Elem())
		return func(e *encoder, v reflect.Value) { inner(e, v.Elem()) }
	case reflect.String:
		return encodeString
	case reflect.Bool:
		return encodeBool
	case reflect.Int32:
		return encodeInt
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return encodeBlob
		}
		return p.list(t)
	case reflect.Map:
		if t == reflect.TypeFor[map[string]string]() {
			return encodeMap
		}
	case reflect.Struct:
		return p.structure(t)
	}
	panic(fmt.Sprintf("kmsapi: the protocol has no form for a %v", t))
}

func (p encodePlanner) list(t reflect.Type) encodeFunc {
	element := p.plan(t.Elem())
	return func(e *encoder, v reflect.Value) {
		e.token('[')
		for i := range v.Len() {
			if i > 0 {
				e.token(',')
			}
			element(e, v.Index(i))
		}
		e.token(']')
	}
}

func (p encodePlanner) structure(t reflect.Type) encodeFunc {
	var members []memberPlan
	for field := range fields(t) {
		members = append(members, memberPlan{field.Index[0], strconv.Quote(field.Name) + ":", p.plan(field.Type)})
	}
	return func(e *encoder, v reflect.Value) {
		e.token('{')
		first := true
		for i := range members {
			m := &members[i]
			value := v.Field(m.index)
			if absent(value) {
				continue
			}
			e.reserve(len(m.name) + 1)
			if !first {
				e.buf = append(e.buf, ',')
			}
			first = false
			e.buf = append(e.buf, m.name...)
			m.encode(e, value)
		}
		e.token('}')
	}
}

// fields yields the members of one of the SDK's structures: what is exported,
// but for the metadata that the client adds to an output.
func fields(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			field := t.Field(i)
			if field.IsExported() && field.Name != "ResultMetadata" && !yield(field) {
				return
			}
		}
	}
}

// absent reports whether AWS would not send the member: value types other than
// enums always have a value.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	case reflect.String:
		return v.Len() == 0
	}
	return false
}

func (e *encoder) token(c byte) {
	e.reserve(1)
	e.buf = append(e.buf, c)
}

func (e *encoder) text(s string) {
	e.reserve(len(`""`) + len(`\u0000`)*len(s))
	// What is no UTF-8 is replaced; the error only says so.
	e.buf, _ = jsontext.AppendQuote(e.buf, s)
}

func encodeString(e *encoder, v reflect.Value) { e.text(v.String()) }

func encodeBool(e *encoder, v reflect.Value) {
	e.reserve(len("false"))
	e.buf = strconv.AppendBool(e.buf, v.Bool())
}

func encodeInt(e *encoder, v reflect.Value) {
	e.reserve(len("-2147483648"))
	e.buf = strconv.AppendInt(e.buf, v.Int(), 10)
}

func encodeBlob(e *encoder, v reflect.Value) {
	b := v.Bytes()
	e.reserve(base64.StdEncoding.EncodedLen(len(b)) + 2)
	e.buf = append(e.buf, '"')
	e.buf = base64.StdEncoding.AppendEncode(e.buf, b)
	e.buf = append(e.buf, '"')
}

func encodeTime(e *encoder, v reflect.Value) {
	t := v.Addr().Interface().(*time.Time) // no copy on the heap
	e.reserve(32)
	// A float64 holds milliseconds of any year up to 9999 exactly enough.
	e.buf = strconv.AppendFloat(e.buf, float64(t.UnixMilli())/1000, 'f', -1, 64)
}

func encodeMap(e *encoder, v reflect.Value) {
	m := *v.Addr().Interface().(*map[string]string)
	e.token('{')
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			e.token(',')
		}
		e.text(name)
		e.token(':')
		e.text(m[name])
	}
	e.token('}')
}
