// Package constraint checks the input of AWS KMS operations against the limits of
// AWS's service model: required members, lengths, patterns, enums, list sizes and
// ranges. It answers in AWS's words and never repeats a secret. What only makes
// sense with a key at hand, such as whether an algorithm fits its spec, is the
// engine's to check.
package constraint

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

// Checker knows the constraints of every operation. It never changes after [New],
// so any number of goroutines may share it.
type Checker struct {
	plans map[reflect.Type]*plan // by the type of the input, not of its pointer
}

// New compiles the constraints. It takes about half a millisecond: an engine
// does it once.
func New() *Checker {
	c := newCompiler()
	inputs := map[reflect.Type]*plan{}
	for _, s := range structures() {
		if t := reflect.TypeOf(s.value); strings.HasSuffix(t.Name(), "Input") {
			inputs[t] = c.plan(t)
		}
	}
	return &Checker{plans: inputs}
}

// Check returns nil if input, a pointer to the input of an operation such as
// *kms.EncryptInput, keeps to the constraints of its members. Otherwise it returns
// a *smithy.GenericAPIError with the code ValidationException, whose message names
// every violation, or the first hundred. A nil pointer counts as an empty input, as it does for
// *kms.Client.
func (c *Checker) Check(input any) error {
	v := reflect.ValueOf(input)
	var p *plan
	if v.Kind() == reflect.Pointer {
		p = c.plans[v.Type().Elem()]
	}
	if p == nil {
		return fmt.Errorf("%T is not the input of a known AWS KMS operation", input)
	}
	if v.IsNil() {
		v = reflect.New(v.Type().Elem())
	}
	w := walk{input: input}
	w.structure(p, v.Elem(), "")
	if len(w.violations) == 0 {
		return nil
	}
	return &smithy.GenericAPIError{
		Code:    "ValidationException",
		Message: message(w.violations),
		Fault:   smithy.FaultClient,
	}
}

// walk is one pass over one input.
type walk struct {
	input      any
	violations []string
}

// structure checks the members of v, whose own place is prefix: empty, or ending
// in a dot.
func (w *walk) structure(p *plan, v reflect.Value, prefix string) {
	for i := range p.fields {
		f := &p.fields[i]
		member := v.Field(f.index)
		if isNull(member) {
			if f.required && !w.waived(f) {
				w.add(f, "null", prefix, "Member must not be null")
			}
			continue
		}
		w.member(f, member, prefix)
	}
}

// isNull reports whether a member is absent. Enums have no pointer: the SDK says
// "" for none.
func isNull(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	case reflect.String:
		return v.Len() == 0
	}
	return false
}

// member checks a member that is present.
func (w *walk) member(f *field, v reflect.Value, prefix string) {
	switch f.kind {
	case kindText:
		s := indirect(v).String()
		f.text(s, func(constraint string) { w.add(f, quote(s), prefix, constraint) })
	case kindNumber:
		n := indirect(v).Int()
		f.number(n, func(constraint string) { w.add(f, quote(fmt.Sprint(n)), prefix, constraint) })
	case kindBlob:
		f.length(v.Len(), func(constraint string) { w.add(f, "", prefix, constraint) })
	case kindStruct:
		w.structure(f.inner, indirect(v), prefix+f.name+".")
	case kindTexts:
		w.texts(f, v, prefix)
	case kindStructs:
		for i := range v.Len() {
			w.structure(f.inner, v.Index(i), fmt.Sprintf("%s%s.%d.member.", prefix, f.name, i+1))
		}
	}
}

// texts checks a list of strings. AWS names the list, not the member at fault, and
// then every constraint that its members have.
func (w *walk) texts(f *field, v reflect.Value, prefix string) {
	violated := func(constraint string) { w.add(f, quote(list(v)), prefix, constraint) }
	f.length(v.Len(), violated)
	for i := range v.Len() {
		bad := false
		f.each.text(v.Index(i).String(), func(string) { bad = true })
		if bad {
			violated("Member must satisfy constraint: [" + f.each.all() + "]")
			return
		}
	}
}

func indirect(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		return v.Elem()
	}
	return v
}

// waived reports whether this input may do without f, although others may not.
func (w *walk) waived(f *field) bool {
	if f.name != "ciphertextBlob" {
		return false
	}
	switch in := w.input.(type) {
	case *kms.DecryptInput:
		return in != nil && ignoresCiphertext(in.DryRun, in.DryRunModifiers)
	case *kms.ReEncryptInput:
		return in != nil && ignoresCiphertext(in.DryRun, in.DryRunModifiers)
	}
	return false
}

// ignoresCiphertext reports whether a request only asks for permission, for which
// it needs no ciphertext.
func ignoresCiphertext(dryRun *bool, modifiers []types.DryRunModifierType) bool {
	if dryRun == nil || !*dryRun {
		return false
	}
	for _, m := range modifiers {
		if m == types.DryRunModifierTypeIgnoreCiphertext {
			return true
		}
	}
	return false
}
