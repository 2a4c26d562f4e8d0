package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDeletedIsGone changes records until SQLite has moved many, and looks for
// what was deleted and replaced in all files of the folder.
func TestDeletedIsGone(t *testing.T) {
	for name, finish := range map[string]func(*testing.T, *SQLite){
		"Scrub": func(t *testing.T, s *SQLite) {
			if err := s.Scrub(); err != nil {
				t.Error(err)
			}
		},
		"Close": func(t *testing.T, s *SQLite) { closeStore(t, s) },
		"crash": func(t *testing.T, s *SQLite) {
			path := filepath.Join(t.TempDir(), "store.db")
			copyFiles(t, s.path, path)
			closeStore(t, s)
			copyFiles(t, path, s.path) // as if it had not been closed
			closeStore(t, openAt(t, s.path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := openAt(t, path)
			alive, dead := churn(t, s)
			finish(t, s)
			found := traces(t, filepath.Dir(path))
			for mark := range alive {
				if !found[mark] {
					t.Fatalf("%s is not found; the test looks in the wrong way", mark)
				}
			}
			for mark := range dead {
				if found[mark] {
					t.Errorf("%s was deleted or replaced and is still in a file", mark)
				}
			}
		})
	}
}

const markSize = 12

// churn puts, replaces and deletes records of many sizes, each made of a mark.
func churn(t *testing.T, s *SQLite) (alive, dead map[string]bool) {
	random := rand.New(rand.NewPCG(3, 4))
	now := map[string]string{}
	alive, dead = map[string]bool{}, map[string]bool{}
	n := 0
	for range 30 {
		var changes []Change
		for range 400 {
			id := fmt.Sprint(random.IntN(3000))
			if mark, ok := now[id]; ok {
				delete(alive, mark)
				delete(now, id)
				dead[mark] = true
			}
			if random.IntN(3) == 0 {
				changes = append(changes, remove("key", id))
				continue
			}
			n++
			mark := fmt.Sprintf("<%0*d>", markSize-2, n)
			now[id], alive[mark] = mark, true
			changes = append(changes, change("key", id, []byte(strings.Repeat(mark, 20+random.IntN(60)))))
		}
		apply(t, s, changes...)
	}
	return alive, dead
}

// traces returns the marks that are in the files of a folder.
func traces(t *testing.T, dir string) map[string]bool {
	found := map[string]bool{}
	for _, entry := range entries(t, dir) {
		data, err := os.ReadFile(filepath.Join(dir, entry))
		if err != nil {
			t.Fatal(err)
		}
		for len(data) >= markSize {
			i := bytes.IndexByte(data, '<')
			if i < 0 || len(data)-i < markSize {
				break
			}
			found[string(data[i:i+markSize])] = true
			data = data[i+1:]
		}
	}
	return found
}

func entries(t *testing.T, dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// copyFiles copies a store as a crash would leave it.
func copyFiles(t *testing.T, from, to string) {
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if err == nil {
			err = os.WriteFile(to+suffix, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogIsEmptied waits for the committer to empty the log, by time and by size,
// and looks for what was deleted and replaced.
func TestLogIsEmptied(t *testing.T) {
	for name, set := range map[string]func(*SQLite){
		"after a while": func(s *SQLite) { s.checkpointAfter = time.Millisecond },
		"when long":     func(s *SQLite) { s.logLimit = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSQLite(filepath.Join(t.TempDir(), "store.db"), slog.New(slog.DiscardHandler))
			set(s)
			if err := s.connect(); err != nil {
				t.Fatal(err)
			}
			go s.run()
			t.Cleanup(func() { closeStore(t, s) })
			apply(t, s, change("key", "a", []byte("<0000000001>")), change("key", "b", []byte("<0000000002>")))
			apply(t, s, change("key", "a", []byte("<0000000003>")), remove("key", "b"))
			for ctx := patient(t); s.logSize() > 0; {
				select {
				case <-ctx.Done():
					t.Fatalf("the log still has %d bytes", s.logSize())
				case <-time.After(time.Millisecond):
				}
			}
			if found := traces(t, filepath.Dir(s.path)); len(found) != 1 || !found["<0000000003>"] {
				t.Errorf("the files have %v, want only what replaced the rest", found)
			}
			expect(t, s, map[string]string{"a": "<0000000003>"})
		})
	}
}

// TestBackup copies while changes go on. Every set is whole in the copy, and what
// was acknowledged before is there.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store.db"))
	for i := range 100 { // more than one step of a backup
		apply(t, s, change("key", fmt.Sprint("before ", i), bytes.Repeat([]byte("b"), 40_000)))
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(patient(t))
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				data := fmt.Append(nil, i)
				err := s.Apply(ctx, change("key", fmt.Sprint(w, " left"), data), change("key", fmt.Sprint(w, " right"), data))
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	path := filepath.Join(dir, "backups", "copy.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.Backup(ctx, path)
	stop()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if names := entries(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("beside the backup there are %q", names)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
	got, err := load(t, openAt(t, path))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if len(got[fmt.Sprint("before ", i)]) != 40_000 {
			t.Errorf("record %d is not in the backup", i)
		}
	}
	for w := range 4 {
		if left, right := got[fmt.Sprint(w, " left")], got[fmt.Sprint(w, " right")]; left != right {
			t.Errorf("half a set of changes is in the backup: %s and %s", left, right)
		}
	}
}

func TestBackupRefused(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store.db"))
	apply(t, s, change("key", "a", []byte("one")))
	if err := s.Backup(patient(t), s.path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto itself: %v, want fs.ErrExist", err)
	}
	if err := s.Backup(patient(t), filepath.Join(dir, "none", "copy.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no folder: %v, want fs.ErrNotExist", err)
	}
	ended, cancel := context.WithCancel(patient(t))
	cancel()
	path := filepath.Join(dir, "copy.db")
	if err := s.Backup(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := os.WriteFile(path+".partial", []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(patient(t), path); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	if err := s.Backup(patient(t), path+"2"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if err := s.Scrub(); !errors.Is(err, ErrClosed) {
		t.Errorf("Scrub after Close: %v, want ErrClosed", err)
	}
	expect(t, openAt(t, path), map[string]string{"a": "one"})
}
