package xks

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Default timeouts and sizes of a [Listener].
const (
	defaultReadTimeout  = 10 * time.Second
	defaultWriteTimeout = 20 * time.Second // from the end of the headers: a body may take half of it
	defaultIdleTimeout  = 5 * time.Minute  // AWS KMS keeps connections for the next request
	handshakeTimeout    = 5 * time.Second
	readHeaderTimeout   = 5 * time.Second
	maxHeaderBytes      = 16 << 10
)

// ListenerOptions says how a [Listener] serves.
type ListenerOptions struct {
	TLS    *TLSOptions // nil: plain HTTP/1.1
	Logger *slog.Logger
	// ReadTimeout bounds the reading of one request, WriteTimeout what follows its
	// headers until the answer is taken, IdleTimeout the wait for the next.
	// Defaults: 10 s, 20 s, 5 min.
	ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	// Connections is how many there may be at once, those in their TLS handshake
	// included. Default 1024. One more takes the place of the one that has waited
	// longest for its peer, for a second at least, and on which no request is
	// worked on; where there is none it is closed at once.
	Connections int
	// Malformed makes the body of the answer to what is no proper HTTP request,
	// and its media type. Default: a ValidationException of the XKS proxy API.
	Malformed func(message string) (mediaType string, body []byte)
}

// Listener serves a handler, as a rule a [Server], over HTTPS (HTTP/1.1 and
// HTTP/2) or plain HTTP/1.1. Where net/http refuses a malformed request by
// itself, the peer gets an error in the form of the API that is served. What
// peers can hold by being slow, silent or many is bounded.
type Listener struct {
	server *http.Server
	inner  net.Listener
	logger *slog.Logger
	answer malformed
	open   *connections
	tls    atomic.Pointer[tls.Config] // nil: plain; replaced by SetTLS, never changed
}

// NewListener prepares to serve connections of inner, which it will close.
func NewListener(inner net.Listener, handler http.Handler, options ListenerOptions) (*Listener, error) {
	l := &Listener{
		inner: inner, logger: options.Logger, answer: options.Malformed,
		open: newConnections(cmp.Or(options.Connections, defaultConnections), options.Logger),
	}
	if l.answer == nil {
		l.answer = malformedRequest
	}
	if options.TLS != nil {
		config, err := options.TLS.config()
		if err != nil {
			return nil, err
		}
		l.tls.Store(config)
	}
	readTimeout := cmp.Or(options.ReadTimeout, defaultReadTimeout)
	writeTimeout := cmp.Or(options.WriteTimeout, defaultWriteTimeout)
	l.server = &http.Server{
		Handler:                      workingHandler{handler},
		ReadHeaderTimeout:            min(readHeaderTimeout, readTimeout),
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  cmp.Or(options.IdleTimeout, defaultIdleTimeout),
		MaxHeaderBytes:               maxHeaderBytes,
		HTTP2:                        http2Config(writeTimeout),
		ConnContext:                  withConnection,
		ConnState:                    moved,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(options.Logger.Handler(), slog.LevelWarn),
	}
	return l, nil
}

// Addr returns the address that connections are accepted on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// SetTLS makes new connections use other options. Those that are open keep
// what they were opened with. It fails, changing nothing, if the options are
// not usable or the listener is a plain one.
func (l *Listener) SetTLS(options TLSOptions) error {
	if l.tls.Load() == nil {
		return errors.New("a plain HTTP listener has no TLS options")
	}
	config, err := options.config()
	if err != nil {
		return err
	}
	l.tls.Store(config)
	return nil
}

// SetConnections has new connections find another limit, see
// [ListenerOptions].
func (l *Listener) SetConnections(limit int) { l.open.setLimit(limit) }

// Connections tells of the connections of the listener.
func (l *Listener) Connections() ConnectionStats { return l.open.stats() }

// Serve serves until Shutdown, and then returns nil at once.
func (l *Listener) Serve() error {
	inner := admitting{l.inner, l.open}
	var conns net.Listener = plainListener{inner, l.answer}
	if l.tls.Load() != nil {
		conns = newTLSListener(inner, &l.tls, l.logger, l.answer)
	}
	if err := l.server.Serve(conns); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown accepts no more connections and no more requests, finishes those
// that are in flight, and returns when they are done. When the context ends
// first it closes what is left and returns the context's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	err := l.server.Shutdown(ctx)
	if err != nil {
		// What is left is cut off: there is nothing to do about an error.
		_ = l.server.Close()
	}
	return err
}
