package xks

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
)

// maxClockSkew is how far the date of a request may be from ours (appendix A).
const maxClockSkew = 5 * time.Minute

// Observation is what a [Server] tells of one finished request.
type Observation struct {
	Store     string    // empty if the request named none
	Operation string    // as the specification calls it; empty likewise
	Error     ErrorName // empty on success
	Status    int       // HTTP status
	Duration  time.Duration
}

// Observer is called once for each request, by many goroutines at once.
type Observer func(Observation)

// Server serves the proxy API for the key stores of a [Config]. It is an
// http.Handler for the whole of a listener: it answers every path.
type Server struct {
	logger   *slog.Logger
	observe  Observer
	state    atomic.Pointer[state] // replaced by Reload, never changed
	inFlight atomic.Int64          // requests that hold one of state.MaxInFlight places
	calls    sync.Pool             // of *call
}

// NewServer returns a server for the configuration. The logger gets one line
// for each request; metrics may be nil.
func NewServer(config Config, logger *slog.Logger, metrics Observer) (*Server, error) {
	s := &Server{logger: logger, observe: metrics}
	s.calls.New = func() any { return newCall() }
	if err := s.Reload(config); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload puts another configuration in force. Requests that have begun end on
// the one they began with. A configuration that is not valid changes nothing.
func (s *Server) Reload(config Config) error {
	if err := config.Validate(); err != nil {
		return fmt.Errorf("the configuration of the XKS proxy cannot be served: %w", err)
	}
	s.state.Store(newState(config))
	return nil
}

// InFlight returns how many requests are being worked on.
func (s *Server) InFlight() int { return int(s.inFlight.Load()) }

// state is a configuration made ready for look-up. It is never changed.
type state struct {
	Config
	stores   map[string]*storeState // by prefix
	verifier sigv4.Verifier
}

type storeState struct {
	Store
	secrets map[string]*sigv4.Secret // by access key id
	regions map[string]bool          // empty: any
}

func newState(config Config) *state {
	config.setDefaults()
	st := &state{
		Config:   config,
		stores:   make(map[string]*storeState, len(config.Stores)),
		verifier: sigv4.Verifier{Service: Service, MaxSkew: maxClockSkew},
	}
	for _, store := range config.Stores {
		ss := &storeState{Store: store, secrets: map[string]*sigv4.Secret{}, regions: map[string]bool{}}
		for _, cred := range store.Credentials {
			ss.secrets[cred.AccessKeyID] = sigv4.NewSecret(cred.SecretAccessKey)
		}
		for _, region := range store.Regions {
			ss.regions[region] = true
		}
		st.stores[store.Prefix] = ss
	}
	return st
}

// ServeHTTP answers one request with JSON, whatever happens.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.calls.Get().(*call)
	c.begin(s.state.Load(), r)
	defer s.finish(c, w)
	c.serve(s, w)
}

// finish answers, tells and wipes, also after a panic.
func (s *Server) finish(c *call, w http.ResponseWriter) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		c.err = panicked(p)
	}
	if c.holdsPlace {
		s.inFlight.Add(-1)
	}
	status := c.answer(w)
	took := time.Since(c.start)
	c.log(s.logger, status, took)
	if s.observe != nil {
		s.observe(Observation{c.storeName(), string(c.route.op), c.errorName(), status, took})
	}
	c.release()
	s.calls.Put(c)
}

// panicked is the error of a request whose handler panicked. The value of the
// panic is kept only if the runtime made it: another may hold anything.
func panicked(p any) *Error {
	cause := fmt.Errorf("panic with a %T\n%s", p, debug.Stack())
	if err, ok := p.(interface{ RuntimeError() }); ok {
		cause = fmt.Errorf("panic: %v\n%s", err, debug.Stack())
	}
	return &Error{InternalException, "The proxy failed on this request; its log tells more.", cause}
}

// enter takes one of the places for requests that are worked on.
func (s *Server) enter(c *call) *Error {
	if s.inFlight.Add(1) > int64(c.state.MaxInFlight) {
		s.inFlight.Add(-1)
		return overloaded()
	}
	c.holdsPlace = true
	return nil
}

func overloaded() *Error {
	return refuse(ThrottlingException, "The proxy is working on as many requests as it can: slow down and try again.")
}

// serve takes the request through all that it must pass, and through the
// operation. Nothing that costs more than a look is done before
// authentication, and no place is held while a peer is slow to send.
func (c *call) serve(s *Server, w http.ResponseWriter) {
	if s.inFlight.Load() >= int64(c.state.MaxInFlight) {
		c.err = overloaded()
		return
	}
	if c.err = c.routeRequest(); c.err != nil {
		return
	}
	if c.err = c.authenticate(s, w); c.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), c.state.Deadline)
	defer cancel()
	c.err = c.operate(ctx)
}

// routeRequest finds the store and the operation.
func (c *call) routeRequest() *Error {
	path := c.r.URL.RawPath
	if path == "" {
		path = c.r.URL.Path
	}
	route, ok := parsePath(path)
	store := c.state.stores[route.prefix]
	if !ok || store == nil {
		return refuse(InvalidURIPathException, "No key store is served under this path: check XksProxyUriPath.")
	}
	c.route, c.store = route, store
	if c.r.Method != http.MethodPost {
		return &Error{Name: methodNotAllowed}
	}
	return nil
}

// answer writes the response and returns its status.
func (c *call) answer(w http.ResponseWriter) int {
	status, header := http.StatusOK, w.Header()
	if c.err != nil {
		if c.err.Name == methodNotAllowed {
			header.Set("Allow", http.MethodPost)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return http.StatusMethodNotAllowed
		}
		status = c.err.Name.Status()
		c.out = appendError(wiped(c.out), c.err)
	}
	if c.closing {
		header.Set("Connection", "close")
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(c.out)))
	w.WriteHeader(status)
	// A peer that is gone cannot be told.
	_, _ = w.Write(c.out)
	return status
}
