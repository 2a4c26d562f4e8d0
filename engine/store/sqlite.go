package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// SQLite is a [Store] in one SQLite file, which one process at a time has open.
//
// Durable means: every change is in the write-ahead log, and the log synced,
// before Apply returns (journal_mode WAL, synchronous FULL). Changes that wait at
// the same time are committed and synced together.
//
// Of records that were deleted or replaced, this is promised for the files of the
// data folder, as a reader of files sees them:
//   - The place where a record lay is overwritten with zeros (secure_delete).
//   - The log, which has older versions, is emptied within seconds of a change,
//     and by Close.
//   - SQLite may have moved a record before, and such a copy is not overwritten.
//     Scrub rewrites the file without any; Close does so as well.
//
// Blocks that the file system or a disk no longer shows are beyond hyok's reach,
// and so are copies and backups.
type SQLite struct {
	path string
	log  *slog.Logger

	checkpointAfter time.Duration // from a change until the log is emptied
	logLimit        int64         // bytes at which the log is emptied sooner

	requests chan *request // unbuffered: what was sent is in the committer's hands
	closing  chan struct{} // closed by Close
	ended    chan struct{} // closed by the committer

	close    sync.Once
	closeErr error // set within close

	// whole is held by what copies or rewrites the file. It is taken before mu.
	whole sync.Mutex

	// mu is held while the connection is used, and guards what follows.
	mu     sync.Mutex
	conn   *sqlite3.SQLiteConn // nil once closed
	stmts  statements
	broken error // why nothing may be committed any more
	traces bool  // the file may have copies of what was deleted
}

// statements are used with every change.
type statements struct {
	begin, put, remove, commit statement
}

type statement interface {
	driver.Stmt
	driver.StmtExecContext
}

// execute executes the statement. It takes no context: what was begun is finished.
func execute(st statement, args ...driver.Value) error {
	named := make([]driver.NamedValue, len(args))
	for i, a := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	_, err := st.ExecContext(context.Background(), named)
	return err
}

// Defaults of a store; a test has others.
const (
	checkpointAfter = 10 * time.Second
	logLimit        = 8 << 20
)

// OpenSQLite opens the store at path, and makes it, and its folder, where there
// is none. What it makes is for the owner alone: the folder has mode 0700 and the
// files 0600.
//
// The error is [ErrInUse], [ErrFormat], [ErrCorrupt], or tells what of the file
// cannot be written. What goes wrong later and is no caller's business is logged.
func OpenSQLite(ctx context.Context, path string, log *slog.Logger) (*SQLite, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := newSQLite(path, log)
	if err := s.connect(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	go s.run()
	return s, nil
}

func newSQLite(path string, log *slog.Logger) *SQLite {
	return &SQLite{
		path: path, log: log,
		checkpointAfter: checkpointAfter, logLimit: logLimit,
		requests: make(chan *request), closing: make(chan struct{}), ended: make(chan struct{}),
	}
}

// connect opens the file and brings it into the state that Apply expects.
func (s *SQLite) connect() error {
	if err := makeFile(s.path); err != nil {
		return err
	}
	var err error
	if s.path, err = filepath.EvalSymlinks(s.path); err != nil {
		return err // the log is beside the file, not beside a link to it
	}
	s.traces = s.logSize() > 0 // not closed, so not scrubbed either
	conn, err := dial(s.path)
	if err != nil {
		return explainOpen(err)
	}
	s.conn = conn
	err = adoptFormat(conn)
	if err == nil {
		conn.RegisterAuthorizer(authorize)
		err = s.stmts.prepare(conn)
	}
	if err != nil {
		return explainOpen(errors.Join(err, s.disconnect()))
	}
	s.checkpoint() // what a crash left in the log is not to stay there
	return nil
}

// disconnect closes the connection. The caller holds mu.
func (s *SQLite) disconnect() error {
	err := errors.Join(s.stmts.finalize(), s.conn.Close())
	s.conn = nil
	return err
}

func (st *statements) prepare(conn *sqlite3.SQLiteConn) error {
	for _, p := range []struct {
		to  *statement
		sql string
	}{
		{&st.begin, "BEGIN IMMEDIATE"},
		{&st.put, sqlPut},
		{&st.remove, sqlRemove},
		{&st.commit, "COMMIT"},
	} {
		prepared, err := conn.Prepare(p.sql)
		if err != nil {
			return err
		}
		*p.to = prepared.(*sqlite3.SQLiteStmt)
	}
	return nil
}

func (st *statements) finalize() error {
	var errs []error
	for _, s := range []statement{st.begin, st.put, st.remove, st.commit} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Load implements [Store]. Each record is compared with its checksum.
func (s *SQLite) Load(ctx context.Context, f func(Record) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return ErrClosed
	}
	rows, err := s.conn.Query("SELECT kind, id, data, sum FROM record", nil)
	if err != nil {
		return s.wrap("load from", explain(err))
	}
	defer func() { _ = rows.Close() }() // of a query, it has nothing to tell
	kinds := map[string]string{}        // one string for all records of a kind
	row := make([]driver.Value, 4)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.Next(row); err == io.EOF {
			return nil
		} else if err != nil {
			return s.wrap("load from", explain(err))
		}
		r, err := decode(row, kinds)
		if err != nil {
			return s.wrap("load from", err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// Close implements [Store].
func (s *SQLite) Close() error {
	s.close.Do(func() {
		close(s.closing)
		<-s.ended
		s.whole.Lock() // a backup notices closing and gives up
		defer s.whole.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.broken == nil {
			s.tidy()
		}
		if err := s.disconnect(); err != nil {
			s.closeErr = s.wrap("close", err)
		}
	})
	return s.closeErr
}

// tidy leaves no trace of what was deleted, if it can. Everything is durable
// already, so failing is not the caller's business.
func (s *SQLite) tidy() {
	if err := s.scrub(); err != nil {
		s.log.Warn("cannot rewrite the store at closing; deleted records may have left traces", "file", s.path, "error", err)
	}
	s.checkpoint()
}

func (s *SQLite) wrap(doing string, err error) error {
	return fmt.Errorf("%s %s: %w", doing, s.path, err)
}
