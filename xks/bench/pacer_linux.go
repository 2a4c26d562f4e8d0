package bench

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pacer wakes one goroutine at a given time. The runtime's own timers are late
// by up to a millisecond on an idle machine, as the runtime waits for the next
// one in whole milliseconds: as much as a proxy needs for an answer. A timer
// of the kernel, awaited like network input, is late by some 50 µs.
type pacer struct {
	fd   int
	file *os.File
}

func newPacer() (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &pacer{fd: fd, file: os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns true after d, or false if the pacer was interrupted.
func (p *pacer) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if err := unix.TimerfdSettime(p.fd, 0, &spec, nil); err != nil {
		return false
	}
	var expirations [8]byte
	_, err := p.file.Read(expirations[:])
	return err == nil
}

// interrupt ends a wait under way, and every one that comes after it. It may be
// called from any goroutine.
func (p *pacer) interrupt() {
	// Fails only for a closed file, on which nobody waits.
	_ = p.file.SetReadDeadline(time.Unix(1, 0))
}

// close frees the timer; nobody may be waiting.
func (p *pacer) close() {
	_ = p.file.Close() // nothing was written
}
