package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestWriteReplacesAndKeepsTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, "one")
	expect(t, path, "one", 0o600)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	put(t, path, "two")
	expect(t, path, "two", 0o640)
	expectOnly(t, filepath.Dir(path), "file")
}

func TestWriteFollowsALink(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "target"), "one")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	put(t, link, "two")
	expect(t, filepath.Join(dir, "target"), "two", 0o600)
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
}

func TestCreateDoesNotReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want fs.ErrExist", err)
	}
	expect(t, path, "one", 0o600)
	expectOnly(t, filepath.Dir(path), "file")
}

func TestWriteIntoNoFolder(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "none", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, "")
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	const rounds = 200
	var wg sync.WaitGroup
	for i := range 4 {
		name := []string{path, link}[i%2] // one lock by either name
		wg.Go(func() {
			for range rounds {
				appendLocked(t, name)
			}
		})
	}
	wg.Wait()
	if data, err := os.ReadFile(path); err != nil || len(data) != 4*rounds {
		t.Errorf("%d of %d appends are in the file, %v", len(data), 4*rounds, err)
	}
}

// appendLocked reads and writes, as one who would lose what others append
// between.
func appendLocked(t *testing.T, path string) {
	unlock, err := Lock(path)
	if err != nil {
		t.Error(err)
		return
	}
	data, err := os.ReadFile(path)
	err = errors.Join(err, os.WriteFile(path, append(data, 'x'), 0o600), unlock())
	if err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, path, data string) {
	t.Helper()
	if err := Write(path, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, path, want string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != want {
		t.Errorf("%s has %q, %v, want %q", path, data, err, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
}

// expectOnly fails where a temporary file was left behind.
func expectOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("the folder has %v, want %v", got, names)
	}
}

// What a killed writer left goes with a later write, and nothing else does.
func TestAbandoned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gone := write(".other.json.123.hyok-tmp", 2*time.Hour)
	kept := []string{write(".k.json.124.hyok-tmp", time.Minute), write(".k.json.125.tmp", 2*time.Hour), write("k.json.126.hyok-tmp", 2*time.Hour)}
	if err := Write(filepath.Join(dir, "k.json"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an abandoned file stays: %v", err)
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
