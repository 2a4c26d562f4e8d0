package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		allow   string
		yes, no string
	}{
		{"public", "8.8.8.8 1.1.1.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
			"127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1 0.0.0.0 :: 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 fe80::1 fe80::1%lo " +
				"fd00:ec2::254 168.63.129.16 100.64.0.1 224.0.0.1 255.255.255.255 ff02::1 ::7f00:1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1::1 2002:a00:1::1 198.18.0.1 fec0::1"},
		{"", "", "8.8.8.8 127.0.0.1 ::1"},
		{"127.0.0.0/8", "127.0.0.1 ::ffff:127.0.0.1 127.9.9.9", "::1 10.0.0.1 8.8.8.8"},
		{"::1", "::1", "::2 127.0.0.1"},
		{"10.1.2.3 public", "10.1.2.3 8.8.8.8", "10.1.2.4 127.0.0.1"},
		{"fe80::/10", "fe80::1%lo fe80::1", "fec0::1"},
		{"0.0.0.0/0", "127.0.0.1 8.8.8.8", "::1"},
		{"xks.example.com", "", "8.8.8.8 127.0.0.1"},
	} {
		a, err := Parse(strings.Fields(tt.allow))
		if err != nil {
			t.Fatal(err)
		}
		for _, ip := range strings.Fields(tt.yes) {
			if err := a.checkAddress(net.JoinHostPort(ip, "443")); err != nil {
				t.Errorf("allow %s: %s: %v", tt.allow, ip, err)
			}
		}
		for _, ip := range strings.Fields(tt.no) {
			if err := a.checkAddress(net.JoinHostPort(ip, "443")); !errors.Is(err, ErrForbidden) {
				t.Errorf("allow %s: %s: %v", tt.allow, ip, err)
			}
		}
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"", "*", "*.example.com", "https://a.example", "a.example:443", "10.0.0.1/8", "10.0.0.0/33", "300.1.2.3", "1.2.3", "fe80::1%lo", "-a", "a_b", "a..b"} {
		if err := Check(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
	for _, s := range []string{"public", "xks", "XKS.Example.com", "xks.example.com.", "3com.example", "10.0.0.0/8", "10.0.0.1", "::1", "fd00::/8"} {
		if err := Check(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// An address is looked at when the connection is made, whatever name led to it, and
// before, so that nothing tells whether somebody listens there.
func TestDialer(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, openPort, _ := net.SplitHostPort(open.Addr().String())
	_, closedPort, _ := net.SplitHostPort(closed.Addr().String())
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Resolver: loopbackResolver(t)}
	dial := func(allow, host, port string) error {
		a, err := Parse(strings.Fields(allow))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := a.Dialer(dialer)(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	for _, host := range []string{"127.0.0.1", "rebound.example", "localhost", "::ffff:127.0.0.1"} {
		first, second := dial("public", host, openPort), dial("public", host, closedPort)
		if !errors.Is(first, ErrForbidden) || !errors.Is(second, ErrForbidden) {
			t.Fatalf("%s: %v, %v", host, first, second)
		}
		if got, want := strings.ReplaceAll(second.Error(), closedPort, openPort), first.Error(); got != want {
			t.Errorf("%s: a closed port is told from an open one: %q, %q", host, got, want)
		}
		var op *net.OpError
		if !errors.As(first, &op) || op.Op != "dial" {
			t.Errorf("%s: %T", host, first)
		}
	}
	for _, allow := range []string{"rebound.example", "Rebound.Example.", "127.0.0.0/8", "127.0.0.1"} {
		if err := dial(allow, "rebound.example", openPort); err != nil {
			t.Errorf("allow %s: %v", allow, err)
		}
	}
	if err := dial("rebound.example", "another.example", openPort); !errors.Is(err, ErrForbidden) {
		t.Errorf("another name of the same address: %v", err)
	}
}

// loopbackResolver finds 127.0.0.1 under every name.
func loopbackResolver(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 512); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(nameAnswer(buf[:n]), from)
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// nameAnswer makes the answer to a question (RFC 1035, section 4).
func nameAnswer(question []byte) []byte {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	end += 5 // the root label, type and class
	out := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
	if binary.BigEndian.Uint16(question[end-4:]) == 1 { // an A record
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return out
}
