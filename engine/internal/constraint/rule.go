package constraint

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// rule is what the service model demands of a member, whatever its type. The zero
// rule demands nothing.
type rule struct {
	min, max int64    // of the length (characters, bytes, members) or the number; a max of 0 is none
	pattern  *pattern // of all of a string
	enum     bool     // the values are those of the SDK's type
	order    []string // in which AWS lists an enum's values, where that is known and not the SDK's
	secret   bool     // the value is never repeated
	each     *rule    // of a list's members, if they are strings

	values []string // of an enum, in order; compiled
}

// text hands each constraint that s violates to violated.
func (r *rule) text(s string, violated func(constraint string)) {
	if r.enum {
		if !slices.Contains(r.values, s) {
			violated(r.enumText())
		}
		return
	}
	// A string has no more characters than bytes, so most need no counting.
	if n := len(s); int64(n) < r.min || r.max > 0 && int64(n) > r.max || r.min > 1 {
		r.length(utf8.RuneCountInString(s), violated)
	}
	if r.pattern != nil && !r.pattern.match(s) {
		violated(r.patternText())
	}
}

func (r *rule) length(n int, violated func(constraint string)) {
	if int64(n) < r.min {
		violated(r.atLeast("length"))
	}
	if r.max > 0 && int64(n) > r.max {
		violated(r.atMost("length"))
	}
}

func (r *rule) number(n int64, violated func(constraint string)) {
	if n < r.min {
		violated(r.atLeast("value"))
	}
	if n > r.top() {
		violated(r.atMost("value"))
	}
}

func (r *rule) top() int64 {
	if r.max == 0 {
		return math.MaxInt64
	}
	return r.max
}

// all names every constraint of a list's member, in AWS's order.
func (r *rule) all() string {
	if r.enum {
		return r.enumText()
	}
	var s []string
	if r.max > 0 {
		s = append(s, r.atMost("length"), r.atLeast("length"))
	}
	if r.pattern != nil {
		s = append(s, r.patternText())
	}
	return strings.Join(s, ", ")
}

func (r *rule) atLeast(what string) string {
	return fmt.Sprintf("Member must have %s greater than or equal to %d", what, r.min)
}

func (r *rule) atMost(what string) string {
	return fmt.Sprintf("Member must have %s less than or equal to %d", what, r.max)
}

func (r *rule) patternText() string {
	return "Member must satisfy regular expression pattern: " + r.pattern.text
}

func (r *rule) enumText() string {
	return "Member must satisfy enum value set: [" + strings.Join(r.values, ", ") + "]"
}
