package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder collects the errors of one file. The YAML library's own decoding is
// not used, because its type errors quote the value.
type decoder struct {
	file string
	errs []*Error
}

// value is a place in the file: a node and its name. Its node is nil where the
// file says nothing; the methods then return the default without an error.
type value struct {
	d    *decoder
	node *yaml.Node
	name string
}

// entry is a member of a mapping.
type entry struct {
	key value
	value
}

func (v value) given() bool { return v.node != nil }

// fail records an error at v. The text must not hold the value.
func (v value) fail(format string, args ...any) {
	e := &Error{File: v.d.file, Name: v.name, Message: fmt.Sprintf(format, args...)}
	if v.node != nil {
		e.Line, e.Column = v.node.Line, v.node.Column
	}
	v.d.errs = append(v.d.errs, e)
}

// is reports whether the node has the kind and tag, and records an error that
// says what is wanted where it has not.
func (v value) is(kind yaml.Kind, tag, want string) bool {
	switch {
	case v.node == nil:
		return false
	case v.node.Kind == yaml.AliasNode || v.node.Anchor != "":
		v.fail("must be written out: anchors and aliases are not supported")
	case v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null":
		v.fail("has no value: it must be %s, or its line left out", want)
	case v.node.Kind != kind || v.node.ShortTag() != tag:
		v.fail("must be %s", want)
	default:
		return true
	}
	return false
}

// entries returns the members of a mapping in the order of the file.
func (v value) entries() []entry {
	if !v.is(yaml.MappingNode, "!!map", "a mapping (name: value)") {
		return nil
	}
	var all []entry
	lines := make(map[string]int)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := value{v.d, v.node.Content[i], v.name}
		if !key.is(yaml.ScalarNode, "!!str", "a mapping whose names are text") {
			continue
		}
		name := key.node.Value
		key.name = v.child(name)
		if line, ok := lines[name]; ok {
			key.fail("is given twice: first in line %d", line)
			continue
		}
		lines[name] = key.node.Line
		all = append(all, entry{key, value{v.d, v.node.Content[i+1], key.name}})
	}
	return all
}

// members returns the members of a mapping that has these names alone.
func (v value) members(names ...string) func(name string) value {
	all := make(map[string]value)
	for _, e := range v.entries() {
		if !slices.Contains(names, e.key.node.Value) {
			// An unknown name may be a misplaced secret: the line must do.
			e.key.name = v.name
			e.key.fail("unknown name: the names here are %s", strings.Join(names, ", "))
			continue
		}
		all[e.key.node.Value] = e.value
	}
	return func(name string) value {
		if m, ok := all[name]; ok {
			return m
		}
		return value{d: v.d, name: v.child(name)}
	}
}

// child returns the name of a member of v. A malformed name may be a misplaced
// secret and is not repeated.
func (v value) child(name string) string {
	if !nameForm.MatchString(name) {
		name = "?"
	}
	return strings.TrimPrefix(v.name+"."+name, ".")
}

// required records an error at the parent v where its member m is absent.
func (v value) required(m value) {
	if v.given() && !m.given() {
		(value{v.d, v.node, m.name}).fail("is missing")
	}
}

// items returns the members of a sequence.
func (v value) items() []value {
	if !v.is(yaml.SequenceNode, "!!seq", "a list") {
		return nil
	}
	var all []value
	for i, n := range v.node.Content {
		all = append(all, value{v.d, n, fmt.Sprintf("%s[%d]", v.name, i)})
	}
	return all
}

// text returns a string that check accepts. The error of check must not hold
// the value.
func (v value) text(check func(string) error) string {
	if !v.is(yaml.ScalarNode, "!!str", "text (in quotes, if it looks like a number or a date)") {
		return ""
	}
	if err := check(v.node.Value); err != nil {
		v.fail("%s", err)
		return ""
	}
	return v.node.Value
}

// texts returns distinct strings, from least to most of them.
func (v value) texts(least, most int, check func(string) error) []string {
	var all []string
	items := v.items()
	if v.given() && v.node.Kind == yaml.SequenceNode && (len(items) < least || len(items) > most) {
		v.fail("must have %d to %d entries, not %d", least, most, len(items))
	}
	for _, item := range items {
		s := item.text(check)
		if s != "" && slices.Contains(all, s) {
			item.fail("is listed twice")
		}
		all = append(all, s)
	}
	return all
}

func (v value) boolean() bool {
	const want = "true or false"
	if !v.is(yaml.ScalarNode, "!!bool", want) {
		return false
	}
	switch strings.ToLower(v.node.Value) {
	case "true":
		return true
	case "false":
	default: // tagged by hand
		v.fail("must be %s", want)
	}
	return false
}

func (v value) integer(least, most, otherwise int) int {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if least == most {
		want = strconv.Itoa(least)
	}
	if !v.is(yaml.ScalarNode, "!!int", want) {
		return otherwise
	}
	n, err := strconv.Atoi(v.node.Value)
	if err != nil || n < least || n > most {
		v.fail("must be %s", want)
		return otherwise
	}
	return n
}

func (v value) duration(least, most, otherwise time.Duration) time.Duration {
	want := fmt.Sprintf("a duration from %s to %s, such as 200ms or 10s", least, most)
	if !v.is(yaml.ScalarNode, "!!str", want) {
		return otherwise
	}
	n, err := time.ParseDuration(v.node.Value)
	if err != nil || n < least || n > most {
		v.fail("must be %s", want)
		return otherwise
	}
	return n
}
