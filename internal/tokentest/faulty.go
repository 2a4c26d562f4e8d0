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
// where it is told to; testdata/faultymodule/README.md says how. Each is
// independent of the others and of SoftHSM2 itself in the same process.
type Faulty struct {
	Path string

	check checker
	sets  atomic.Int64
}

// Names of Faulty.Count that are no functions.
const (
	OpenSessions     = "open-sessions" // now
	PeakSessions     = "peak-sessions" // at most at any time
	HangingCalls     = "hanging-calls" // now
	PeakParallel     = "peak-parallel" // crypto calls inside, while there were rules
	FailedCalls      = "failed-calls"  // by a rule or by the module's state
	DelayedCalls     = "delayed-calls"
	CorruptedOutputs = "corrupted-outputs"
)

// NewFaulty returns a module of its own that only forwards, until Set.
func NewFaulty(tb testing.TB) *Faulty {
	tb.Helper()
	built, err := buildFaulty()
	if err != nil {
		tb.Fatal(err)
	}
	m := &Faulty{Path: filepath.Join(tb.TempDir(), "faulty.so"), check: built.check}
	if err := os.WriteFile(m.Path, built.library, 0o700); err != nil {
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
	tb.Cleanup(func() {
		if why, err := os.ReadFile(m.Path + ".error"); err == nil {
			tb.Errorf("the control file of the faulty module: %s", why)
		}
	})
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
// after Set has returned. What the module would not understand fails the test.
func (m *Faulty) Set(tb testing.TB, behaviours ...string) {
	tb.Helper()
	text := strings.Join(behaviours, "\n") + "\n"
	if err := m.check.Check(text); err != nil {
		tb.Fatal(err)
	}
	n := m.sets.Add(1)
	next := fmt.Sprintf("%s.control.%d", m.Path, n)
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	// The module knows a new file by its time, which the clock is too coarse for.
	at := time.Unix(n, 0)
	if err := errors.Join(os.Chtimes(next, at, at), os.Rename(next, m.Path+".control"), m.announce(n)); err != nil {
		tb.Fatal(err)
	}
}

// Where the first record of NAME.counts has its number, and the size of each.
const (
	countNumber = 56
	countRecord = 64
)

// announce has the module look at its control file at the next call.
func (m *Faulty) announce(n int64) error {
	f, err := os.OpenFile(m.Path+".counts", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(n)), countNumber)
	return errors.Join(err, f.Close())
}

// Count returns how often a function of the module was called in all, or the
// number of sessions or of hanging calls.
func (m *Faulty) Count(tb testing.TB, name string) int {
	tb.Helper()
	data, err := os.ReadFile(m.Path + ".counts")
	if err != nil {
		tb.Fatal(err)
	}
	if len(data) == countRecord {
		return 0 // it was never loaded: only Set has written there
	}
	for ; len(data) >= countRecord; data = data[countRecord:] {
		if record, _, _ := bytes.Cut(data[:countNumber], []byte{0}); string(record) == name {
			return int(binary.NativeEndian.Uint64(data[countNumber:]))
		}
	}
	tb.Fatalf("the module does not count %s", name)
	return 0
}

// faultyBuild is the compiled module, and what it says of control files.
type faultyBuild struct {
	library []byte
	check   checker
}

// buildFaulty compiles the module once in a process.
var buildFaulty = sync.OnceValues(func() (b faultyBuild, err error) {
	root, err := moduleRoot()
	if err != nil {
		return b, err
	}
	dir, err := os.MkdirTemp("", "hyok-faulty-")
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "faulty.so")
	sources, err := filepath.Glob(filepath.Join(root, "testdata", "faultymodule", "*.c"))
	if err != nil {
		return b, err
	}
	args := append([]string{"-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", out}, sources...)
	if text, err := exec.Command("cc", append(args, "-ldl")...).CombinedOutput(); err != nil {
		return b, fmt.Errorf("compile the faulty module (a C compiler is needed): %w\n%s", err, text)
	}
	if b.check, err = loadChecker(out); err != nil {
		return b, err
	}
	b.library, err = os.ReadFile(out)
	return b, err
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
