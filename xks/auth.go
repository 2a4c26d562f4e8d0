package xks

import (
	"errors"
	"io"
	"net/http"
	"slices"
)

// MaxBody is the most bytes of a request body, before any other limit.
const MaxBody = 65536

// authenticate verifies the signature (appendix A) and reads the body, which
// it covers. What the headers alone tell is checked first, so that a stranger
// is refused before any body is read. The order of checks does not depend on
// whether the access key id is known.
func (c *call) authenticate(s *Server, w http.ResponseWriter) *Error {
	auth, err := c.state.verifier.Parse(c.r)
	if err != nil {
		return unauthenticated(err)
	}
	c.accessKeyID = auth.AccessKeyID
	if len(c.store.regions) > 0 && !c.store.regions[auth.Scope.Region] {
		return unauthenticated(errors.New("the Region of the credential scope is not one that this key store allows"))
	}
	if err := c.readBody(w); err != nil {
		return err
	}
	if err := s.enter(c); err != nil {
		return err
	}
	if secret, known := c.store.secrets[auth.AccessKeyID]; known {
		err = auth.Check(c.r, c.body, secret)
	} else {
		err = auth.CheckUnknown(c.r, c.body)
	}
	if err != nil {
		return unauthenticated(err)
	}
	c.authenticated = true
	return nil
}

func unauthenticated(cause error) *Error {
	return &Error{AuthenticationFailedException, "The request is not signed as this key store requires: " + cause.Error() + ".", nil}
}

// readBody reads the whole body into c.body.
func (c *call) readBody(w http.ResponseWriter) *Error {
	declared := c.r.ContentLength
	if declared > MaxBody {
		c.closing = true
		return tooLarge("request body", MaxBody)
	}
	// Room for one byte more than may come, so that growing never leaves a
	// copy of a plaintext behind.
	room := int(declared) + 1
	if declared < 0 {
		room = MaxBody + 1
	}
	c.body = slices.Grow(c.body[:0], room)
	for len(c.body) < room {
		n, err := c.r.Body.Read(c.body[len(c.body):room])
		c.body = c.body[:len(c.body)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			c.closing = true
			return &Error{ValidationException, "The request body ended early or was too slow: send all of it.", err}
		}
	}
	c.closing = true
	return tooLarge("request body", MaxBody)
}
