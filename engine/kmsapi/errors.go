package kmsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/aws/smithy-go"
)

// The codes of errors that do not come from the API. SDKs know some of them by
// name, all of them as a smithy.GenericAPIError.
const (
	codeMissingToken  = "MissingAuthenticationTokenException"
	codeIncomplete    = "IncompleteSignatureException"
	codeSignature     = "InvalidSignatureException"
	codeUnrecognized  = "UnrecognizedClientException"
	codeThrottling    = "ThrottlingException"
	codeSerialization = "SerializationException"
	codeUnknown       = "UnknownOperationException"
	codeTooLarge      = "RequestEntityTooLargeException"
	codeTimeout       = "DependencyTimeoutException"
	codeInternal      = "KMSInternalException"

	// Of the Query protocol alone.
	codeInvalidAction  = "InvalidAction"
	codeMalformedQuery = "MalformedQueryString"
)

const (
	internalMessage     = "The request failed for an internal reason; the log of hyok tells more."
	unrecognizedMessage = "The security token included in the request is invalid."
)

// failure is an error answer.
type failure struct {
	code    string
	message string // for the peer; may be empty
	status  int    // HTTP
	cause   error  // for the log alone; may be nil
}

// refuse makes a failure that is the peer's to mend.
func refuse(code, format string, args ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, args...), status: http.StatusBadRequest}
}

// fromAPI is the answer to an error of an operation. The answer to what is no
// error of the SDK's tells nothing of it.
func fromAPI(err error) *failure {
	var serialization serializationError
	if errors.As(err, &serialization) {
		return refuse(codeSerialization, "%s", string(serialization))
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		f := &failure{code: api.ErrorCode(), message: api.ErrorMessage(), status: http.StatusBadRequest}
		if api.ErrorFault() == smithy.FaultServer {
			f.status, f.cause = http.StatusInternalServerError, err
		}
		if f.code == codeTimeout {
			f.status = http.StatusServiceUnavailable
		}
		return f
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{codeTimeout, "The system timed out while trying to fulfill the request.", http.StatusServiceUnavailable, err}
	case errors.Is(err, context.Canceled):
		return &failure{codeTimeout, "The request was withdrawn before it was done.", http.StatusServiceUnavailable, err}
	}
	return &failure{codeInternal, internalMessage, http.StatusInternalServerError, err}
}

// panicked is the answer to a request whose handler panicked. The value of the
// panic is kept only if the runtime made it: another may hold anything.
func panicked(p any) *failure {
	cause := fmt.Errorf("panic with a %T\n%s", p, debug.Stack())
	if err, ok := p.(interface{ RuntimeError() }); ok {
		cause = fmt.Errorf("panic: %v\n%s", err, debug.Stack())
	}
	return &failure{codeInternal, internalMessage, http.StatusInternalServerError, cause}
}

// appendJSON writes the failure as AWS JSON 1.1 has it.
func (f *failure) appendJSON(e *encoder) {
	const typeMember, messageMember = `{"__type":`, `,"message":`
	e.reserve(len(typeMember))
	e.buf = append(e.buf, typeMember...)
	e.text(f.code)
	if f.message != "" {
		e.reserve(len(messageMember))
		e.buf = append(e.buf, messageMember...)
		e.text(f.message)
	}
	e.token('}')
}
