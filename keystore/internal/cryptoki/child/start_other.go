//go:build !linux

package child

import "errors"

var errLinux = errors.New("a module in a process of its own needs Linux")

func start(*Config) (*process, error) { return nil, errLinux }
func prepare() error                  { return errLinux }
func newLine(int) (*line, error)      { return nil, errLinux }
func acceptLine() (*line, error)      { return nil, errLinux }
func closeSocket(int)                 {}
func shutSocket(int)                  {}
