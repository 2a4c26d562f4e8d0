package xks

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// door is a listener of few connections that bad clients come to, with a handler
// that reads a body and tells its length.
type door struct {
	*Listener
	ca *testCA
}

// openDoor opens a door over TLS or without. Connections are given up as soon as
// others want their places; change may have it otherwise.
func openDoor(t testing.TB, secure bool, change func(*ListenerOptions)) *door {
	t.Helper()
	options := ListenerOptions{Logger: slog.New(slog.DiscardHandler), Connections: 4}
	d := &door{ca: newTestCA(t)}
	if secure {
		options.TLS = &TLSOptions{Certificate: d.ca.issue(t, "localhost")}
	}
	if change != nil {
		change(&options)
	}
	d.Listener = serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, MaxBody))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
		_, _ = fmt.Fprint(w, n)
	}), options)
	d.open.mu.Lock()
	d.open.patience = 0
	d.open.mu.Unlock()
	return d
}

// dial opens a connection, with the handshake done, which the test ends.
func (d *door) dial(t testing.TB, protocols ...string) net.Conn {
	t.Helper()
	conn := d.dialRaw(t)
	if d.tls.Load() == nil {
		return conn
	}
	secure := tls.Client(conn, &tls.Config{RootCAs: d.ca.pool, ServerName: "localhost", NextProtos: protocols})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	return secure
}

func (d *door) dialRaw(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask makes a request of a connection and returns the error of doing so.
func ask(conn net.Conn) error {
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err == nil && string(content) != "2" {
		err = fmt.Errorf("answer %q", content)
	}
	return err
}

// serves demands that a good client is served now, on a connection of its own.
func (d *door) serves(t testing.TB) {
	t.Helper()
	conn := d.dial(t)
	if err := ask(conn); err != nil {
		t.Fatalf("others are not served: %v", err)
	}
	_ = conn.Close() // read to its end
}

// closes returns when the server has ended the connection, whatever it sent. The
// error does not matter: what was cut off may have been half a record.
func closes(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// closes returns when the server has ended n of the connections.
func (d *door) closes(n int, conns []net.Conn) {
	closed := make(chan struct{}, len(conns))
	for _, conn := range conns {
		go func() { closes(conn); closed <- struct{}{} }()
	}
	for range n {
		<-closed
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	for range len(conns) - n {
		<-closed
	}
}

// Bad clients take all places, and more of them come. Good clients are served all
// the same, and what the bad ones have is closed: by being given up for others, or
// by a timeout.
func TestBadClients(t *testing.T) {
	const header = "POST / HTTP/1.1\r\nHost: x\r\n"
	for name, bad := range map[string]string{
		"silent":      "",
		"slow header": header + "X-Slow: ",
		"slow body":   header + "Content-Length: 100\r\n\r\nslow",
		"slow chunk":  header + "Transfer-Encoding: chunked\r\n\r\n5\r\nsl",
		"never reads": strings.Repeat(header+"Content-Length: 0\r\n\r\n", 1000),
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,TLS=%t", name, secure), func(t *testing.T) {
				d := openDoor(t, secure, nil)
				var conns []net.Conn
				for range 10 {
					conn := d.dial(t)
					_, _ = io.WriteString(conn, bad) // it may be closed already
					conns = append(conns, conn)
				}
				d.serves(t)
				if s := d.Connections(); s.Open > 4 || s.GivenUp < 7 || s.Refused > 0 {
					t.Errorf("%+v, want at most 4 open, at least 7 given up", s)
				}
				d.closes(7, conns)
			})
		}
	}
}

// Clients that are slow are cut off although nobody wants their places.
func TestSlowClientsTimeOut(t *testing.T) {
	const header = "POST / HTTP/1.1\r\nHost: x\r\n"
	for name, bad := range map[string]string{
		"slow header": header + "X-Slow: ",
		"slow body":   header + "Content-Length: 100\r\n\r\nslow",
		"slow chunk":  header + "Transfer-Encoding: chunked\r\n\r\n5\r\nsl",
		"idle":        header + "Content-Length: 0\r\n\r\n",
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,TLS=%t", name, secure), func(t *testing.T) {
				d := openDoor(t, secure, func(o *ListenerOptions) {
					o.ReadTimeout, o.IdleTimeout = 50*time.Millisecond, 50*time.Millisecond
				})
				conn := d.dial(t)
				if _, err := io.WriteString(conn, bad); err != nil {
					t.Fatal(err)
				}
				closes(conn)
				d.serves(t)
			})
		}
	}
}

// endless is a body that does not end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body without an end is answered after the documented maximum, and its
// connection closed, or its stream.
func TestEndlessBody(t *testing.T) {
	d := openDoor(t, true, nil)
	for _, http2 := range []bool{false, true} {
		client := (&proxy{roots: d.ca.pool}).client(t, http2)
		r, err := http.NewRequest(http.MethodPost, "https://"+d.Addr().String(), endless{})
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("HTTP/2 %t: %s", http2, response.Status)
		}
		_ = response.Body.Close()
		d.serves(t)
	}
}

// A client that waits to be told to go on with its body, and is refused instead, gets
// the refusal without sending the body.
func TestRefusedBeforeTheBody(t *testing.T) {
	l := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
	}), ListenerOptions{Logger: slog.New(slog.DiscardHandler), ReadTimeout: time.Hour})
	conn := (&door{Listener: l}).dialRaw(t)
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusTooManyRequests {
		t.Error(response.Status)
	}
	_ = response.Body.Close()
}

// A client whose handshake goes nowhere does not keep others from theirs.
func TestHalfHandshakes(t *testing.T) {
	d := openDoor(t, true, func(o *ListenerOptions) { o.Connections = 100 })
	d.open.mu.Lock()
	d.open.handshakesLimit = 3
	d.open.mu.Unlock()
	var conns []net.Conn
	for range 10 {
		conn := d.dialRaw(t)
		if _, err := conn.Write([]byte{22, 3, 1}); err != nil { // of a ClientHello
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	d.serves(t)
	d.closes(8, conns)
	d.isEmpty()
	if s := d.Connections(); s.GivenUp != 8 || s.HandshakeFailures != 2 {
		t.Errorf("%+v, want 8 given up and 2 failed", s)
	}
	// Those that are young are let be, and new ones refused.
	d.open.mu.Lock()
	d.open.patience = time.Hour
	d.open.mu.Unlock()
	for range 3 {
		_ = d.dialRaw(t)
	}
	closes(d.dialRaw(t))
	if s := d.Connections(); s.Refused != 1 || s.GivenUp != 8 {
		t.Errorf("%+v, want one refused", s)
	}
}

// isEmpty returns when no connection is left.
func (d *door) isEmpty() {
	for d.Connections().Open > 0 {
		runtime.Gosched() // the other end is just closing it
	}
}

// A connection whose request is worked on is never given up: where all are, a new
// one is closed at once, and served again when one is done.
func TestWorkKeepsItsPlace(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := &door{ca: newTestCA(t)}
	d.Listener = serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		<-leave
		_, _ = fmt.Fprint(w, n)
	}), ListenerOptions{Logger: slog.New(slog.DiscardHandler), Connections: 3, TLS: &TLSOptions{Certificate: d.ca.issue(t, "localhost")}})
	d.open.mu.Lock()
	d.open.patience = 0
	d.open.mu.Unlock()
	var working sync.WaitGroup
	for range 3 {
		conn := d.dial(t)
		working.Go(func() {
			if err := ask(conn); err != nil {
				t.Errorf("a request that was worked on is lost: %v", err)
			}
		})
		<-entered
	}
	for range 5 {
		closes(d.dialRaw(t))
	}
	if s := d.Connections(); s.Refused != 5 || s.GivenUp != 0 || s.Open != 3 {
		t.Errorf("%+v, want 5 refused", s)
	}
	close(leave)
	working.Wait()
	go func() { <-entered }()
	d.serves(t)
}

// Of idle connections the one goes that has been idle for longest.
func TestLongestIdleGoesFirst(t *testing.T) {
	for _, secure := range []bool{false, true} {
		d := openDoor(t, secure, nil)
		var conns []net.Conn
		for range 4 {
			conn := d.dial(t)
			if err := ask(conn); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		if err := ask(conns[0]); err != nil { // it is the youngest now
			t.Fatal(err)
		}
		d.serves(t)
		closes(conns[1])
		for _, i := range []int{0, 2, 3} {
			if err := ask(conns[i]); err != nil {
				t.Errorf("TLS %t: connection %d: %v", secure, i, err)
			}
		}
	}
}

// A thousand idle TLS connections, or as many as there are file descriptors for,
// and beyond the limit: it holds, and requests are answered.
func TestIdleConnections(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	count := int(min(files.Cur/4, 1000)) // both ends are here
	limit := count * 3 / 4
	d := openDoor(t, true, func(o *ListenerOptions) { o.Connections = limit })
	var dialing sync.WaitGroup
	conns, next := make([]net.Conn, count), make(chan int)
	for range 4 {
		dialing.Go(func() {
			for i := range next {
				conns[i] = d.dialIdle(t)
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	dialing.Wait()
	d.serves(t)
	if s := d.Connections(); s.Open > limit || s.GivenUp < uint64(count-limit) {
		t.Errorf("%+v, want at most %d open and at least %d given up", s, limit, count-limit)
	}
	d.closes(count-limit, conns)
}

// dialIdle makes a request on a connection of its own and returns what is below
// TLS, so that the client's side of TLS takes no memory.
func (d *door) dialIdle(t testing.TB, protocols ...string) net.Conn {
	conn := d.dial(t, protocols...)
	if len(protocols) == 0 {
		if err := ask(conn); err != nil {
			t.Error(err)
		}
	}
	return conn.(*tls.Conn).NetConn()
}

// Stats are right again when all connections have ended.
func TestConnectionsAreForgotten(t *testing.T) {
	for _, secure := range []bool{false, true} {
		d := openDoor(t, secure, func(o *ListenerOptions) { o.IdleTimeout = time.Millisecond })
		for range 8 {
			conn := d.dial(t)
			if err := ask(conn); err != nil {
				t.Fatal(err)
			}
			closes(conn)
		}
		d.isEmpty()
		d.open.mu.Lock()
		if waiting, handshakes := d.open.waiting.Len(), d.open.handshakes.Len(); waiting+handshakes > 0 {
			t.Errorf("%d wait and %d are in their handshake, of no connection", waiting, handshakes)
		}
		d.open.mu.Unlock()
	}
}
