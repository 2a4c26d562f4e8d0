// Package diskspace says in words that a write failed for want of room, and what to do.
package diskspace

import (
	"errors"
	"fmt"
	"syscall"
)

// Explain returns the error of a write with its meaning to an operator before it, where
// the file system took no more.
func Explain(err error) error {
	for _, e := range []struct {
		code syscall.Errno
		text string
	}{
		{syscall.ENOSPC, "the disk is full: make room on it, then try again"},
		{syscall.EDQUOT, "the disk quota of this user or project is used up: raise it or make room, then try again"},
		{syscall.EFBIG, "the file may not grow: raise the limit of files' sizes (ulimit -f, LimitFSIZE), then try again"},
		{syscall.EROFS, "the file system takes no writes: Linux has it so after errors of the disk, see dmesg"},
	} {
		if errors.Is(err, e.code) {
			return fmt.Errorf("%s (%w)", e.text, err)
		}
	}
	return err
}
