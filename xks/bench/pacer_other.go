//go:build !linux

package bench

import (
	"sync"
	"time"
)

// pacer wakes one goroutine at a given time.
type pacer struct {
	timer       *time.Timer
	interrupted chan struct{}
	once        sync.Once
}

func newPacer() (*pacer, error) {
	return &pacer{timer: time.NewTimer(0), interrupted: make(chan struct{})}, nil
}

// wait returns true after d, or false if the pacer was interrupted.
func (p *pacer) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	p.timer.Reset(d)
	select {
	case <-p.timer.C:
		return true
	case <-p.interrupted:
		return false
	}
}

// interrupt ends a wait under way, and every one that comes after it. It may be
// called from any goroutine.
func (p *pacer) interrupt() { p.once.Do(func() { close(p.interrupted) }) }

// close frees the timer; nobody may be waiting.
func (p *pacer) close() { p.timer.Stop() }
