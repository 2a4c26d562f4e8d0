package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

// Scrub rewrites the file so that no byte of a deleted or replaced record is in
// it or in its log. It needs room for a second copy on the disk and in memory,
// and changes wait for it. Where nothing was changed since the last time it does
// nothing.
func (s *SQLite) Scrub() error {
	s.whole.Lock()
	defer s.whole.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conn == nil:
		return ErrClosed
	case s.broken != nil:
		return s.wrap("scrub", fmt.Errorf("%w (%w)", ErrBroken, s.broken))
	}
	if err := s.scrub(); err != nil {
		return s.wrap("scrub", err)
	}
	return nil
}

// scrub is Scrub for one who holds whole and mu.
func (s *SQLite) scrub() error {
	if !s.traces {
		return nil
	}
	s.conn.RegisterAuthorizer(nil)
	_, err := s.conn.Exec("VACUUM", nil)
	s.conn.RegisterAuthorizer(authorize)
	if err != nil {
		return explain(err)
	}
	if !s.checkpoint() {
		return errors.New("the write-ahead log could not be emptied")
	}
	s.traces = false
	return nil
}

// backupPages is how much of a backup is copied while changes wait.
const backupPages = 256

// Backup writes a copy of the store to path, where there must be nothing yet, with
// mode 0600. Changes go on meanwhile: the copy has the records of one instant, and
// every change that was acknowledged before Backup began. It is there whole or not
// at all, and is opened as any store.
func (s *SQLite) Backup(ctx context.Context, path string) (err error) {
	s.whole.Lock()
	defer s.whole.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up %s to %s: %w", s.path, path, err)
		}
	}()
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	partial := path + ".partial" // left by a crash, it is written anew
	for _, stale := range []string{partial, partial + "-journal"} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := atomicfile.Create(partial, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(partial)) }()
	if err := s.copyTo(ctx, partial); err != nil {
		return err
	}
	if err := os.Link(partial, path); err != nil { // a rename would replace
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// copyTo copies every page to an empty file. SQLite carries over what is changed
// by the same connection in between.
func (s *SQLite) copyTo(ctx context.Context, path string) (err error) {
	to, err := dial(path)
	if err != nil {
		return explain(err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	var copying *sqlite3.SQLiteBackup
	err = s.use(func(conn *sqlite3.SQLiteConn) error {
		copying, err = to.Backup("main", conn, "main")
		return err
	})
	if err != nil {
		return explain(err)
	}
	for done := false; !done && err == nil; {
		if err = ctx.Err(); err != nil {
			break
		}
		err = s.use(func(*sqlite3.SQLiteConn) error {
			done, err = copying.Step(backupPages)
			return err
		})
	}
	s.mu.Lock() // the connection outlives the backup, since whole is held
	defer s.mu.Unlock()
	if finish := copying.Finish(); err == nil {
		err = finish
	}
	return explain(err)
}

// use calls f with the connection, unless the store is closing.
func (s *SQLite) use(f func(*sqlite3.SQLiteConn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return ErrClosed
	default:
		return f(s.conn)
	}
}
