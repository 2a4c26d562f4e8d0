package secretfile_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/secretfile"
)

// file is the description of a file that belongs to anybody.
type file struct {
	mode     fs.FileMode
	uid, gid uint32
}

func (f file) Name() string       { return "secret" }
func (f file) Size() int64        { return 0 }
func (f file) Mode() fs.FileMode  { return f.mode }
func (f file) ModTime() time.Time { return time.Time{} }
func (f file) IsDir() bool        { return false }
func (f file) Sys() any           { return &syscall.Stat_t{Uid: f.uid, Gid: f.gid} }

func TestCheck(t *testing.T) {
	const user, stranger = 4711, 4712
	own := uint32(os.Getegid())
	for _, test := range []struct {
		file file
		good bool
	}{
		{file{0o600, user, stranger}, true},
		{file{0o400, 0, stranger}, true},
		{file{0o440, 0, own}, true},
		{file{0o640, 0, own}, true},
		{file{0o440, 0, stranger}, false},
		{file{0o440, user, own}, false},
		{file{0o460, 0, own}, false},
		{file{0o450, 0, own}, false},
		{file{0o444, 0, own}, false},
		{file{0o442, 0, own}, false},
		{file{0o644, user, own}, false},
		{file{0o620, user, own}, false},
	} {
		err := secretfile.Check(test.file)
		if (err == nil) != test.good {
			t.Errorf("%+v: %v", test.file, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("mode %04o", test.file.mode)) {
			t.Errorf("%+v: the error does not tell the mode: %v", test.file, err)
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := secretfile.Read(path); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		path: "chmod 600", pipe: "must be a file", large: "longer than", dir: "must be a file", filepath.Join(dir, "none"): "no such file",
	} {
		if text, err := secretfile.Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}
