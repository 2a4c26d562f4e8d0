// Package store keeps the metadata of the embedded KMS: records of opaque bytes,
// each under a kind and an id. It owns what makes a change durable and whole,
// and knows nothing of what the bytes mean.
//
// Every database stands behind [Store], and package storetest has the test that
// each must pass. [OpenSQLite] opens the embedded one.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a record, in bytes. They are the same for every database.
const (
	MaxKind = 64
	MaxID   = 1024
	MaxData = 16 << 20
)

// Record is what is stored. Kind and ID name it; both are UTF-8 of at least one
// byte and without NUL, and are compared byte by byte. No data and nil data are
// the same.
type Record struct {
	Kind string // at most [MaxKind] bytes
	ID   string // unique within Kind, at most [MaxID] bytes
	Data []byte // at most [MaxData] bytes
}

// Change puts a record, in place of one with its kind and id if there is one, or
// deletes the one with its kind and id, if there is one.
type Change struct {
	Record
	Delete bool // Data is not looked at
}

// Store is a database of records. Its methods may be called concurrently.
type Store interface {
	// Load calls f for every record, in no order that matters, until f fails,
	// and returns f's error as it is. Data belongs to f, which must not call the
	// store. It is meant for the start: while it runs, changes wait.
	// The error is [ErrCorrupt] where the database is damaged, [ErrClosed]
	// after Close, and ctx's where ctx ended.
	Load(ctx context.Context, f func(Record) error) error

	// Apply makes all changes, in their order, or none, and returns nil when
	// they are durable: no crash after that loses them. It reads the changes
	// until it returns.
	//
	// The error says whether the changes were made:
	//   - [ErrUnknownOutcome]: nobody knows until the database is opened again.
	//   - Any other: they were not made, and will not be. Among these are ctx's
	//     error, [ErrFull], [ErrBroken] and [ErrClosed].
	//
	// So that this holds, ctx is looked at only until the changes are handed to
	// the database. From there on Apply waits for the outcome, for as long as
	// the disk takes; a caller with a deadline must not wait for Apply itself.
	Apply(ctx context.Context, changes ...Change) error

	// Close waits for the changes that were handed over and closes the
	// database. Whatever else calls the store learns [ErrClosed]. Close may be
	// called again, and does nothing then.
	Close() error
}

var (
	// ErrUnknownOutcome is of changes that may or may not be there when the
	// database is opened next. The store is broken from here on.
	ErrUnknownOutcome = errors.New("it is not known whether the changes were made")

	// ErrBroken is of changes that were not made because the database failed
	// before, most likely with an unknown outcome. It lasts until the database is
	// opened again.
	ErrBroken = errors.New("the store failed before and must be opened again")

	// ErrFull is of changes that were not made for want of room. Changes succeed
	// again once there is some.
	ErrFull = errors.New("no room left")

	// ErrClosed is of a store that was closed.
	ErrClosed = errors.New("the store is closed")

	// ErrInUse is of a database that is open already, here or in another process.
	ErrInUse = errors.New("in use")

	// ErrCorrupt is of a database that is damaged.
	ErrCorrupt = errors.New("damaged")

	// ErrFormat is of a file that this version of hyok cannot read: a later
	// version's, or not hyok's at all.
	ErrFormat = errors.New("unknown format")
)

// check returns an error if one of the changes is not within the limits, so that
// every database refuses the same.
func check(changes []Change) error {
	for _, c := range changes {
		if err := checkName("kind", c.Kind, MaxKind); err != nil {
			return err
		}
		if err := checkName("id", c.ID, MaxID); err != nil {
			return fmt.Errorf("record of kind %s: %w", c.Kind, err)
		}
		if !c.Delete && len(c.Data) > MaxData {
			return fmt.Errorf("record %s %s has %d bytes, more than %d", c.Kind, c.ID, len(c.Data), MaxData)
		}
	}
	return nil
}

func checkName(what, s string, limit int) error {
	switch {
	case s == "":
		return fmt.Errorf("no %s", what)
	case len(s) > limit:
		return fmt.Errorf("the %s has %d bytes, more than %d", what, len(s), limit)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return fmt.Errorf("the %s %q is not UTF-8 without NUL", what, s)
	}
	return nil
}
