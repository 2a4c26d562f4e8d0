package kmsapi

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
)

// Observation is what a [Handler] tells of one finished request.
type Observation struct {
	Operation string // as AWS calls it; empty if the request named none that exists
	Region    string // empty if the request was not authenticated
	Account   string // likewise
	Code      string // of the error; empty on success
	Status    int    // HTTP status
	Duration  time.Duration
}

// Handler serves the API of a [Config]. It is an http.Handler for the whole of
// a listener: it answers every path.
type Handler struct {
	kms, sts   sigv4.Verifier        // of the services; they keep what unknown keys are checked with
	operations map[string]*operation // by name; never changed
	state      atomic.Pointer[state] // replaced by Reload, never changed
	inFlight   atomic.Int64          // requests that hold one of state.MaxInFlight places
	large      atomic.Int64          // requests with large bodies, at most maxLarge
	calls      sync.Pool             // of *call

	jsonType, xmlType, noStore []string // values of response headers; never changed
}

// state is a configuration made ready for look-up. It is never changed.
type state struct {
	Config
	identities map[string]*identity // by access key id
}

// NewHandler returns a handler for the configuration.
func NewHandler(config Config) (*Handler, error) {
	h := &Handler{
		kms:        sigv4.Verifier{Service: serviceKMS},
		sts:        sigv4.Verifier{Service: serviceSTS},
		operations: operations(),
		jsonType:   []string{jsonType},
		xmlType:    []string{"text/xml"},
		noStore:    []string{"no-cache, no-store, must-revalidate, private"},
	}
	h.calls.New = func() any { return newCall() }
	if err := h.Reload(config); err != nil {
		return nil, err
	}
	return h, nil
}

// Reload puts another configuration in force. Requests that have begun end on
// the one they began with. A configuration that is not valid changes nothing.
func (h *Handler) Reload(config Config) error {
	if err := config.Validate(); err != nil {
		return fmt.Errorf("the configuration of the KMS API cannot be served: %w", err)
	}
	config.setDefaults()
	st := &state{Config: config, identities: make(map[string]*identity, len(config.Identities))}
	for i := range config.Identities {
		id := &config.Identities[i]
		st.identities[id.AccessKeyID] = &identity{
			caller: id.caller(), secret: sigv4.NewSecret(id.SecretAccessKey), token: id.SessionToken,
		}
	}
	st.Identities = nil // the secrets are needed no more in this form
	h.state.Store(st)
	return nil
}

// InFlight returns how many requests are being worked on.
func (h *Handler) InFlight() int { return int(h.inFlight.Load()) }

// ServeHTTP answers one request, whatever happens.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := h.calls.Get().(*call)
	c.begin(h.state.Load(), w, r)
	defer h.finish(c, w)
	c.failure = c.serve(h)
}

// finish answers, tells and wipes, also after a panic.
func (h *Handler) finish(c *call, w http.ResponseWriter) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		c.failure = panicked(p)
	}
	if c.holdsPlace {
		h.inFlight.Add(-1)
	}
	if c.large {
		h.large.Add(-1)
	}
	status := c.answer(h, w)
	took := time.Since(c.start)
	c.log(status, took)
	if c.state.Observe != nil {
		c.state.Observe(c.observation(status, took))
	}
	c.release()
	h.calls.Put(c)
}

// enter takes one of the places for requests that are worked on.
func (h *Handler) enter(c *call) *failure {
	if h.inFlight.Add(1) > int64(c.state.MaxInFlight) {
		h.inFlight.Add(-1)
		return c.overloaded()
	}
	c.holdsPlace = true
	return nil
}
