package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hardenProcess keeps what is in memory out of core dumps, and from being read
// by other processes of the same user, and keeps new files private.
func hardenProcess() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := undumpable(); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	unix.Umask(0o077)
	return nil
}
