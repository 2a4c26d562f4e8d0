package xks

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// The bounds of HTTP/2 connections, beside those that net/http sets itself: it
// ends a connection that has 10,000 control frames wait to be taken, or that
// has begun and reset more than four times as many streams as it may have.
const (
	maxStreams       = 128
	frameBytes       = 16 << 10  // the least that RFC 9113 allows (section 4.2)
	streamBuffer     = 64 << 10  // bytes of a body that wait for the handler
	connectionBuffer = 256 << 10 // the same of all streams
	headerTableBytes = 4 << 10   // RFC 7541's default
	silence          = 30 * time.Second
	pingTimeout      = 10 * time.Second
)

// http2Config bounds what an HTTP/2 peer can have the server keep and do. A
// peer that has been silent is asked for a sign of life.
func http2Config(writeTimeout time.Duration) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReadFrameSize:              frameBytes,
		MaxReceiveBufferPerStream:     streamBuffer,
		MaxReceiveBufferPerConnection: connectionBuffer,
		MaxDecoderHeaderTableSize:     headerTableBytes,
		MaxEncoderHeaderTableSize:     headerTableBytes,
		SendPingTimeout:               silence,
		PingTimeout:                   pingTimeout,
		WriteByteTimeout:              writeTimeout,
	}
}

// admitting is a listener whose connections are all of type *connection.
type admitting struct {
	net.Listener
	connections *connections
}

// Accept returns the next connection that there is room for.
func (l admitting) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.connections.makeRoom()
			}
			return nil, err // net/http waits and tries again where that helps
		}
		if c := l.connections.admit(raw); c != nil {
			return c, nil
		}
	}
}

// admitted returns the connection below what net/http was given, or nil.
func admitted(conn net.Conn) *connection {
	for {
		switch c := conn.(type) {
		case *connection:
			return c
		case jsonTLSConn:
			conn = c.conn
		case jsonConn:
			conn = c.Conn
		case *tls.Conn:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// connectionKey is the key of a request's *connection in its context.
type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, admitted(conn))
}

// moved is net/http's hook on the states of connections.
func moved(conn net.Conn, state http.ConnState) {
	if state != http.StateActive && state != http.StateIdle {
		return
	}
	if c := admitted(conn); c != nil {
		c.moved()
	}
}

// workingHandler tells a connection when a request of it is here whole, and when
// it is done.
type workingHandler struct{ http.Handler }

func (h workingHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	if c == nil {
		h.Handler.ServeHTTP(w, r)
		return
	}
	body := &wholeBody{ReadCloser: r.Body, connection: c}
	defer body.done()
	if r.Body == http.NoBody {
		body.whole()
		h.Handler.ServeHTTP(w, r)
		return
	}
	// A copy, since net/http looks at the body of its own to know what of it was not
	// read and whether that will ever be sent, and lingers before it closes, so that
	// the peer gets the answer.
	r = r.WithContext(r.Context())
	r.Body = body
	h.Handler.ServeHTTP(w, r)
}

// wholeBody is a request body that notices its end. It belongs to the goroutine
// of its handler.
type wholeBody struct {
	io.ReadCloser
	connection *connection
	working    bool
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.whole()
	}
	return n, err
}

func (b *wholeBody) whole() {
	if !b.working {
		b.working = true
		b.connection.work()
	}
}

func (b *wholeBody) done() {
	if b.working {
		b.connection.rest()
	}
}
