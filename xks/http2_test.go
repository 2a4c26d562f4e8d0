package xks

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
)

// The frames of HTTP/2 that the tests make (RFC 9113, section 6).
const (
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	framePing     = 6
	frameGoAway   = 7

	flagEndStream  = 1
	flagEndHeaders = 4
)

// frame makes a frame.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	out = append(out, flags)
	out = binary.BigEndian.AppendUint32(out, stream)
	return append(out, payload...)
}

// readFrame reads a frame.
func readFrame(r io.Reader) (kind byte, stream uint32, payload []byte, err error) {
	var header [9]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, 0, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint32(header[:])>>8)
	_, err = io.ReadFull(r, payload)
	return header[3], binary.BigEndian.Uint32(header[5:]), payload, err
}

// dialHTTP2 opens a connection that has agreed on HTTP/2 and sent its settings.
func (d *door) dialHTTP2(t testing.TB) net.Conn {
	t.Helper()
	conn := d.dial(t, "h2")
	if _, err := conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// requestHeaders is GET https://x/ in HPACK: three of the static table, one literal.
func requestHeaders() []byte { return append([]byte{0x82, 0x87, 0x84, 0x41, 1}, 'x') }

// floods sends what next makes until the server has enough, and returns the error
// code of its GOAWAY frame; -1 where it hung up without.
func floods(conn net.Conn, next func(i uint32) []byte) int {
	code := make(chan int, 1)
	go func() {
		for {
			kind, _, payload, err := readFrame(conn)
			if err != nil {
				code <- -1
				return
			}
			if kind == frameGoAway {
				code <- int(binary.BigEndian.Uint32(payload[4:]))
				return
			}
		}
	}()
	for i := uint32(0); ; i++ {
		if _, err := conn.Write(next(i)); err != nil {
			return <-code
		}
		select {
		case c := <-code:
			return c
		default:
		}
	}
}

// A client that begins streams and resets them, to have the server work for
// nothing, loses its connection; no more handlers run for it than it may have
// streams. Others are served meanwhile.
func TestRapidReset(t *testing.T) {
	leave := make(chan struct{})
	running := make(chan struct{}, 100*maxStreams)
	d := &door{ca: newTestCA(t)}
	d.Listener = serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.ProtoMajor == 2 {
			running <- struct{}{}
			<-leave
		}
		_, _ = fmt.Fprint(w, n)
	}), ListenerOptions{Logger: slog.New(slog.DiscardHandler), TLS: &TLSOptions{Certificate: d.ca.issue(t, "localhost")}})
	conn := d.dialHTTP2(t)
	code := floods(conn, func(i uint32) []byte {
		stream := 2*i + 1
		return append(frame(frameHeaders, flagEndStream|flagEndHeaders, stream, requestHeaders()), frame(frameReset, 0, stream, []byte{0, 0, 0, 8})...)
	})
	const enhanceYourCalm = 11
	if code != enhanceYourCalm && code != -1 {
		t.Errorf("GOAWAY with error code %d", code)
	}
	d.serves(t)
	if n := len(running); n == 0 || n > maxStreams {
		t.Errorf("%d handlers ran at once, want at most %d", n, maxStreams)
	}
	close(leave)
}

// A client that has the server answer pings, and takes no answer, loses its
// connection.
func TestPingFlood(t *testing.T) {
	d := openDoor(t, true, nil)
	conn := d.dialHTTP2(t)
	ping := frame(framePing, 0, 0, make([]byte, 8))
	for {
		if _, err := conn.Write(ping); err != nil {
			break // the server has hung up
		}
	}
	d.serves(t)
}

// A client that may have no more streams at once is told how many.
func TestStreamLimit(t *testing.T) {
	d := openDoor(t, true, nil)
	kind, _, payload, err := readFrame(d.dialHTTP2(t))
	if err != nil || kind != frameSettings {
		t.Fatalf("frame %d, %v", kind, err)
	}
	settings := map[uint16]uint32{}
	for ; len(payload) >= 6; payload = payload[6:] {
		settings[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
	}
	const maxConcurrentStreams, maxFrameSize = 3, 5
	if settings[maxConcurrentStreams] != maxStreams || settings[maxFrameSize] != frameBytes {
		t.Errorf("settings %v", settings)
	}
}
