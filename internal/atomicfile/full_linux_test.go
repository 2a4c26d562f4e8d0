package atomicfile

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// Where a file cannot be written whole, the former one stays, nothing else is
// left, and the error says why; later it works. The limit of a file's size fails a
// write as a full disk does.
func TestNoRoom(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "hyok.yaml")
	if err := Write(path, []byte("former")); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 100_000)
	limit(syscall.Rlimit{Cur: 10_000, Max: before.Max})
	err := Write(path, large)
	created := Create(filepath.Join(dir, "new"), large)
	limit(before)
	if !errors.Is(err, syscall.EFBIG) || !errors.Is(created, syscall.EFBIG) {
		t.Errorf("%v, %v", err, created)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "former" {
		t.Errorf("%q, %v", got, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	if err := Write(path, large); err != nil {
		t.Error(err)
	}
}
