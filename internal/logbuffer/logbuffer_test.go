package logbuffer

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
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
