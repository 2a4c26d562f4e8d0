package sigv4

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	dateFormat = "20060102T150405Z"
)

// The signed headers that are not, or not only, in the map of headers.
const (
	hostHeader      = "host"
	authorityHeader = ":authority" // what HTTP/2 has for host
	dateHeader      = "x-amz-date"
	lengthHeader    = "content-length"
)

// toSign is all that a signature depends on beside the key.
type toSign struct {
	request  *http.Request
	scope    Scope
	headers  []string // in lower case, sorted
	date     string   // X-Amz-Date
	bodyHash [sha256.Size]byte
}

// signature computes the signature with s.
func (t *toSign) signature(s *Secret) (sum [sha256.Size]byte) {
	key := s.key(t.scope)
	w := key.workspace()
	w.buf = t.appendCanonicalRequest(w.buf[:0])
	hash := sha256.Sum256(w.buf)
	w.buf = t.appendStringToSign(w.buf[:0], &hash)
	_, _ = w.mac.Write(w.buf) // a hash never fails
	copy(sum[:], w.mac.Sum(w.buf[:0]))
	key.release(w)
	return sum
}

func (t *toSign) appendStringToSign(b []byte, hash *[sha256.Size]byte) []byte {
	b = append(b, algorithm...)
	b = append(b, '\n')
	b = append(b, t.date...)
	b = append(b, '\n')
	b = appendScope(b, t.scope)
	b = append(b, '\n')
	return hex.AppendEncode(b, hash[:])
}

func appendScope(b []byte, s Scope) []byte {
	for _, part := range [...]string{s.Date, s.Region, s.Service} {
		b = append(b, part...)
		b = append(b, '/')
	}
	return append(b, terminator...)
}

func (t *toSign) appendCanonicalRequest(b []byte) []byte {
	r := t.request
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendCanonicalPath(b, r.URL)
	b = append(b, '\n')
	b = appendCanonicalQuery(b, r.URL.RawQuery)
	b = append(b, '\n')
	for _, name := range t.headers {
		b = append(b, name...)
		b = append(b, ':')
		b = appendHeaderValue(b, r, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range t.headers {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return hex.AppendEncode(b, t.bodyHash[:])
}

// appendCanonicalPath escapes the path, as it is sent, once more.
func appendCanonicalPath(b []byte, u *url.URL) []byte {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return appendEscaped(b, path, '/')
}

// appendCanonicalQuery appends the parameters sorted by name, then by value. It
// takes '+' for a space, as net/http does when it reads the same parameters.
func appendCanonicalQuery(b []byte, raw string) []byte {
	if raw == "" {
		return b
	}
	type parameter struct{ name, value string }
	var parameters []parameter
	// Parse has refused what ParseQuery leaves out with an error.
	values, _ := url.ParseQuery(raw)
	for name, list := range values {
		escaped := string(appendEscaped(nil, name, 0))
		for _, value := range list {
			parameters = append(parameters, parameter{escaped, string(appendEscaped(nil, value, 0))})
		}
	}
	slices.SortFunc(parameters, func(x, y parameter) int {
		return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.value, y.value))
	})
	for i, p := range parameters {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b
}

// appendEscaped appends s with all but the unreserved characters of RFC 3986,
// and keep, as %XX.
func appendEscaped(b []byte, s string, keep byte) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; isUnreserved(c) || c == keep && keep != 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// hasHeader reports whether the request has a header of this lower-case name.
func hasHeader(r *http.Request, name string) bool {
	switch name {
	case hostHeader:
		return hostOf(r) != ""
	case authorityHeader:
		return r.ProtoMajor >= 2 && hostOf(r) != ""
	case lengthHeader:
		return r.ContentLength >= 0
	}
	return len(headerValues(r, name)) > 0
}

// appendHeaderValue appends the trimmed and folded values, joined by commas, of
// a header of this lower-case name.
func appendHeaderValue(b []byte, r *http.Request, name string) []byte {
	switch name {
	case hostHeader, authorityHeader:
		return append(b, hostOf(r)...)
	case lengthHeader:
		return strconv.AppendInt(b, r.ContentLength, 10)
	}
	for i, value := range headerValues(r, name) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFolded(b, strings.Trim(value, " \t"))
	}
	return b
}

// hostOf returns the host as it is, or will be, sent.
func hostOf(r *http.Request) string {
	if r.Host == "" {
		return r.URL.Host // a request still to be sent
	}
	return r.Host
}

// headerValues returns the values of a header of this lower-case name. Those
// that AWS's clients sign, and that net/http does not know, are spelt out to
// save the memory that making their canonical names takes.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case dateHeader:
		return r.Header["X-Amz-Date"]
	case "x-amz-target":
		return r.Header["X-Amz-Target"]
	case "x-amz-security-token":
		return r.Header["X-Amz-Security-Token"]
	case "x-amz-content-sha256":
		return r.Header["X-Amz-Content-Sha256"]
	case "amz-sdk-invocation-id":
		return r.Header["Amz-Sdk-Invocation-Id"]
	case "amz-sdk-request":
		return r.Header["Amz-Sdk-Request"]
	}
	return r.Header[http.CanonicalHeaderKey(name)]
}

// appendFolded appends s with every run of spaces as one.
func appendFolded(b []byte, s string) []byte {
	if !strings.Contains(s, "  ") {
		return append(b, s...)
	}
	for i := range len(s) {
		if s[i] != ' ' || s[i-1] != ' ' { // s is trimmed: it begins with no space
			b = append(b, s[i])
		}
	}
	return b
}
