package constraint

import (
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// longestShown is how many bytes of a value a message repeats. AWS repeats all of
// it, which for a policy is 128 KiB in an error that people log.
const longestShown = 4096

// mostViolations is how many a message names, so that a request full of empty tags
// does not get an answer many times its size.
const mostViolations = 100

// add records that f, of the structure at prefix, fails a constraint. What shows
// of its value is "null", a quoted value, or nothing.
func (w *walk) add(f *field, shown, prefix, constraint string) {
	if len(w.violations) == mostViolations {
		return
	}
	if f.secret || shown == "" {
		shown = "Value"
	} else {
		shown = "Value " + shown
	}
	w.violations = append(w.violations,
		fmt.Sprintf("%s at '%s%s' failed to satisfy constraint: %s", shown, prefix, f.name, constraint))
}

func message(violations []string) string {
	noun := "errors"
	if len(violations) == 1 {
		noun = "error"
	}
	return fmt.Sprintf("%d validation %s detected: %s", len(violations), noun, strings.Join(violations, "; "))
}

// quote shows a value as it came, as far as it is text and not too long.
func quote(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) > longestShown {
		end := longestShown
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "..."
	}
	return "'" + s + "'"
}

func list(v reflect.Value) string {
	var b strings.Builder
	b.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(v.Index(i).String())
		if b.Len() > longestShown {
			break
		}
	}
	b.WriteByte(']')
	return b.String()
}
