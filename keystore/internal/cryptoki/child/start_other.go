//go:build !linux

package child

import "errors"

var errLinux = errors.New("a module in a process of its own needs Linux")

func start(*Config) (*process, error) { return nil, errLinux }
func prepare() error                  { return errLinux }
func newLine(int) (*line, error)      { return nil, errLinux }
func acceptLine() (int, error)        { return 0, errLinux }
func read(int, []byte) (int, error)   { return 0, errLinux }
func write(int, []byte) (int, error)  { return 0, errLinux }
func cut(int)                         {}
func closeSocket(int)                 {}
