package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/internal/fulldisk"
)

// Where a file cannot be written whole, the former one stays, nothing else is
// left, and the error says why; later it works. The limit of a file's size fails a
// write as a full disk does.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hyok.yaml")
	if err := Write(path, []byte("former")); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 100_000)
	lift := fulldisk.Limit(t, 10_000)
	err := Write(path, large)
	created := Create(filepath.Join(dir, "new"), large)
	lift()
	if !errors.Is(err, syscall.EFBIG) || !errors.Is(created, syscall.EFBIG) {
		t.Errorf("%v, %v", err, created)
	}
	if !strings.Contains(err.Error(), "the file may not grow") || !strings.Contains(created.Error(), "then try again") {
		t.Errorf("what to do is not said: %v, %v", err, created)
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
