package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/internal/selfsigned"
)

// socketRate is how many requests a second a server answers over connections
// that are kept; config nil: without TLS. The client does as little as it can, and the same
// for every server: it writes requests that were made before, and reads answers
// by their Content-Length.
func socketRate(ctx context.Context, address string, config *tls.Config, requests []request, length time.Duration) (tally, error) {
	n, err := parallel(connections, length, func(worker int, more func() bool) error {
		conn, err := dial(ctx, address, config)
		if err != nil {
			return err
		}
		answers := bufio.NewReader(conn)
		for i := worker; more(); i++ {
			if err := exchange(conn, answers, requests[i%len(requests)].wire); err != nil {
				return errors.Join(err, conn.Close())
			}
		}
		return conn.Close()
	})
	return n, err
}

func dial(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	dialer := tls.Dialer{Config: config}
	return dialer.DialContext(ctx, "tcp", address)
}

func exchange(conn net.Conn, answers *bufio.Reader, wire []byte) error {
	if _, err := conn.Write(wire); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answered %q", line)
		}
		if len(line) == 0 {
			break
		}
		if name, value, ok := strings.Cut(string(line), ": "); ok && strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(value); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("answered without Content-Length")
	}
	_, err := answers.Discard(length)
	return err
}

// server is an HTTP server on a port of its own.
type server struct {
	inner  net.Listener
	server *http.Server
	done   chan error
}

// cannedSize is the size of an Encrypt answer of the proxy with CDIV for 32 bytes.
const cannedSize = 277

// newBareServer serves a handler that reads the request and answers bytes of the
// size of our answers, over TLS; certificate "": without.
func newBareServer(size int, contentType, certificate, key string) (*server, error) {
	canned := bytes.Repeat([]byte{'x'}, size)
	return serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(canned) // the client tells if this fails
	}), certificate, key)
}

// serve serves a handler over TLS; certificate "": without.
func serve(h http.Handler, certificate, key string) (*server, error) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{inner: inner, done: make(chan error, 1), server: &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: h}}
	go func() {
		if certificate == "" {
			s.done <- s.server.Serve(inner)
		} else {
			s.done <- s.server.ServeTLS(inner, certificate, key)
		}
	}()
	return s, nil
}

func (s *server) addr() string { return s.inner.Addr().String() }

func (s *server) close() error {
	err := s.server.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// certificate makes a certificate in dir and returns how clients trust it.
func certificate(dir string) (*tls.Config, error) {
	if err := selfsigned.Write(dir, []string{"localhost", "127.0.0.1"}, time.Now()); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the authority's certificate cannot be read")
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}, nil
}
