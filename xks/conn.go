package xks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// plainListener accepts connections without TLS.
type plainListener struct {
	net.Listener
	answer malformed
}

func (l plainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return jsonConn{conn, l.answer}, nil
}

// tlsListener accepts connections with the TLS handshake done. net/http would
// do it too, but would then write its own error answers to the connection.
type tlsListener struct {
	inner    admitting
	config   *tls.Config
	logger   *slog.Logger
	answer   malformed
	accepted chan accepted // by run and handshake, for Accept
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup // run and its handshakes
}

type accepted struct {
	conn net.Conn
	err  error
}

// newTLSListener starts to accept. current is what new connections use.
func newTLSListener(inner admitting, current *atomic.Pointer[tls.Config], logger *slog.Logger, answer malformed) *tlsListener {
	l := &tlsListener{
		inner:    inner,
		logger:   logger,
		answer:   answer,
		accepted: make(chan accepted),
		config: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
		},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.run)
	return l
}

func (l *tlsListener) Addr() net.Addr { return l.inner.Addr() }

// Accept returns the next connection whose handshake is done.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends run and all handshakes and waits for them.
func (l *tlsListener) Close() error {
	l.cancel()
	err := l.inner.Close()
	l.running.Wait()
	return err
}

// run hands errors to Accept, whose caller knows which of them to wait after.
func (l *tlsListener) run() {
	for {
		conn, err := l.inner.Accept()
		if err == nil {
			l.begin(conn.(*connection)) // as all of an admitting listener are
			continue
		}
		if !l.hand(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// hand gives Accept its next result, unless the listener is closed first.
func (l *tlsListener) hand(a accepted) bool {
	select {
	case l.accepted <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// begin begins a handshake, unless there are too many.
func (l *tlsListener) begin(raw *connection) {
	all := l.inner.connections
	if all.beginHandshake(raw) {
		l.running.Go(func() { l.handshake(raw) })
		return
	}
	all.refuse(raw)
}

func (l *tlsListener) handshake(raw *connection) {
	conn := tls.Server(raw, l.config)
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	l.inner.connections.endHandshake(raw, err != nil && isEvent(err))
	if err != nil {
		l.refused(raw, err)
		return
	}
	var ready net.Conn = conn
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		ready = jsonTLSConn{jsonConn{conn, l.answer}, conn}
	}
	if !l.hand(accepted{conn: ready}) {
		// Nothing was asked on it yet.
		_ = conn.Close()
	}
}

func (l *tlsListener) refused(raw net.Conn, err error) {
	defer func() { _ = raw.Close() }() // it is given up either way
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader) {
		_ = raw.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = raw.Write(l.answer.bytes("This port speaks HTTPS: use https in the URL."))
	}
	if isEvent(err) {
		l.logger.Info("TLS handshake failed", "remote", raw.RemoteAddr().String(), "error", err.Error())
	}
}

// isEvent reports whether a handshake failed by what the peer did. A load balancer
// goes without a word when it only wants to know whether somebody listens; and
// connections are closed from this side, which is counted elsewhere.
func isEvent(err error) bool { return !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) }

func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// jsonConn replaces the error answers that net/http writes by itself, before
// any handler, by JSON.
type jsonConn struct {
	net.Conn
	answer malformed
}

func (c jsonConn) Write(p []byte) (int, error) {
	if !isCanned(p) {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(c.answer.bytes("The HTTP request is malformed or its headers are too large.")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite lets net/http end a connection without losing its last answer.
func (c jsonConn) CloseWrite() error { return closeWrite(c.Conn) }

// jsonTLSConn shows net/http the state of the TLS connection inside.
type jsonTLSConn struct {
	jsonConn
	conn *tls.Conn
}

func (c jsonTLSConn) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }

// isCanned reports whether p is an error answer of net/http's own: those have
// a body of plain text, or, of an Expect header that it does not know, none.
// Our answers have JSON, and continue with nothing like a status line when
// they take several writes.
func isCanned(p []byte) bool {
	const statusAt = len("HTTP/1.1 ")
	if len(p) < statusAt+3 || !bytes.HasPrefix(p, []byte("HTTP/1.")) || p[statusAt] != '4' && p[statusAt] != '5' {
		return false
	}
	return string(p[statusAt:statusAt+3]) == "417" ||
		bytes.Contains(p, []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"))
}

// malformed makes the body of an answer to what is no proper request, and its
// media type.
type malformed func(message string) (mediaType string, body []byte)

func malformedRequest(message string) (string, []byte) {
	return "application/json", appendError(nil, refuse(ValidationException, "%s", message))
}

// bytes is the whole HTTP/1.1 answer.
func (m malformed) bytes(message string) []byte {
	mediaType, body := m(message)
	return fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		mediaType, len(body), body)
}
