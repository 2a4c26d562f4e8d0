package store

import (
	"errors"
	"fmt"
	"slices"
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
	case isReadOnly(e), e.Code == sqlite3.ErrPerm, e.Code == sqlite3.ErrCantOpen:
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

// isFull reports whether a write failed for want of room, be it the disk's, the
// user's quota or the limit of a file's size. SQLite knows only the first as such.
func isFull(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrFull || isWrite(e, syscall.EDQUOT, syscall.EFBIG))
}

// isReadOnly reports whether a write failed because the file system takes none any
// more, as Linux has it after errors of the disk.
func isReadOnly(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrReadonly || isWrite(e, syscall.EROFS))
}

// isWrite reports whether a write, and nothing else, was refused for one of some
// reasons.
func isWrite(e sqlite3.Error, reasons ...syscall.Errno) bool {
	return e.ExtendedCode == sqlite3.ErrIoErrWrite && slices.Contains(reasons, e.SystemErrno)
}
