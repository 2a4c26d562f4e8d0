//go:build !linux

package xks

import "net"

// setUserTimeout does nothing: only Linux has such a timeout.
func setUserTimeout(*net.TCPConn) {}
