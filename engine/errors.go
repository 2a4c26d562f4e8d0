package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// The codes of errors that have no type in the SDK. They reach callers as
// *smithy.GenericAPIError, as they do from AWS.
const (
	codeValidation   = "ValidationException"
	codeAccessDenied = "AccessDeniedException"
	codeThrottling   = "ThrottlingException"
)

func message(format string, args []any) *string {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	return &text
}

// invalid is a ValidationException.
func invalid(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: codeValidation, Message: *message(format, args), Fault: smithy.FaultClient}
}

func notFound(format string, args ...any) error {
	return &types.NotFoundException{Message: message(format, args)}
}

func unsupported(format string, args ...any) error {
	return &types.UnsupportedOperationException{Message: message(format, args)}
}

func invalidState(format string, args ...any) error {
	return &types.KMSInvalidStateException{Message: message(format, args)}
}

func limitExceeded(format string, args ...any) error {
	return &types.LimitExceededException{Message: message(format, args)}
}

func invalidUsage(format string, args ...any) error {
	return &types.InvalidKeyUsageException{Message: message(format, args)}
}

// throttled is a ThrottlingException, which has no type in the SDK either.
func throttled() smithy.APIError {
	return &smithy.GenericAPIError{Code: codeThrottling, Message: "Rate exceeded", Fault: smithy.FaultClient}
}

// delayed is an error of the API whose request is worth another try after a time.
type delayed struct {
	smithy.APIError
	after time.Duration
}

// Unwrap returns the error without the time.
func (e *delayed) Unwrap() error { return e.APIError }

// RetryAfter returns the time.
func (e *delayed) RetryAfter() time.Duration { return e.after }

// RetryAfter returns the time after which the request that an operation failed
// with err is worth another try; 0: it is not known.
func RetryAfter(err error) time.Duration {
	var e interface{ RetryAfter() time.Duration }
	if !errors.As(err, &e) {
		return 0
	}
	return e.RetryAfter()
}

// later has an error of the API say what the keystore said of the time to try again.
func later(api smithy.APIError, cause error) error {
	if after := keystore.RetryAfter(cause); after > 0 {
		return &delayed{api, after}
	}
	return api
}

func invalidCiphertext() error { return &types.InvalidCiphertextException{} }

func internal(format string, args ...any) error {
	return &types.KMSInternalException{Message: message(format, args)}
}

// apiError returns err as an error of the API: itself if it is one, otherwise
// the one that KMS has for what happened behind it. What a token or a database
// answered is for the log of this side and stays out.
func apiError(err error) (known error, unexpected bool) {
	var api smithy.APIError
	switch {
	case errors.As(err, &api):
		return later(api, err), false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &types.DependencyTimeoutException{Message: message("The token did not answer in time. The request can be tried again.", nil)}, true
	case errors.Is(err, keystore.ErrUnsupported):
		// An error of the server is one that SDKs repeat, and another try is of no use.
		return unsupported("The token of this KMS does not support this operation or this kind of key; the log tells more."), true
	case errors.Is(err, keystore.ErrUnavailable):
		return later(&types.DependencyTimeoutException{Message: message("The token failed and is not asked now. The request can be tried again.", nil)}, err), true
	case errors.Is(err, keystore.ErrBusy):
		return later(throttled(), err), false // under overload, a line for each would be too much
	case errors.Is(err, keystore.ErrRootKey):
		return invalidState("The root key of this KMS is not usable in its token."), true
	case errors.Is(err, keystore.ErrInvalidCiphertext):
		return invalidCiphertext(), false
	case errors.Is(err, store.ErrFull):
		return internal("Nothing was changed: the disk of this KMS is full. Its operator has to make room, then the request can be tried again."), true
	}
	return internal("The request failed because of an internal error; the log tells more."), true
}
