// Package logbuffer gathers the lines of a log for a moment, so that requests do
// not wait for each other's write, nor for a disk or a reader that is stuck.
package logbuffer

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	interval = 20 * time.Millisecond // that a line waits at most
	capacity = 64 << 10              // bytes that are gathered at most while the output takes them
	// limit is the most bytes that wait while the output takes none.
	limit   = 4 << 20
	patient = time.Second // that Close waits for an output that is stuck
)

// errStuck is of Close.
var errStuck = errors.New("the log's output is stuck; its last lines are lost")

// Writer passes on what is written to it, whole lines at a time, within 20 ms. A
// process that is killed loses what it was gathering. Lines that the output does
// not take, since it fails or is stuck, are lost and counted: a service that cannot
// log goes on, and logs again as soon as it can.
type Writer struct {
	out  io.Writer
	stop chan struct{}
	done chan struct{}
	wake chan struct{} // has room for one; that capacity was reached
	lost atomic.Uint64 // lines

	mu     sync.Mutex
	lines  []byte // guarded by mu
	closed bool   // guarded by mu
	err    error  // the newest that out returned; guarded by mu

	spare  []byte // the other buffer; of the goroutine of run
	broken bool   // half a line was written; of the goroutine of run
}

// New returns a writer to out, which must be closed.
func New(out io.Writer) *Writer {
	w := &Writer{
		out: out, stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		lines: make([]byte, 0, capacity), spare: make([]byte, 0, capacity),
	}
	go w.run()
	return w
}

// Lost returns how many lines were lost.
func (w *Writer) Lost() uint64 { return w.lost.Load() }

func (w *Writer) run() {
	defer close(w.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-w.wake:
		case <-w.stop:
			w.flush()
			return
		}
		w.flush()
	}
}

// Write takes a copy of p, which is a whole line. It waits for nothing, and does
// not fail: a line for which there is no room is lost.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.out.Write(p) // the last words of a process that ends
	}
	if len(w.lines)+len(p) > limit {
		w.lost.Add(1)
		return len(p), nil
	}
	w.lines = append(w.lines, p...)
	if len(w.lines) > capacity {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

// flush passes on what was gathered, while more is.
func (w *Writer) flush() {
	w.mu.Lock()
	taken := w.lines
	w.lines = w.spare[:0]
	w.mu.Unlock()
	err := w.pass(taken)
	if w.spare = taken[:0]; cap(taken) > 2*capacity {
		w.spare = make([]byte, 0, capacity) // a burst is over
	}
	if err != nil {
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
	}
}

// pass writes lines and counts those that were not written whole.
func (w *Writer) pass(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if w.broken {
		if _, err := w.out.Write([]byte{'\n'}); err != nil {
			w.lost.Add(uint64(bytes.Count(lines, []byte{'\n'})))
			return err
		}
		w.broken = false
	}
	n, err := w.out.Write(lines)
	if err == nil {
		return nil
	}
	w.lost.Add(uint64(bytes.Count(lines[n:], []byte{'\n'})))
	w.broken = n > 0 && lines[n-1] != '\n'
	return err
}

// Close passes on the rest, for which it waits a second at most. Later writes go
// through without waiting. The error is the newest of the output.
func (w *Writer) Close() error {
	close(w.stop)
	select {
	case <-w.done:
	case <-time.After(patient):
		return errStuck
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if err := w.pass(w.lines); err != nil { // what came after the last flush
		w.err = err
	}
	w.lines = nil
	return w.err
}
