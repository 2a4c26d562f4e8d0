package verify

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

const (
	algorithm      = "AWS4-HMAC-SHA256"
	terminator     = "aws4_request"
	amzDateFormat  = "20060102T150405Z"
	scopeDayFormat = "20060102"
)

// signing is how a request is signed (appendix A). Unlike a signer for
// production each part of it can be wrong.
type signing struct {
	credential xks.Credential
	algorithm  string
	at         time.Time
	amzDate    string // the x-amz-date header; empty: none is sent
	scopeDay   string
	region     string
	service    string
	terminator string
	headers    []string // SignedHeaders, sorted, lower case
	host       string   // replaces the Host header in the signature if set
	payload    string   // replaces the hash of the body if set
	signature  func(string) string
	header     func(string) string // edits the finished Authorization header; "" sends none
}

func newSigning(credential xks.Credential, region string, at time.Time) signing {
	s := signing{
		credential: credential,
		algorithm:  algorithm,
		region:     region,
		service:    xks.Service,
		terminator: terminator,
		headers:    []string{"host", "x-amz-date"},
	}
	s.date(at)
	return s
}

// date moves the signature to another time.
func (s *signing) date(at time.Time) {
	s.at = at.UTC()
	s.amzDate, s.scopeDay = s.at.Format(amzDateFormat), s.at.Format(scopeDayFormat)
}

// addHeader signs one header more.
func (s *signing) addHeader(name string) {
	s.headers = append(slices.Clone(s.headers), name)
	slices.Sort(s.headers)
}

// sign sets x-amz-date and Authorization on r, whose path needs no escaping.
func (s *signing) sign(r *http.Request, body []byte) {
	if s.amzDate != "" {
		r.Header.Set("X-Amz-Date", s.amzDate)
	}
	scope := strings.Join([]string{s.scopeDay, s.region, s.service, s.terminator}, "/")
	toSign := strings.Join([]string{s.algorithm, s.amzDate, scope, hexHash([]byte(s.canonicalRequest(r, body)))}, "\n")
	signature := hex.EncodeToString(mac(s.key(), toSign))
	if s.signature != nil {
		signature = s.signature(signature)
	}
	authorization := s.algorithm + " Credential=" + s.credential.AccessKeyID + "/" + scope +
		", SignedHeaders=" + strings.Join(s.headers, ";") + ", Signature=" + signature
	if s.header != nil {
		authorization = s.header(authorization)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
}

func (s *signing) canonicalRequest(r *http.Request, body []byte) string {
	payload := cmp.Or(s.payload, hexHash(body))
	var headers strings.Builder
	for _, name := range s.headers {
		value := r.Header.Get(name)
		if name == "host" {
			value = cmp.Or(s.host, r.Host)
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	return strings.Join([]string{
		r.Method, r.URL.EscapedPath(), "", headers.String(), strings.Join(s.headers, ";"), payload,
	}, "\n")
}

func (s *signing) key() []byte {
	key := []byte("AWS4" + s.credential.SecretAccessKey)
	for _, part := range []string{s.scopeDay, s.region, s.service, s.terminator} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text)) // a hash never returns an error
	return h.Sum(nil)
}

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
