package xks

import (
	"net"

	"golang.org/x/sys/unix"
)

// userTimeout is how long, in milliseconds, what was sent may go without an
// acknowledgement (RFC 5482) before the kernel gives the connection up. Without
// it, retransmissions to a peer that is gone take a quarter of an hour.
const userTimeout = 30_000

// setUserTimeout does what it can: a connection without is closed later.
func setUserTimeout(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
}
