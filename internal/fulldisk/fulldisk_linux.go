// Package fulldisk lets tests write to a disk without room: the limit of a file's
// size fails a write as a full disk does, and needs neither a disk nor privileges.
package fulldisk

import (
	"os/signal"
	"syscall"
	"testing"
)

// Limit has writes of this process beyond so many bytes of a file fail with EFBIG
// until the function that it returns is called, or the test ends.
func Limit(tb testing.TB, bytes uint64) (lift func()) {
	tb.Helper()
	signal.Ignore(syscall.SIGXFSZ) // which would end the process
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		tb.Fatal(err)
	}
	set := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			tb.Fatal(err)
		}
	}
	lift = func() { set(before) }
	tb.Cleanup(lift)
	set(syscall.Rlimit{Cur: bytes, Max: before.Max})
	return lift
}
