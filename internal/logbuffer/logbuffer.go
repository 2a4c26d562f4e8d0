// Package logbuffer gathers the lines of a log for a moment, so that requests do
// not wait for each other's write.
package logbuffer

import (
	"errors"
	"io"
	"sync"
	"time"
)

const (
	interval = 20 * time.Millisecond // that a line waits at most
	capacity = 64 << 10              // bytes that are gathered at most
)

// Writer passes on what is written to it, whole lines at a time, within 20 ms. A
// process that is killed loses what it was gathering.
type Writer struct {
	out  io.Writer
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex
	lines  []byte // guarded by mu
	closed bool   // guarded by mu
	err    error  // the first that out returned, for the next caller; guarded by mu
}

// New returns a writer to out, which must be closed.
func New(out io.Writer) *Writer {
	w := &Writer{out: out, stop: make(chan struct{}), done: make(chan struct{}), lines: make([]byte, 0, capacity)}
	go w.run()
	return w
}

func (w *Writer) run() {
	defer close(w.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.mu.Lock()
			w.flush()
			w.mu.Unlock()
		case <-w.stop:
			return
		}
	}
}

// Write takes a copy of p. The error is that of an earlier write.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.out.Write(p) // the last words of a process that ends
	}
	if len(w.lines)+len(p) > capacity {
		w.flush()
	}
	w.lines = append(w.lines, p...)
	err := w.err
	w.err = nil
	return len(p), err
}

// flush passes on what was gathered. w.mu is held.
func (w *Writer) flush() {
	if len(w.lines) == 0 {
		return
	}
	if _, err := w.out.Write(w.lines); err != nil {
		w.err = errors.Join(w.err, err)
	}
	w.lines = w.lines[:0]
}

// Close passes on the rest. Later writes go through without waiting.
func (w *Writer) Close() error {
	close(w.stop)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
	w.closed = true
	return w.err
}
