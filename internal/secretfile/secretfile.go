// Package secretfile says which files are private enough to hold a secret, and
// reads them.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// maxSize bounds a file of secrets, in bytes.
const maxSize = 1 << 20

// Check reports whether a file can be trusted with a secret: its owner alone can
// reach it; or it is root's, a group of this process can read it, and nobody else
// can do anything with it, as a Kubernetes Secret is mounted.
func Check(info fs.FileInfo) error {
	const others, groupReads = 0o077, 0o040
	mode := info.Mode().Perm()
	if mode&others == 0 || mode&others == groupReads && lentByRoot(info) {
		return nil
	}
	return fmt.Errorf("has mode %04o: others than its owner can reach the secrets; run chmod 600 on it (or 440, where it belongs to root and to a group of this process)", mode)
}

// lentByRoot reports whether a file is root's and in a group of this process.
func lentByRoot(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != 0 {
		return false
	}
	groups, err := os.Getgroups()
	return err == nil && (int(stat.Gid) == os.Getegid() || slices.Contains(groups, int(stat.Gid)))
}

// Read reads a file that Check has nothing against.
func Read(path string) ([]byte, error) {
	// It does not wait for a writer where path is a named pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("must be a file")}
	}
	if err := Check(info); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxSize)
	}
	return data, err
}
