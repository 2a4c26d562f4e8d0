package logbuffer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink counts the writes that reach it.
type sink struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	writes int
	wrote  chan struct{}
	err    error
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.buf.Write(p)
}

func TestEveryLineArrivesOnce(t *testing.T) {
	s := &sink{wrote: make(chan struct{}, 1)}
	w := New(s)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 2000 {
				if _, err := fmt.Fprintf(w, "line %d of %d\n", j, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("last words\n")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(s.buf.String(), "\n"), "\n")
	if len(lines) != 16001 || lines[16000] != "last words" {
		t.Fatalf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
	seen := map[string]bool{}
	for _, line := range lines {
		if seen[line] {
			t.Errorf("%q came twice", line)
		}
		seen[line] = true
	}
	if s.writes > 1000 {
		t.Errorf("%d writes", s.writes)
	}
}

// A line that comes while Close writes the last ones is written, too.
func TestLineArrivesDuringClose(t *testing.T) {
	var w *Writer
	var text strings.Builder
	var once sync.Once
	w = New(writerFunc(func(p []byte) (int, error) {
		once.Do(func() { _, _ = w.Write([]byte("second\n")) })
		return text.Write(p)
	}))
	if _, err := w.Write([]byte("first\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if text.String() != "first\nsecond\n" {
		t.Errorf("%q", text.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A line does not wait for the next one.
func TestLineArrivesByItself(t *testing.T) {
	s := &sink{wrote: make(chan struct{}, 1)}
	w := New(s)
	if _, err := w.Write([]byte("alone\n")); err != nil {
		t.Fatal(err)
	}
	<-s.wrote
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestErrorIsTold(t *testing.T) {
	s := &sink{wrote: make(chan struct{}, 1), err: errors.New("disk full")}
	w := New(s)
	if _, err := w.Write([]byte("lost\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("close: %v", err)
	}
}

// An output that is stuck keeps nobody who logs; what does not fit is counted, and
// what does comes when the output goes on.
func TestStuckOutput(t *testing.T) {
	in, out := io.Pipe() // a write waits for a reader
	w := New(out)
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	const lines = 10_000 // more than there is room for
	for range lines {
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if w.Lost() == 0 {
		t.Error("no line is lost although none can have been written")
	}
	lost := w.Lost()
	read := make(chan int)
	go func() {
		text, _ := io.ReadAll(in)
		read <- bytes.Count(text, []byte{'\n'})
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-read; uint64(n)+lost != lines {
		t.Errorf("%d lines came and %d were lost, of %d", n, lost, lines)
	}
}

// fullDisk takes so many bytes, and then none until it has room again.
type fullDisk struct {
	mu   sync.Mutex
	room int
	buf  bytes.Buffer
}

func (d *fullDisk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(p), d.room)
	d.buf.Write(p[:n])
	if d.room -= n; n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A full disk loses lines, which are counted, and no line is glued to half another
// when there is room again.
func TestFullDisk(t *testing.T) {
	d := &fullDisk{room: 20}
	w := New(d)
	for i := range 10 {
		if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	for w.Lost() < 8 { // two lines have room, with 6 bytes of the third
		runtime.Gosched()
	}
	d.mu.Lock()
	d.room = 1000
	d.mu.Unlock()
	if _, err := fmt.Fprintln(w, "room again"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close: %v", err)
	}
	if got, want := d.buf.String(), "line 0\nline 1\nline 2\nroom again\n"; got != want || w.Lost() != 8 {
		t.Errorf("%q and %d lost, want %q and 8", got, w.Lost(), want)
	}
}

// The device that is always full.
func TestDevFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := New(f)
	if _, err := fmt.Fprintln(w, "lost"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, syscall.ENOSPC) || w.Lost() != 1 {
		t.Errorf("%v, %d lost", err, w.Lost())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
