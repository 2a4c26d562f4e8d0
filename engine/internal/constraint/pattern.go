package constraint

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// pattern is a regular expression that all of a string must match.
type pattern struct {
	text  string // as AWS shows it
	match func(string) bool
}

// runOf is the pattern of one or more characters of a set, which is written like
// the inside of a bracket expression without escapes: "a-z0-9_-". Most patterns are
// such, and matching them needs no regular expression.
func runOf(set, text string) *pattern {
	var in [256]bool
	for i := 0; i < len(set); i++ {
		last := set[i]
		if i+2 < len(set) && set[i+1] == '-' {
			last = set[i+2]
		}
		for c := int(set[i]); c <= int(last); c++ {
			in[c] = true
		}
		if last != set[i] {
			i += 2
		}
	}
	return &pattern{text, func(s string) bool {
		for i := range len(s) {
			if !in[s[i]] {
				return false
			}
		}
		return s != ""
	}}
}

// ascii is what AWS demands of key ids, beyond what its model says.
func ascii() *pattern {
	return &pattern{`^\p{ASCII}+$`, func(s string) bool {
		for i := range len(s) {
			if s[i] >= utf8.RuneSelf {
				return false
			}
		}
		return s != ""
	}}
}

// latin1 is the pattern of characters from the space to U+00FF, and of those named.
func latin1(more, text string, empty bool) *pattern {
	return &pattern{text, func(s string) bool {
		for _, c := range s {
			if (c < ' ' || c > 0xff) && !strings.ContainsRune(more, c) {
				return false
			}
		}
		return empty || s != ""
	}}
}

// regular is the pattern text, which must be a regular expression to Go as well.
func regular(text string) *pattern {
	return &pattern{text, regexp.MustCompile(`^(?:` + text + `)$`).MatchString}
}
