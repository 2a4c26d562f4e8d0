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

// socketRate is how many requests a second a server answers over TLS
// connections that are kept. The client does as little as it can, and the same
// for every server: it writes requests that were made before, and reads answers
// by their Content-Length.
func socketRate(ctx context.Context, address string, config *tls.Config, requests []request, length time.Duration) (float64, error) {
	n, took, err := parallel(connections, length, func(worker int, more func() bool) error {
		dialer := tls.Dialer{Config: config}
		conn, err := dialer.DialContext(ctx, "tcp", address)
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
	return float64(n) / took.Seconds(), err
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

// bareServer is net/http over TLS with a handler that reads the request and
// answers bytes of the size of our answers.
type bareServer struct {
	inner  net.Listener
	server *http.Server
	done   chan error
}

// cannedSize is the size of an Encrypt answer with CDIV for 32 bytes.
const cannedSize = 277

func newBareServer(dir string) (*bareServer, error) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	canned := bytes.Repeat([]byte{'x'}, cannedSize)
	b := &bareServer{inner: inner, done: make(chan error, 1), server: &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(canned) // the client tells if this fails
		}),
	}}
	go func() {
		b.done <- b.server.ServeTLS(inner, filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	}()
	return b, nil
}

func (b *bareServer) addr() string { return b.inner.Addr().String() }

func (b *bareServer) close() error {
	err := b.server.Close()
	if served := <-b.done; !errors.Is(served, http.ErrServerClosed) {
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
