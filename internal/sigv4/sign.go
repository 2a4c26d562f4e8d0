package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Sign sets the headers X-Amz-Date and Authorization of r. It signs host,
// x-amz-date, content-type if r has it, and the further headers named, in any
// case, by extra, which r must have.
func Sign(r *http.Request, body []byte, accessKeyID string, s *Secret, region, service string, at time.Time, extra ...string) {
	date := at.UTC().Format(dateFormat)
	r.Header.Set("X-Amz-Date", date)
	t := toSign{
		request:  r,
		scope:    Scope{Date: date[:len("20060102")], Region: region, Service: service},
		headers:  signedHeaders(r, extra),
		date:     date,
		bodyHash: sha256.Sum256(body),
	}
	sum := t.signature(s)

	b := append(make([]byte, 0, 256), algorithm+" Credential="...)
	b = append(b, accessKeyID...)
	b = append(b, '/')
	b = appendScope(b, t.scope)
	b = append(b, ", SignedHeaders="...)
	b = append(b, strings.Join(t.headers, ";")...)
	b = append(b, ", Signature="...)
	b = hex.AppendEncode(b, sum[:])
	r.Header.Set("Authorization", string(b))
}

func signedHeaders(r *http.Request, extra []string) []string {
	names := []string{hostHeader, dateHeader}
	if len(r.Header["Content-Type"]) > 0 {
		names = append(names, "content-type")
	}
	for _, name := range extra {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
