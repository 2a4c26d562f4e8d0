package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// restore is what to do about a damaged file.
const restore = "put the last backup in its place"

// explain adds to an error of SQLite what it means to the caller and to the
// operator.
func explain(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case isFull(e):
		return fmt.Errorf("%w; make some and try again (%w)", ErrFull, err)
	case e.Code == sqlite3.ErrCorrupt, e.Code == sqlite3.ErrNotADB:
		return fmt.Errorf("%w; %s (%w)", ErrCorrupt, restore, err)
	case e.Code == sqlite3.ErrReadonly, e.Code == sqlite3.ErrPerm, e.Code == sqlite3.ErrCantOpen:
		return notWritable(err)
	}
	return err
}

func notWritable(err error) error {
	return fmt.Errorf("it cannot be written; the file and its folder must belong to hyok's user and be writable (%w)", err)
}

// explainOpen is explain for the time of opening, when others may be in the way.
func explainOpen(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked) {
		return fmt.Errorf("%w: another hyok, or another program, has it open; end that one first, or name another file (%w)", ErrInUse, err)
	}
	return explain(err)
}

// isFull reports whether a write failed for want of room, be it the disk's or the
// user's quota. SQLite knows only the first as such.
func isFull(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Code == sqlite3.ErrFull || e.ExtendedCode == sqlite3.ErrIoErrWrite && e.SystemErrno == syscall.EDQUOT
}
