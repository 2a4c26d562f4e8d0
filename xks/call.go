package xks

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"net/http"
	"time"
)

// methodNotAllowed stands for HTTP 405, which has no name in the table of error
// codes, in logs and metrics.
const methodNotAllowed ErrorName = "MethodNotAllowed"

// call is one request on its way. It belongs to the goroutine that serves the
// request, and between requests to the pool, with every buffer that may have
// held plaintext wiped.
type call struct {
	r     *http.Request
	start time.Time
	state *state
	store *storeState // nil until routed
	route route
	err   *Error // what will be answered; nil: out

	accessKeyID   string
	authenticated bool
	holdsPlace    bool // in Server.inFlight
	closing       bool // the connection cannot be used further
	token         string
	version       uint32
	sealed        Sealed // by the token on encrypt; into the buffers below on decrypt

	in                  members
	body, scratch, out  []byte // may hold plaintext
	plaintext           []byte // of an encrypt request; holds plaintext
	aad, tokenAAD       []byte
	ciphertext, iv, tag []byte
	metadata            []byte // ciphertext metadata, sent or made
	cdiv                []byte
	digest              hash.Hash
	base64              *base64.Encoding
}

func newCall() *call {
	return &call{digest: sha256.New(), base64: base64.StdEncoding.Strict()}
}

func (c *call) begin(st *state, r *http.Request) {
	c.r, c.state, c.start = r, st, time.Now()
}

// maxKept is the largest buffer, in bytes, that waits in the pool for the next
// request. Larger ones are for rare requests.
const maxKept = 16 << 10

// release wipes what may hold plaintext and forgets the request.
func (c *call) release() {
	c.in.reset()
	kept := *c
	*c = call{
		in: kept.in, digest: kept.digest, base64: kept.base64,
		body: wiped(kept.body), scratch: wiped(kept.scratch), out: wiped(kept.out), plaintext: wiped(kept.plaintext),
		aad: kept.aad[:0], tokenAAD: kept.tokenAAD[:0], ciphertext: kept.ciphertext[:0],
		iv: kept.iv[:0], tag: kept.tag[:0], metadata: kept.metadata[:0], cdiv: kept.cdiv[:0],
	}
}

// wiped zeroes all of b and returns it empty, or nothing if it is too large to
// keep.
func wiped(b []byte) []byte {
	clear(b[:cap(b)])
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// operate parses the request, checks that the store may serve it, and does it.
// Cryptography comes last.
func (c *call) operate(ctx context.Context) *Error {
	if err := c.parse(); err != nil {
		return err
	}
	var err *Error
	switch c.route.op {
	case opEncrypt:
		err = c.parseEncrypt()
	case opDecrypt:
		err = c.parseDecrypt()
	}
	if err != nil {
		return err
	}
	if c.route.op != opHealth && (!validKeyID(c.route.key) || !c.store.Allow(c.route.key)) {
		return refuse(KeyNotFoundException, "No such external key in this key store: check its id, and that the store may use it.")
	}
	if c.store.Limiter != nil && !c.store.Limiter.Allow() {
		return refuse(ThrottlingException, "The key store is over its request rate: slow down and try again.")
	}
	if c.route.op == opHealth {
		return c.health()
	}
	return c.withKey(ctx)
}

// withKey does an operation that has a key.
func (c *call) withKey(ctx context.Context) *Error {
	key, err := c.store.Keys.Find(ctx, c.route.key)
	if err != nil {
		return c.fromKeys(err)
	}
	switch c.route.op {
	case opEncrypt:
		err = c.encrypt(ctx, key)
	case opDecrypt:
		err = c.decrypt(ctx, key)
	default:
		err = c.describe(ctx, key)
	}
	c.token = key.Token()
	if err != nil {
		return c.fromKeys(err)
	}
	return nil
}

// fromKeys is the answer to an error of a [Keys] or [Key].
func (c *call) fromKeys(err error) *Error {
	var known *Error
	switch {
	case errors.As(err, &known) && known.Name.Status() != 0:
		return known
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{DependencyTimeoutException, "The token did not answer in time: try again.", err}
	case errors.Is(err, context.Canceled):
		return &Error{DependencyTimeoutException, "The request was withdrawn before the token answered.", err}
	}
	return &Error{InternalException, "The token failed; the log of the proxy tells more.", err}
}

func (c *call) storeName() string {
	if c.store == nil {
		return ""
	}
	return c.store.Name
}

func (c *call) errorName() ErrorName {
	if c.err == nil {
		return ""
	}
	return c.err.Name
}
