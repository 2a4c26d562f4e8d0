package kmsapi

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hyok-kms/hyok/engine"
)

const (
	targetPrefix = "TrentService."
	jsonType     = "application/x-amz-json-1.1"
	formType     = "application/x-www-form-urlencoded"
)

// call is one request on its way. It belongs to the goroutine that serves the
// request, and between requests to the pool, with every buffer that may have
// held plaintext wiped.
type call struct {
	r     *http.Request
	start time.Time
	// connection has the bounds of reading the request and writing the answer.
	connection *http.ResponseController
	state      *state
	id         string // x-amzn-RequestId

	query       bool       // it speaks the Query protocol, of STS
	op          *operation // nil until routed, and for the Query protocol
	action      string     // the operation's name once it is known to exist
	accessKeyID string     // claimed
	region      string
	identity    *identity     // nil until authenticated
	key         string        // as the request names it
	failure     *failure      // what will be answered; nil: out
	retryAfter  time.Duration // of a failure: when another try is of use; 0: not known
	holdsPlace  bool          // in Handler.inFlight
	large       bool          // it counts in Handler.large
	closing     bool          // the connection cannot be used further

	reader    *reader
	body, out []byte // may hold plaintext
}

func newCall() *call { return &call{reader: new(reader)} }

func (c *call) begin(st *state, w http.ResponseWriter, r *http.Request) {
	c.r, c.state, c.start, c.id = r, st, time.Now(), newRequestID()
	c.connection = http.NewResponseController(w)
}

// newRequestID returns a random UUID (RFC 9562, version 4). It names a request and
// guards nothing, so that the quicker generator will do.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40 // version
	id[8] = id[8]&0x3f | 0x80 // variant
	return id.String()
}

// maxKept is the largest buffer, in bytes, that waits in the pool for the next
// request. Larger ones are for rare requests.
const maxKept = 32 << 10

// release wipes what may hold plaintext and forgets the request.
func (c *call) release() {
	*c = call{reader: c.reader, body: wiped(c.body), out: wiped(c.out)}
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

// serve takes the request through all that it must pass, and through the
// operation. No place is held while a peer is slow to send.
func (c *call) serve(h *Handler) *failure {
	if f := c.route(h.operations); f != nil {
		return f
	}
	if h.inFlight.Load() >= int64(c.state.MaxInFlight) {
		return c.overloaded() // before anything that costs more than a look
	}
	if f := c.authenticate(h); f != nil {
		return f
	}
	if c.query {
		return c.callerIdentity()
	}
	api := c.identity.clients.get(c.region, func(region string) engine.API {
		return c.state.Client(region, c.identity.caller)
	})
	if api == nil {
		c.retryAfter = missingWait
		return &failure{codeTimeout, "The token of this KMS cannot be used yet. The request can be tried again.", http.StatusServiceUnavailable, nil}
	}
	ctx, cancel := c.deadline()
	defer cancel()
	if err := c.op.serve(ctx, api, c); err != nil {
		c.retryAfter = engine.RetryAfter(err)
		return fromAPI(err)
	}
	return nil
}

// deadline returns the context of the operation. One that may have to wait for a key
// pair has longer than a listener waits, so what bounds the reading and the writing of
// the connection moves with it.
func (c *call) deadline() (context.Context, context.CancelFunc) {
	ctx := engine.WithRequestID(c.r.Context(), c.id)
	if !c.op.generates {
		return context.WithTimeout(ctx, c.state.Deadline)
	}
	until := time.Now().Add(max(c.state.Deadline, c.state.Generation) + answerTime)
	// net/http takes a connection on which reading has timed out for one whose peer is
	// gone. An error says that there are no such bounds.
	_ = c.connection.SetReadDeadline(until)
	_ = c.connection.SetWriteDeadline(until)
	return engine.WithDeadlines(ctx, c.state.Deadline, c.state.Generation)
}

// answerTime is how long an answer may take to be written, after the deadline.
const answerTime = 10 * time.Second

// route finds the protocol and the operation.
func (c *call) route(operations map[string]*operation) *failure {
	r := c.r
	targets := r.Header["X-Amz-Target"]
	c.query = len(targets) == 0 && hasType(r, formType)
	if r.URL.Path != "/" && r.URL.Path != "" {
		return &failure{codeUnknown, "AWS KMS is served at the path /.", http.StatusNotFound, nil}
	}
	if r.Method != http.MethodPost {
		return &failure{codeUnknown, "AWS KMS is asked by POST.", http.StatusMethodNotAllowed, nil}
	}
	if c.query {
		return nil
	}
	if len(targets) != 1 || !hasType(r, jsonType) {
		return refuse(codeUnknown, "A request to AWS KMS has one X-Amz-Target, and the Content-Type %s.", jsonType)
	}
	name, ok := strings.CutPrefix(targets[0], targetPrefix)
	op := operations[name]
	if !ok || op == nil {
		return refuse(codeUnknown, "X-Amz-Target names no operation of AWS KMS.")
	}
	c.op, c.action = op, op.name
	return nil
}

// The waits that are told to those who are refused for a reason that soon passes.
const (
	overloadWait = 250 * time.Millisecond // many requests have ended by then
	missingWait  = time.Second            // a token that is missing is looked for as often
)

// overloaded refuses the request for want of a place.
func (c *call) overloaded() *failure {
	c.retryAfter = overloadWait
	return refuse(codeThrottling, "Rate exceeded")
}

// answer writes the response and returns its status.
func (c *call) answer(h *Handler, w http.ResponseWriter) int {
	status, header := http.StatusOK, w.Header()
	if c.failure != nil {
		status = c.writeFailure()
	}
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", http.MethodPost)
	}
	if c.closing {
		header.Set("Connection", "close")
	}
	header["Content-Type"] = h.jsonType
	if c.query {
		header["Content-Type"] = h.xmlType
	}
	header["Cache-Control"] = h.noStore
	if c.retryAfter > 0 {
		header["X-Amz-Retry-After"] = []string{strconv.FormatInt(c.retryAfter.Milliseconds(), 10)}
	}
	header["X-Amzn-Requestid"] = []string{c.id}
	header["Content-Length"] = []string{strconv.Itoa(len(c.out))}
	w.WriteHeader(status)
	// A peer that is gone cannot be told.
	_, _ = w.Write(c.out)
	return status
}

// writeFailure puts the failure into c.out in the form of the protocol and
// returns its status.
func (c *call) writeFailure() int {
	e := encoder{wiped(c.out)}
	if c.query {
		c.failure.forQuery()
		c.failure.appendXML(&e, c.id)
	} else {
		c.failure.appendJSON(&e)
	}
	c.out = e.buf
	return c.failure.status
}
