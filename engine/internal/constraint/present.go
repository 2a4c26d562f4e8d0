package constraint

import "reflect"

// Present returns the input of an operation without its empty lists and maps: AWS KMS
// takes one that is sent empty for one that is not sent, wherever it may be left
// out. in is not changed; where there is nothing to leave out it is returned as it
// is.
func Present[I any](c *Checker, in *I) *I {
	p := c.plans[reflect.TypeFor[I]()]
	if in == nil || p == nil || !p.hasEmpty(reflect.ValueOf(in).Elem()) {
		return in
	}
	out := *in
	p.dropEmpty(reflect.ValueOf(&out).Elem())
	return &out
}

// mayBeEmpty are the members of a structure that Present looks at: lists and maps
// that may be left out, and structures that have such.
type mayBeEmpty struct {
	lists  []int
	inner  []int
	innerP []*plan // of inner
}

func (m *mayBeEmpty) note(f *reflect.StructField, index int, required bool, inner *plan) {
	switch kind := f.Type.Kind(); {
	case kind == reflect.Map, kind == reflect.Slice && f.Type.Elem().Kind() != reflect.Uint8:
		if !required {
			m.lists = append(m.lists, index)
		}
	case kind == reflect.Pointer && inner != nil && !inner.empty.isNone():
		m.inner, m.innerP = append(m.inner, index), append(m.innerP, inner)
	}
}

func (m *mayBeEmpty) isNone() bool { return len(m.lists) == 0 && len(m.inner) == 0 }

// hasEmpty reports whether the structure has an empty list or map to leave out.
func (p *plan) hasEmpty(v reflect.Value) bool {
	for _, i := range p.empty.lists {
		if list := v.Field(i); !list.IsNil() && list.Len() == 0 {
			return true
		}
	}
	for n, i := range p.empty.inner {
		if inner := v.Field(i); !inner.IsNil() && p.empty.innerP[n].hasEmpty(inner.Elem()) {
			return true
		}
	}
	return false
}

// dropEmpty leaves them out of v, but changes no structure that v refers to.
func (p *plan) dropEmpty(v reflect.Value) {
	for _, i := range p.empty.lists {
		if list := v.Field(i); list.Len() == 0 {
			list.SetZero()
		}
	}
	for n, i := range p.empty.inner {
		inner := v.Field(i)
		if inner.IsNil() || !p.empty.innerP[n].hasEmpty(inner.Elem()) {
			continue
		}
		own := reflect.New(inner.Type().Elem())
		own.Elem().Set(inner.Elem())
		p.empty.innerP[n].dropEmpty(own.Elem())
		inner.Set(own)
	}
}
