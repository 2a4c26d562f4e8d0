//go:build unix

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// processCPU returns the processor time that this process has used.
func processCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot happen; a report without the figure is still one
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
