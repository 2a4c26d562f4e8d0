package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Package jsontext refuses duplicate names, text that is not UTF-8 and nesting of
// more than 10,000 levels. What follows descends no further than a policy may.

// object returns the members of v, which must have no others than those allowed,
// if any are.
func object(v jsontext.Value, allowed ...string) (map[string]jsontext.Value, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(v, &members); err != nil {
		var syntactic *jsontext.SyntacticError
		if errors.As(err, &syntactic) {
			return nil, fmt.Errorf("is no valid JSON: %s", strings.TrimPrefix(syntactic.Error(), "jsontext: "))
		}
		return nil, errors.New("is no JSON object")
	}
	if members == nil { // null
		return nil, errors.New("is no JSON object")
	}
	for _, name := range sorted(members) {
		if len(allowed) > 0 && !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("has the unknown element %q: known are %s", name, strings.Join(allowed, ", "))
		}
	}
	return members, nil
}

func sorted(m map[string]jsontext.Value) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// oneOrMore returns the members of a list, or v itself if it is none.
func oneOrMore(v jsontext.Value) ([]jsontext.Value, error) {
	if v.Kind() != '[' {
		return []jsontext.Value{v}, nil
	}
	var all []jsontext.Value
	err := json.Unmarshal(v, &all)
	return all, err
}

// optional returns the string that is the member name, or "" if there is none.
func optional(members map[string]jsontext.Value, name string) (string, error) {
	v, ok := members[name]
	if !ok {
		return "", nil
	}
	s, err := text(v)
	if err != nil {
		return "", fmt.Errorf("must have a string as its %s", name)
	}
	return s, nil
}

func text(v jsontext.Value) (string, error) {
	var s string
	if v.Kind() != '"' {
		return "", errors.New("no string")
	}
	err := json.Unmarshal(v, &s)
	return s, err
}

// texts returns a string or a list of strings.
func texts(v jsontext.Value) ([]string, error) {
	return each(v, text)
}

// scalars returns a string, number or truth value, or a list of them, as text.
func scalars(v jsontext.Value) ([]string, error) {
	return each(v, func(v jsontext.Value) (string, error) {
		switch v.Kind() {
		case 't', 'f', '0':
			return string(v), nil
		}
		return text(v)
	})
}

func each(v jsontext.Value, decode func(jsontext.Value) (string, error)) ([]string, error) {
	all, err := oneOrMore(v)
	if err != nil {
		return nil, err
	}
	s := make([]string, len(all))
	for i, v := range all {
		if s[i], err = decode(v); err != nil {
			return nil, err
		}
	}
	return s, nil
}
