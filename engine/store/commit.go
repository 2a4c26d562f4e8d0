package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// request is a set of changes that a caller waits for.
type request struct {
	changes []Change
	done    chan error // has room for the one answer
}

// A batch is committed when it has this many requests or bytes.
const (
	batchRequests = 1024
	batchBytes    = 4 << 20
)

// Apply implements [Store].
func (s *SQLite) Apply(ctx context.Context, changes ...Change) error {
	if err := check(changes); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || len(changes) == 0 {
		return err
	}
	r := &request{changes, make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

// run is the committer: the one goroutine that changes records. It empties the
// log between batches.
func (s *SQLite) run() {
	defer close(s.ended)
	timer := time.NewTimer(s.checkpointAfter)
	timer.Stop()
	waiting, failed := false, false // for the timer; the last checkpoint
	for {
		select {
		case r := <-s.requests:
			s.apply(s.gather(r))
			if s.logSize() > s.logLimit && !failed {
				failed = !s.tryCheckpoint()
			}
		case <-timer.C:
			waiting, failed = false, !s.tryCheckpoint()
		case <-s.closing:
			timer.Stop()
			return
		}
		if !waiting && s.logSize() > 0 {
			waiting = true
			timer.Reset(s.checkpointAfter)
		}
	}
}

// gather returns first and the requests that wait at this moment.
func (s *SQLite) gather(first *request) []*request {
	batch, size := []*request{first}, first.size()
	for len(batch) < batchRequests && size < batchBytes {
		select {
		case r := <-s.requests:
			batch, size = append(batch, r), size+r.size()
		default:
			return batch
		}
	}
	return batch
}

func (r *request) size() int {
	n := 0
	for _, c := range r.changes {
		n += len(c.Data)
	}
	return n
}

// apply commits a batch and answers each request. Where the batch fails, and
// surely was not committed, each is tried alone, so that one that is too large or
// otherwise at fault fails by itself.
func (s *SQLite) apply(batch []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.transact(batch...)
	for _, r := range batch {
		if err == nil || len(batch) == 1 || errors.Is(err, ErrUnknownOutcome) {
			r.done <- err
		} else {
			r.done <- s.transact(r)
		}
	}
}

// transact makes the changes of all requests, or none, and returns when they are
// durable.
//
// A failed COMMIT leaves the outcome open: the log may have all of the changes,
// though it could not be synced, and a crash would bring them back as committed;
// or it has none of them. Syncing once more proves nothing, since a kernel reports
// a lost write only once. The caller, whose memory is ahead or behind from here on,
// must not go on as if it knew; so the store refuses every further change until it
// is opened again, which settles what is there. Want of room is different, and so is
// a file system that takes no writes any more: the kernel refused to write, so the
// last page, which makes a commit of the rest, is surely not there.
func (s *SQLite) transact(batch ...*request) error {
	if s.broken != nil {
		return s.wrap("change", fmt.Errorf("%w (%w)", ErrBroken, s.broken))
	}
	if err := s.makeChanges(batch); err != nil {
		err = explain(err)
		s.rollBack()
		return s.wrap("change", err)
	}
	err := execute(s.stmts.commit)
	if err == nil {
		s.traces = true
		return nil
	}
	if isFull(err) || isReadOnly(err) {
		err = explain(err)
		s.rollBack()
		return s.wrap("change", err)
	}
	s.broken = explain(err)
	return s.wrap("change", fmt.Errorf("%w; open the store again: %w", ErrUnknownOutcome, s.broken))
}

// makeChanges begins a transaction and makes all changes in it.
func (s *SQLite) makeChanges(batch []*request) error {
	if err := execute(s.stmts.begin); err != nil {
		return err
	}
	for _, r := range batch {
		for _, c := range r.changes {
			if err := s.makeChange(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *SQLite) makeChange(c Change) error {
	if c.Delete {
		return execute(s.stmts.remove, c.Kind, c.ID)
	}
	data := c.Data
	if data == nil {
		data = []byte{} // nil would be NULL
	}
	return execute(s.stmts.put, c.Kind, c.ID, data, checksum(c.Kind, c.ID, data))
}

// rollBack ends the transaction, if SQLite has not done so. Where that fails, no
// other may begin.
func (s *SQLite) rollBack() {
	if s.conn.AutoCommit() {
		return
	}
	if _, err := s.conn.Exec("ROLLBACK", nil); err != nil {
		s.broken = explain(err)
	}
}

func (s *SQLite) tryCheckpoint() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoint()
}

// checkpoint moves what is in the log to the file and empties the log. Where it
// fails nothing is lost: the log grows until it succeeds. The caller holds mu.
func (s *SQLite) checkpoint() bool {
	if s.broken != nil {
		return false
	}
	var busy int64
	err := query(s.conn, &busy, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != 0 {
		err = errors.New("busy")
	}
	if err != nil {
		s.log.Warn("cannot empty the write-ahead log of the store; it grows until this succeeds",
			"file", s.path, "bytes", s.logSize(), "error", explain(err))
	}
	return err == nil
}

// logSize returns the length of the write-ahead log in bytes, 0 if there is none.
func (s *SQLite) logSize() int64 {
	info, err := os.Stat(s.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}
