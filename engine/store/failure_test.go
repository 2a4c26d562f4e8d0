package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// TestFull fills the store up, by SQLite's own limit: what does not fit fails by
// itself, and changes succeed again once there is room.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path)
	small := func(i int) Change { return change("key", fmt.Sprint("small ", i), nil) }
	want := map[string]string{"before": "one"}
	apply(t, s, change("key", "before", []byte("one")))
	limit(t, s, 30)
	big := change("key", "big", bytes.Repeat([]byte("b"), 1<<20))
	if err := s.Apply(patient(t), small(-1), big, remove("key", "before")); !errors.Is(err, ErrFull) {
		t.Errorf("too large a set: %v, want ErrFull", err)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		want[fmt.Sprint("small ", i)] = ""
		wg.Go(func() {
			if err := s.Apply(patient(t), small(i)); err != nil {
				t.Errorf("a small set beside large ones: %v", err)
			}
			if err := s.Apply(patient(t), big); !errors.Is(err, ErrFull) {
				t.Errorf("too large a set: %v, want ErrFull", err)
			}
		})
	}
	wg.Wait()
	expect(t, s, want)
	limit(t, s, 1<<20)
	apply(t, s, big)
	want["big"] = string(big.Data)
	expect(t, s, want)
	closeStore(t, s)
	expect(t, openAt(t, path), want)
}

// limit sets the number of pages that the file may have.
func limit(t *testing.T, s *SQLite, pages int) {
	t.Helper()
	sql(t, s, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
}

// sql executes what the store itself may not.
func sql(t *testing.T, s *SQLite, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.RegisterAuthorizer(nil)
	defer s.conn.RegisterAuthorizer(authorize)
	if _, err := s.conn.Exec(text, nil); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyForAWhile(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	apply(t, s, change("key", "a", []byte("one")))
	sql(t, s, "PRAGMA query_only = ON")
	if err := s.Apply(patient(t), change("key", "a", []byte("two"))); err == nil || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("got %v, want an error that leaves no doubt", err)
	}
	sql(t, s, "PRAGMA query_only = OFF")
	expect(t, s, map[string]string{"a": "one"})
	apply(t, s, change("key", "a", []byte("three")))
	expect(t, s, map[string]string{"a": "three"})
}

// refusedCommit is a COMMIT whose writes the kernel refuses, while it is armed.
type refusedCommit struct {
	statement
	errno *syscall.Errno // 0: it does not
}

func (f refusedCommit) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if *f.errno != 0 {
		return nil, sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrWrite, SystemErrno: *f.errno}
	}
	return f.statement.ExecContext(ctx, args)
}

// TestRefusedWrites has the kernel refuse writes for a while: nothing was made, and
// changes are made again without opening the store.
func TestRefusedWrites(t *testing.T) {
	for errno, full := range map[syscall.Errno]bool{syscall.EDQUOT: true, syscall.EFBIG: true, syscall.EROFS: false} {
		path := filepath.Join(t.TempDir(), "store.db")
		s := openAt(t, path)
		apply(t, s, change("key", "a", []byte("one")))
		var now syscall.Errno // guarded by s.mu
		arm := func(errno syscall.Errno) {
			s.mu.Lock()
			defer s.mu.Unlock()
			now = errno
		}
		s.mu.Lock()
		s.stmts.commit = refusedCommit{s.stmts.commit, &now}
		s.mu.Unlock()
		arm(errno)
		for range 2 {
			err := s.Apply(patient(t), change("key", "a", []byte("two")))
			if err == nil || errors.Is(err, ErrFull) != full || errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrBroken) {
				t.Errorf("%v: %v", errno, err)
			}
		}
		expect(t, s, map[string]string{"a": "one"})
		arm(0)
		apply(t, s, change("key", "a", []byte("three")))
		closeStore(t, s)
		expect(t, openAt(t, path), map[string]string{"a": "three"})
	}
}

// failingCommit is a COMMIT whose sync fails, with the changes on the disk or not.
type failingCommit struct {
	statement
	made bool
}

func (f failingCommit) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if f.made {
		if _, err := f.statement.ExecContext(ctx, args); err != nil {
			return nil, err
		}
	}
	return nil, sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrFsync}
}

// TestUnknownOutcome has a sync fail. Whoever had changes in that batch learns
// that nobody knows, whoever comes later that nothing was done; opened again, the
// store has each set whole or not at all.
func TestUnknownOutcome(t *testing.T) {
	for _, made := range []bool{false, true} {
		t.Run(fmt.Sprintf("made=%t", made), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := openAt(t, path)
			apply(t, s, change("key", "a", []byte("one")))
			s.mu.Lock()
			s.stmts.commit = failingCommit{s.stmts.commit, made}
			s.mu.Unlock()
			err := s.Apply(patient(t), change("key", "a", []byte("two")), change("key", "b", nil))
			if !errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrBroken) {
				t.Errorf("got %v, want ErrUnknownOutcome", err)
			}
			for range 2 {
				err := s.Apply(patient(t), change("key", "c", nil))
				if !errors.Is(err, ErrBroken) || errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("got %v, want ErrBroken", err)
				}
			}
			if err := s.Scrub(); !errors.Is(err, ErrBroken) {
				t.Errorf("Scrub: %v, want ErrBroken", err)
			}
			closeStore(t, s)
			want := map[string]string{"a": "one"}
			if made {
				want = map[string]string{"a": "two", "b": ""}
			}
			s = openAt(t, path)
			expect(t, s, want)
			apply(t, s, remove("key", "a"), remove("key", "b"))
			expect(t, s, map[string]string{})
		})
	}
}
