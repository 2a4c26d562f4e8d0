package constraint

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// plan is what to check of one structure.
type plan struct {
	fields []field // those with something to check
	empty  mayBeEmpty
}

// field is a member of a structure and what to check of it.
type field struct {
	*rule
	index    int
	name     string // as AWS's messages spell it: the first letter in lower case
	required bool
	kind     kind
	inner    *plan // of a structure, or of a list's members
}

// kind is a member's type, as far as checks differ.
type kind int

const (
	kindOther   kind = iota // flags, times and maps: nothing but required
	kindText                // strings and enums
	kindNumber              // integers
	kindBlob                // bytes
	kindStruct              // a structure
	kindTexts               // a list of strings or enums
	kindStructs             // a list of structures
)

// compiler makes plans of the tables.
type compiler struct {
	members map[string]rule
	plans   map[reflect.Type]*plan
	need    map[reflect.Type][]string
}

func newCompiler() *compiler {
	c := &compiler{members: members(), plans: map[reflect.Type]*plan{}, need: map[reflect.Type][]string{}}
	for _, s := range structures() {
		c.need[reflect.TypeOf(s.value)] = strings.Fields(s.required)
	}
	return c
}

// plan returns the plan of a structure. Structures of KMS do not recurse.
func (c *compiler) plan(t reflect.Type) *plan {
	if p := c.plans[t]; p != nil {
		return p
	}
	p := &plan{}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		m := c.field(f, slices.Contains(c.need[t], f.Name))
		p.empty.note(&f, i, m.required, m.inner)
		if m.required || m.kind != kindOther {
			m.index = i
			p.fields = append(p.fields, m)
		}
	}
	c.plans[t] = p
	return p
}

func (c *compiler) field(f reflect.StructField, required bool) field {
	r := c.members[f.Name]
	m := field{
		rule:     &r,
		name:     strings.ToLower(f.Name[:1]) + f.Name[1:],
		required: required,
		kind:     kindOf(f.Type),
	}
	switch m.kind {
	case kindText:
		r.compile(f.Type)
	case kindTexts:
		each := rule{}
		if r.each != nil {
			each = *r.each
		}
		each.compile(f.Type.Elem())
		r.each = &each
	case kindStruct, kindStructs:
		m.inner = c.plan(f.Type.Elem())
	}
	return m
}

func kindOf(t reflect.Type) kind {
	if t.Kind() == reflect.Slice {
		switch t.Elem().Kind() {
		case reflect.Uint8:
			return kindBlob
		case reflect.Struct:
			return kindStructs
		}
		return kindTexts
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return kindText
	case reflect.Int32:
		return kindNumber
	case reflect.Struct:
		if t != reflect.TypeFor[time.Time]() {
			return kindStruct
		}
	}
	return kindOther
}

// compile gives an enum its values: those that the SDK's type t names.
func (r *rule) compile(t reflect.Type) {
	if !r.enum {
		return
	}
	values := reflect.Zero(t).MethodByName("Values").Call(nil)[0]
	r.values = nil
	for i := range values.Len() {
		r.values = append(r.values, values.Index(i).String())
	}
	if r.order == nil {
		return
	}
	place := func(v string) int {
		if i := slices.Index(r.order, v); i >= 0 {
			return i
		}
		return len(r.order)
	}
	slices.SortStableFunc(r.values, func(a, b string) int { return place(a) - place(b) })
}
