package logfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/logfile"
)

// log is a log file in a folder, and the lines that were written to it.
type log struct {
	t    *testing.T
	dir  string
	file *logfile.File
	n    int
}

func newLog(t *testing.T) *log {
	l := &log{t: t, dir: filepath.Join(t.TempDir(), "folder")}
	l.must(os.Mkdir(l.dir, 0o700))
	var err error
	l.file, err = logfile.Open(l.path("log"))
	l.must(err)
	t.Cleanup(func() { l.must(l.file.Close()) })
	return l
}

func (l *log) path(name string) string { return filepath.Join(l.dir, name) }

func (l *log) must(errs ...error) {
	l.t.Helper()
	if err := errors.Join(errs...); err != nil {
		l.t.Fatal(err)
	}
}

// write writes the next line: "1", "2" and so on.
func (l *log) write() error {
	l.n++
	_, err := fmt.Fprintln(l.file, l.n)
	return err
}

func (l *log) expect(name, want string) {
	l.t.Helper()
	if text, err := os.ReadFile(l.path(name)); err != nil || string(text) != want {
		l.t.Errorf("%s has %q, want %q: %v", name, text, want, err)
	}
}

// As logrotate does it: a rename, another file, perhaps a signal.
func TestRotation(t *testing.T) {
	l := newLog(t)
	l.must(l.write(), os.Rename(l.path("log"), l.path("log.1")), l.write())
	l.expect("log.1", "1\n2\n") // nobody has said what comes in its place
	l.must(os.WriteFile(l.path("log"), nil, 0o640), l.write())
	l.expect("log.1", "1\n2\n")
	l.expect("log", "3\n")
	l.must(os.Rename(l.path("log"), l.path("log.2")))
	l.file.Reopen()
	l.must(l.write())
	l.expect("log.2", "3\n")
	l.expect("log", "4\n")
	l.file.Reopen() // for nothing
	l.must(l.write(), os.Truncate(l.path("log"), 0), l.write())
	l.expect("log", "6\n") // with copytruncate
}

func TestDeletedFile(t *testing.T) {
	l := newLog(t)
	l.must(l.write(), os.Remove(l.path("log")), l.write())
	l.expect("log", "2\n")
	l.must(os.Rename(l.dir, l.dir+".away"), os.Remove(filepath.Join(l.dir+".away", "log")))
	if err := l.write(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a line for a file that nobody can read: %v", err)
	}
	l.must(os.Rename(l.dir+".away", l.dir), l.write())
	l.expect("log", "4\n")
}

// Where the new file cannot be made the renamed one takes the lines.
func TestNoNewFile(t *testing.T) {
	l := newLog(t)
	l.must(l.write(), os.Rename(l.path("log"), l.path("log.1")), os.Mkdir(l.path("log"), 0o700))
	l.file.Reopen()
	l.must(l.write())
	l.expect("log.1", "1\n2\n")
	l.must(os.Remove(l.path("log")), l.write())
	l.expect("log", "3\n")
}

func TestFullDisk(t *testing.T) {
	full, err := logfile.Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Write([]byte("x")); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Error(err)
	}
	if err := full.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := logfile.Open(filepath.Join(t.TempDir(), "none", "log")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	null, err := logfile.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := null.Write([]byte("x")); n != 1 || err != nil {
		t.Error(n, err)
	}
	if err := null.Close(); err != nil {
		t.Error(err)
	}
}
