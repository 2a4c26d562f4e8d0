package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestDiskFull fills a real file system, where a commit fails only when the log is
// written.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("cannot mount a small file system:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "store.db")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path)
	want := map[string]string{}
	fillUp := func() {
		t.Helper()
		for i := len(want); ; i++ {
			c := change("key", fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 50_000))
			err := s.Apply(patient(t), c)
			if errors.Is(err, ErrFull) && !errors.Is(err, ErrUnknownOutcome) {
				return
			}
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			want[c.ID] = string(c.Data)
		}
	}
	fillUp()
	before := len(want)
	fillUp() // and is still full
	expect(t, s, want)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fillUp()
	if len(want) < before+10 {
		t.Errorf("%d records, and %d after there was room again", before, len(want))
	}
	expect(t, s, want)
	closeStore(t, s)
	s = openAt(t, path)
	expect(t, s, want)
	closeStore(t, s)
}
