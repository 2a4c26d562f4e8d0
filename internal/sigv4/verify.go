package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DefaultMaxSkew is the clock skew, both ways, that the specification of the
// XKS proxy API allows (appendix A, task 4).
const DefaultMaxSkew = 5 * time.Minute

// Verifier verifies the requests of one service. It is safe for concurrent use
// and must not be copied after the first.
type Verifier struct {
	Service string           // the service name that signatures must be for
	MaxSkew time.Duration    // largest difference of clocks; 0 means DefaultMaxSkew
	Now     func() time.Time // nil means time.Now

	unknown Secret // what CheckUnknown computes with
}

// Parse checks everything of the request's signature that needs no secret. An
// error is always an [Error].
func (v *Verifier) Parse(r *http.Request) (*Authorization, error) {
	if err := checkURL(r.URL); err != nil {
		return nil, err
	}
	headers := r.Header["Authorization"]
	if len(headers) != 1 {
		return nil, errHeaderCount
	}
	a := &Authorization{unknown: &v.unknown}
	if err := a.parse(headers[0]); err != nil {
		return nil, err
	}
	if a.Scope.Service != v.Service {
		return nil, errService
	}
	for _, name := range a.SignedHeaders {
		if !hasHeader(r, name) {
			return nil, errAbsentHeader
		}
	}
	for name := range r.Header {
		if mustBeSigned(name) && !slices.Contains(a.SignedHeaders, strings.ToLower(name)) {
			return nil, errUnsigned
		}
	}
	if err := v.checkDate(a, r); err != nil {
		return nil, err
	}
	return a, nil
}

// mustBeSigned reports whether a request that has the header, of this canonical
// name, is only authentic if it is signed. All of AWS's own headers must be, lest
// a signed request be made another one, but for these:
//   - X-Amz-Security-Token, which some clients leave unsigned. One that is not the
//     signer's is refused by who knows the signer's.
//   - X-Amz-Content-Sha256, which Check compares with the signed body.
//   - X-Amz-User-Agent and X-Amz-Cf-Id, which no service acts on. The latter is
//     added by CloudFront, after the request was signed.
//
// X-Amzn-* headers, such as that of a load balancer's trace, are no part of a request.
func mustBeSigned(name string) bool {
	switch name {
	case "X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Amz-User-Agent", "X-Amz-Cf-Id":
		return false
	}
	return strings.HasPrefix(name, "X-Amz-")
}

func (v *Verifier) checkDate(a *Authorization, r *http.Request) error {
	dates := r.Header["X-Amz-Date"]
	if len(dates) != 1 {
		return errDate
	}
	at, err := parseDate(dates[0])
	if err != nil {
		return err
	}
	a.date = dates[0]
	if a.Scope.Date != a.date[:len("20060102")] {
		return errScopeDate
	}
	now, skew := time.Now, v.MaxSkew
	if v.Now != nil {
		now = v.Now
	}
	if skew == 0 {
		skew = DefaultMaxSkew
	}
	if now().Sub(at).Abs() > skew {
		return errSkew
	}
	return nil
}

// parseDate is stricter than time.Parse, which takes fractions of a second too,
// and quicker.
func parseDate(s string) (time.Time, error) {
	if len(s) != len(dateFormat) || s[8] != 'T' || s[15] != 'Z' {
		return time.Time{}, errDate
	}
	var n [6]int // year, month, day, hour, minute, second
	at := 0
	for i, digits := range [...]int{4, 2, 2, 2, 2, 2} {
		if i == 3 {
			at++ // the T
		}
		for range digits {
			c := s[at]
			if c < '0' || c > '9' {
				return time.Time{}, errDate
			}
			n[i] = 10*n[i] + int(c-'0')
			at++
		}
	}
	date := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	// What is out of range runs over into the rest.
	if date.Month() != time.Month(n[1]) || date.Day() != n[2] || date.Hour() != n[3] || date.Minute() != n[4] || date.Second() != n[5] {
		return time.Time{}, errDate
	}
	return date, nil
}

// checkURL refuses what has more than one canonical form: see the package's
// documentation.
func checkURL(u *url.URL) error {
	if path := u.EscapedPath(); path != "" && path != "/" {
		if path[0] != '/' {
			return errPath
		}
		for rest, more := path[1:], true; more; {
			var segment string
			segment, rest, more = strings.Cut(rest, "/")
			if segment == "." || segment == ".." || segment == "" && more {
				return errPath
			}
		}
	}
	if u.RawQuery != "" {
		if _, err := url.ParseQuery(u.RawQuery); err != nil {
			return errQuery
		}
	}
	return nil
}

// Check reports, as an [Error], that the signature of r with its whole body is
// not one made with s. r is the request that Parse was given.
func (a *Authorization) Check(r *http.Request, body []byte, s *Secret) error {
	t := toSign{request: r, scope: a.Scope, headers: a.SignedHeaders, date: a.date, bodyHash: sha256.Sum256(body)}
	if claimed, ok := r.Header["X-Amz-Content-Sha256"]; ok {
		var digits [2 * sha256.Size]byte
		hex.Encode(digits[:], t.bodyHash[:])
		if len(claimed) != 1 || claimed[0] != string(digits[:]) {
			return errContentSHA256
		}
	}
	sum := t.signature(s)
	if subtle.ConstantTimeCompare(sum[:], a.signature[:]) != 1 {
		return errMismatch
	}
	return nil
}

// CheckUnknown fails as Check does with a wrong secret and takes as long. It is
// for an access key id that nobody knows, so that the time does not tell.
func (a *Authorization) CheckUnknown(r *http.Request, body []byte) error {
	if err := a.Check(r, body, a.unknown); err != nil {
		return err
	}
	return errMismatch // somebody guessed what we compute with
}
