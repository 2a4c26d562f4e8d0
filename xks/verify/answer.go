package verify

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hyok-kms/hyok/xks"
)

// answer is what the proxy sent back.
type answer struct {
	err      error // no HTTP answer came: nothing else is set
	status   int
	proto    string
	header   http.Header
	body     []byte
	duration time.Duration
}

// members decodes the body as one JSON object without duplicate names.
func (a answer) members() (map[string]jsontext.Value, error) {
	var m map[string]jsontext.Value
	if err := json.Unmarshal(a.body, &m); err != nil || m == nil {
		return nil, fmt.Errorf("want a JSON object as body, got %s", shorten(string(a.body)))
	}
	return m, nil
}

// errorName returns the errorName of an error answer, or "".
func (a answer) errorName() xks.ErrorName {
	name, _ := a.text("errorName")
	return xks.ErrorName(name)
}

// describe says in a line what came.
func (a answer) describe() string {
	if a.err != nil {
		return "no HTTP answer: " + a.err.Error()
	}
	if name := a.errorName(); name != "" {
		message, _ := a.text("errorMessage")
		return fmt.Sprintf("HTTP %d %s %s", a.status, shorten(string(name)), shorten(message))
	}
	if a.status == http.StatusOK {
		return "HTTP 200"
	}
	return fmt.Sprintf("HTTP %d with body %s", a.status, shorten(string(a.body)))
}

// shorten quotes what a peer sent so that it cannot disturb a terminal.
func shorten(s string) string {
	const limit = 120
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return fmt.Sprintf("%+q", s)
}

// accepted demands success with a JSON object.
func (a answer) accepted() error {
	if a.err != nil || a.status != http.StatusOK {
		return fmt.Errorf("want HTTP 200, got %s", a.describe())
	}
	_, err := a.members()
	return err
}

// refused demands one of the errors, with the HTTP status that the table of
// error codes pairs with it.
func (a answer) refused(names ...xks.ErrorName) error {
	name := a.errorName()
	if a.err == nil && slices.Contains(names, name) && a.status == name.Status() {
		return nil
	}
	var want []string
	for _, n := range names {
		want = append(want, fmt.Sprintf("HTTP %d %s", n.Status(), n))
	}
	return fmt.Errorf("want %s, got %s", strings.Join(want, " or "), a.describe())
}

// text returns a member that must be a string.
func (a answer) text(name string) (string, error) {
	m, err := a.members()
	if err != nil {
		return "", err
	}
	v, ok := m[name]
	if !ok {
		return "", fmt.Errorf("the answer has no member %s", name)
	}
	var s string
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return "", fmt.Errorf("want a string as %s, got %s", name, shorten(string(v)))
	}
	return s, nil
}

// bytes returns a member that must be a string in standard, padded Base64.
func (a answer) bytes(name string) ([]byte, error) {
	s, err := a.text(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("want standard Base64 with padding as %s, got %s", name, shorten(s))
	}
	return b, nil
}

// has reports whether a member is there and not null.
func (a answer) has(name string) bool {
	m, err := a.members()
	return err == nil && len(m[name]) > 0 && m[name].Kind() != 'n'
}
