package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Authorization is the parsed Authorization header of a request.
type Authorization struct {
	AccessKeyID   string
	Scope         Scope
	SignedHeaders []string // names in lower case, sorted, each once

	date      string // X-Amz-Date
	signature [sha256.Size]byte
	unknown   *Secret
	names     [8]string // what SignedHeaders of usual length lies in
}

// parse takes apart a header of the form
//
//	AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...
//
// whose parts may stand in any order.
func (a *Authorization) parse(header string) error {
	scheme, rest, _ := strings.Cut(header, " ")
	if scheme != algorithm {
		return errAlgorithm
	}
	var credential, signed, signature string
	for more := true; more; {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
		var to *string
		switch name {
		case "Credential":
			to = &credential
		case "SignedHeaders":
			to = &signed
		case "Signature":
			to = &signature
		default:
			return errParts
		}
		if *to != "" || value == "" {
			return errParts
		}
		*to = value
	}
	if credential == "" || signed == "" || signature == "" {
		return errParts
	}
	if err := a.parseCredential(credential); err != nil {
		return err
	}
	if err := a.parseSignedHeaders(signed); err != nil {
		return err
	}
	return a.parseSignature(signature)
}

func (a *Authorization) parseCredential(s string) error {
	if strings.Count(s, "/") != 4 || strings.ContainsAny(s, " \t") {
		return errCredential
	}
	a.AccessKeyID, s, _ = strings.Cut(s, "/")
	a.Scope.Date, s, _ = strings.Cut(s, "/")
	a.Scope.Region, s, _ = strings.Cut(s, "/")
	a.Scope.Service, s, _ = strings.Cut(s, "/")
	if a.AccessKeyID == "" || a.Scope.Date == "" || a.Scope.Region == "" || a.Scope.Service == "" {
		return errCredential
	}
	if s != terminator {
		return errTerminator
	}
	return nil
}

func (a *Authorization) parseSignedHeaders(s string) error {
	a.SignedHeaders = a.names[:0]
	var host, date bool
	var previous string
	for more := true; more; {
		var name string
		name, s, more = strings.Cut(s, ";")
		if !isHeaderName(name) || name <= previous {
			return errSignedHeaders
		}
		host = host || name == hostHeader || name == authorityHeader
		date = date || name == dateHeader
		a.SignedHeaders = append(a.SignedHeaders, name)
		previous = name
	}
	if !host || !date {
		return errRequired
	}
	return nil
}

// isHeaderName reports whether s is a header's name in lower case.
func isHeaderName(s string) bool {
	if s == authorityHeader {
		return true
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || c == '-' {
			continue // nearly all are
		}
		if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func (a *Authorization) parseSignature(s string) error {
	if len(s) != 2*sha256.Size || strings.ContainsAny(s, "ABCDEF") {
		return errSignatureForm
	}
	if _, err := hex.Decode(a.signature[:], []byte(s)); err != nil {
		return errSignatureForm
	}
	return nil
}
