package tokentest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// Faulty is a PKCS#11 module that forwards to SoftHSM2 and behaves otherwise
// where it is told to; testdata/faultymodule/faultymodule.c says how. Each is
// independent of the others and of SoftHSM2 itself in the same process.
type Faulty struct {
	Path string

	sets atomic.Int64
}

// Names of Faulty.Count that are no functions.
const (
	OpenSessions = "open-sessions" // now
	PeakSessions = "peak-sessions" // at most at any time
	HangingCalls = "hanging-calls" // now
)

// NewFaulty returns a module of its own that only forwards, until Set.
func NewFaulty(tb testing.TB) *Faulty {
	tb.Helper()
	library, err := buildFaulty()
	if err != nil {
		tb.Fatal(err)
	}
	m := &Faulty{Path: filepath.Join(tb.TempDir(), "faulty.so")}
	if err := os.WriteFile(m.Path, library, 0o700); err != nil {
		tb.Fatal(err)
	}
	softhsm2, err := os.ReadFile(Module(tb))
	if err != nil {
		tb.Fatal(err)
	}
	// A copy: a link would be the library that other modules use too.
	if err := os.WriteFile(m.Path+".real", softhsm2, 0o700); err != nil {
		tb.Fatal(err)
	}
	m.Set(tb)
	return m
}

// Token initializes a token, by SoftHSM2 itself, and returns its URI with this
// module's path.
func (m *Faulty) Token(tb testing.TB, ms *keystore.Modules) keystore.URI {
	tb.Helper()
	u := NewToken(tb, ms)
	u.ModulePath = m.Path
	return u
}

// Set replaces all that the module was told. It holds for each call that begins
// after Set has returned.
func (m *Faulty) Set(tb testing.TB, behaviours ...string) {
	tb.Helper()
	n := m.sets.Add(1)
	next := fmt.Sprintf("%s.control.%d", m.Path, n)
	if err := os.WriteFile(next, []byte(strings.Join(behaviours, "\n")+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	// The module knows a new file by its time, which the clock is too coarse for.
	at := time.Unix(n, 0)
	if err := errors.Join(os.Chtimes(next, at, at), os.Rename(next, m.Path+".control")); err != nil {
		tb.Fatal(err)
	}
}

// Count returns how often a function of the module was called in all, or the
// number of sessions or of hanging calls.
func (m *Faulty) Count(tb testing.TB, name string) int {
	tb.Helper()
	data, err := os.ReadFile(m.Path + ".counts")
	if errors.Is(err, os.ErrNotExist) {
		return 0 // it was never loaded
	} else if err != nil {
		tb.Fatal(err)
	}
	const size = 64
	for ; len(data) >= size; data = data[size:] {
		if record, _, _ := bytes.Cut(data[:size-8], []byte{0}); string(record) == name {
			return int(binary.NativeEndian.Uint64(data[size-8:]))
		}
	}
	tb.Fatalf("the module does not count %s", name)
	return 0
}

// buildFaulty compiles the module once in a process.
var buildFaulty = sync.OnceValues(func() (library []byte, err error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hyok-faulty-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "faulty.so")
	source := filepath.Join(root, "testdata", "faultymodule", "faultymodule.c")
	cmd := exec.Command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", out, source, "-ldl")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the faulty module (a C compiler is needed): %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// moduleRoot returns the folder of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
