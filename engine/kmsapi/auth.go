package kmsapi

import (
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/sigv4"
)

// The services that signatures may be for.
const (
	serviceKMS = "kms"
	serviceSTS = "sts"
)

// MaxBody is the most bytes of a request body. The largest input that AWS KMS
// takes is a key policy of 128 Ki characters, each at most six bytes in JSON.
const MaxBody = 1 << 20

// identity is an [Identity] made ready for use.
type identity struct {
	caller  engine.Caller
	secret  *sigv4.Secret
	token   string // X-Amz-Security-Token, "" for none
	clients clients
}

// authenticate verifies the signature and reads the body, which it covers.
// What the headers alone tell is checked first, so that a stranger is refused
// before any body is read. An access key id that nobody has takes as long as
// another one.
func (c *call) authenticate(h *Handler) *failure {
	if len(c.r.Header["Authorization"]) == 0 {
		return refuse(codeMissingToken, "Missing Authentication Token")
	}
	verifier := &h.kms
	if c.query {
		verifier = &h.sts
	}
	auth, err := verifier.Parse(c.r)
	if err != nil {
		return c.unsigned(verifier, err)
	}
	c.accessKeyID = auth.AccessKeyID
	if !isRegion(auth.Scope.Region) {
		return refuse(codeSignature, "Credential should be scoped to a valid region.")
	}
	c.region = auth.Scope.Region
	if f := c.readBody(h); f != nil {
		return f
	}
	if f := h.enter(c); f != nil {
		return f
	}
	known, ok := c.state.identities[auth.AccessKeyID]
	if !ok {
		_ = auth.CheckUnknown(c.r, c.body) // it always fails
		return refuse(codeUnrecognized, unrecognizedMessage)
	}
	if err := auth.Check(c.r, c.body, known.secret); err != nil {
		return c.unsigned(verifier, err)
	}
	if !known.hasToken(c.r) {
		return refuse(codeUnrecognized, unrecognizedMessage)
	}
	c.identity = known
	return nil
}

// hasToken reports whether the request carries the identity's session token, or
// none if it has none. It need not be signed: jsign leaves it out, and who knows
// the secret knows the token.
func (id *identity) hasToken(r *http.Request) bool {
	sent := r.Header["X-Amz-Security-Token"]
	if id.token == "" {
		return len(sent) == 0
	}
	return len(sent) == 1 && subtle.ConstantTimeCompare([]byte(sent[0]), []byte(id.token)) == 1
}

// unsigned is the answer to an error of sigv4, in AWS's words.
func (c *call) unsigned(v *sigv4.Verifier, err error) *failure {
	var e sigv4.Error
	if !errors.As(err, &e) {
		return &failure{codeInternal, internalMessage, http.StatusInternalServerError, err}
	}
	switch e.Fault() {
	case sigv4.WrongService:
		return refuse(codeSignature, "Credential should be scoped to correct service: '%s'.", v.Service)
	case sigv4.WrongDay:
		return refuse(codeSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	case sigv4.Skewed:
		return skewed(c.r.Header.Get("X-Amz-Date"), c.start)
	case sigv4.Mismatch:
		return refuse(codeSignature, "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return refuse(codeIncomplete, "The request is not signed completely: %s.", err)
}

// skewed tells of a date, of the right form, that is too far from now.
func skewed(date string, now time.Time) *failure {
	const format = "20060102T150405Z"
	now = now.UTC()
	earliest, latest := now.Add(-sigv4.DefaultMaxSkew).Format(format), now.Add(sigv4.DefaultMaxSkew).Format(format)
	if date < earliest {
		return refuse(codeSignature, "Signature expired: %s is now earlier than %s (%s - 5 min.)", date, earliest, now.Format(format))
	}
	return refuse(codeSignature, "Signature not yet current: %s is still later than %s (%s + 5 min.)", date, latest, now.Format(format))
}

// firstRoom is how many bytes of a body get room before any has come: more
// than nearly all bodies have.
const firstRoom = 32 << 10

// maxLarge is how many bodies larger than firstRoom are read at once. Whoever
// sends them has proven nothing yet, and they are rare: nearly all are key
// policies.
const maxLarge = 64

// enterLarge takes one of the places for large bodies.
func (c *call) enterLarge(h *Handler) *failure {
	if h.large.Add(1) > maxLarge {
		h.large.Add(-1)
		c.closing = true // the rest is not read
		return c.overloaded()
	}
	c.large = true
	return nil
}

// readBody reads the whole body into c.body. Memory grows with what has come,
// not with what was announced, and what is outgrown is wiped.
func (c *call) readBody(h *Handler) *failure {
	declared := c.r.ContentLength
	if declared > MaxBody {
		c.closing = true
		return tooLarge()
	}
	room := firstRoom
	if declared >= 0 {
		room = min(int(declared)+1, firstRoom) // one more, to see the end
	}
	if cap(c.body) < room {
		c.body = regrow(c.body, room)
	}
	c.body = c.body[:0]
	for {
		if len(c.body) >= firstRoom && !c.large {
			if f := c.enterLarge(h); f != nil {
				return f
			}
		}
		if len(c.body) == cap(c.body) {
			c.body = regrow(c.body, 2*cap(c.body))
		}
		n, err := c.r.Body.Read(c.body[len(c.body):cap(c.body)])
		c.body = c.body[:len(c.body)+n]
		if len(c.body) > MaxBody {
			c.closing = true
			return tooLarge()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			c.closing = true
			f := refuse(codeSerialization, "The request body ended early or was too slow: send all of it.")
			f.cause = err
			return f
		}
	}
}

func tooLarge() *failure {
	return &failure{codeTooLarge, "The request body may have 1048576 bytes.", http.StatusRequestEntityTooLarge, nil}
}

// hasType reports whether the request's media type is want, whatever its
// parameters.
func hasType(r *http.Request, want string) bool {
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	media, _, _ := strings.Cut(values[0], ";")
	return strings.EqualFold(strings.TrimSpace(media), want)
}
