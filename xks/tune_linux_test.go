package xks

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel is told to find out about peers that are gone without a word. That
// it does so is the kernel's affair.
func TestHalfOpenConnections(t *testing.T) {
	d := openDoor(t, false, nil)
	conn := d.dialRaw(t)
	if err := ask(conn); err != nil { // then it is tuned
		t.Fatal(err)
	}
	d.open.mu.Lock()
	defer d.open.mu.Unlock()
	for c := range d.open.open {
		raw, err := c.Conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			for _, option := range []struct{ level, name, want int }{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
				{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
				{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
				{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout},
			} {
				if got, err := unix.GetsockoptInt(int(fd), option.level, option.name); err != nil || got != option.want {
					t.Errorf("option %d/%d is %d, %v, want %d", option.level, option.name, got, err, option.want)
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	if len(d.open.open) != 1 {
		t.Errorf("%d connections, want 1", len(d.open.open))
	}
}
