// Package logfile appends to a log file that other programs rotate: it follows the
// path to the next file, and never writes to one that is deleted.
package logfile

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hyok-kms/hyok/internal/diskspace"
)

// File is a log file. Its methods are safe for concurrent use.
type File struct {
	path  string
	again atomic.Bool // the next Write opens the path anew

	mu   sync.Mutex // held during a write, which may hang
	file *os.File   // guarded by mu
}

// Open opens the file at path to append to it, and makes it if there is none.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", diskspace.Explain(err))
	}
	return &File{path: path, file: f}, nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Reopen has the next Write open the path anew: what was there may have been renamed.
// It waits for nothing.
func (f *File) Reopen() { f.again.Store(true) }

// Write appends to the file that is at the path now. One that was renamed is written to
// until there is another at the path, or Reopen was called; one that was deleted is
// not: if none can be made in its place, that is an error.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.follow(); err != nil {
		return 0, err
	}
	n, err := f.file.Write(p)
	return n, diskspace.Explain(err)
}

// follow opens the path anew if need be. mu is held.
func (f *File) follow() error {
	asked := f.again.Swap(false)
	deleted := f.isDeleted()
	if !asked && !deleted && !f.isReplaced() {
		return nil
	}
	next, err := open(f.path)
	switch {
	case err == nil:
		_ = f.file.Close() // nothing is buffered here
		f.file = next
		return nil
	case deleted:
		return fmt.Errorf("the log file was deleted and cannot be made again: %w", err)
	}
	if asked { // the former file takes what comes until then
		f.again.Store(true)
	}
	return nil
}

// isDeleted reports whether the open file has no name any more. mu is held.
func (f *File) isDeleted() bool {
	info, err := f.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// isReplaced reports whether another file is at the path. mu is held.
func (f *File) isReplaced() bool {
	there, err := os.Stat(f.path)
	if err != nil {
		return false
	}
	ours, err := f.file.Stat()
	return err == nil && !os.SameFile(ours, there)
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
