package xks

import (
	"net"
	"time"
)

// tune has the kernel find out within about 30 seconds that a peer is gone
// without a word.
func tune(conn net.Conn) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	// Where the kernel refuses, a connection is closed by the idle timeout.
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	setUserTimeout(c)
}
