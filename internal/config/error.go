package config

import "fmt"

// Error is one defect of the configuration file or of a file that it names. It
// never holds a value of the file, only its place.
type Error struct {
	File    string
	Line    int    // from 1; 0 where it concerns the whole file
	Column  int    // from 1; 0 where unknown
	Name    string // such as stores.default.prefix; may be empty
	Message string // what is wrong and what is allowed
	Cause   error  // of the file system, may be nil
}

// Error returns "file:line:column: name: message".
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Column > 0 {
		s += fmt.Sprintf(":%d", e.Column)
	}
	s += ": "
	if e.Name != "" {
		s += e.Name + ": "
	}
	return s + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
