package main

import "golang.org/x/sys/unix"

// undumpable also covers a core_pattern that pipes dumps to a program, which
// ignores the limit.
func undumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
