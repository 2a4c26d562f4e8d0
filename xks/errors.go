package xks

import (
	"fmt"
	"net/http"
)

// ErrorName is an errorName of the specification's table of error codes.
type ErrorName string

// All error names of the specification ("Error codes").
const (
	ValidationException           ErrorName = "ValidationException"
	InvalidStateException         ErrorName = "InvalidStateException"
	InvalidCiphertextException    ErrorName = "InvalidCiphertextException"
	InvalidKeyUsageException      ErrorName = "InvalidKeyUsageException"
	AuthenticationFailedException ErrorName = "AuthenticationFailedException"
	AccessDeniedException         ErrorName = "AccessDeniedException"
	KeyNotFoundException          ErrorName = "KeyNotFoundException"
	InvalidURIPathException       ErrorName = "InvalidUriPathException"
	ThrottlingException           ErrorName = "ThrottlingException"
	UnsupportedOperationException ErrorName = "UnsupportedOperationException"
	DependencyTimeoutException    ErrorName = "DependencyTimeoutException"
	InternalException             ErrorName = "InternalException"
)

// Status returns the HTTP status that the specification pairs with the name,
// or 0 if the name is not in its table.
func (n ErrorName) Status() int {
	switch n {
	case ValidationException, InvalidStateException, InvalidCiphertextException, InvalidKeyUsageException:
		return http.StatusBadRequest
	case AuthenticationFailedException:
		return http.StatusUnauthorized
	case AccessDeniedException:
		return http.StatusForbidden
	case KeyNotFoundException, InvalidURIPathException:
		return http.StatusNotFound
	case ThrottlingException:
		return http.StatusTooManyRequests
	case UnsupportedOperationException:
		return http.StatusNotImplemented
	case DependencyTimeoutException:
		return http.StatusServiceUnavailable
	case InternalException:
		return http.StatusInternalServerError
	}
	return 0
}

// Error is an error of the proxy API, on either side of it: the server answers
// with its Name and Message, the client returns one for each error answer.
type Error struct {
	Name    ErrorName
	Message string // for the peer: printable ASCII, under 512 characters, no secret
	Cause   error  // for the log of this side alone; may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Message == "" && e.Cause == nil:
		return string(e.Name)
	case e.Cause == nil:
		return fmt.Sprintf("%s: %s", e.Name, e.Message)
	default:
		return fmt.Sprintf("%s: %s: %v", e.Name, e.Message, e.Cause)
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
