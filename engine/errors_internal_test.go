package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// What a token answers when it cannot be used now has an error of the API by which
// clients know to try again, and only what an operator must see is an event.
func TestTokenErrors(t *testing.T) {
	for _, test := range []struct {
		err   error
		code  string
		event bool
	}{
		{keystore.ErrBusy, "ThrottlingException", false},
		{fmt.Errorf("%w: %w", keystore.ErrBusy, context.DeadlineExceeded), "DependencyTimeoutException", true},
		{keystore.ErrUnavailable, "DependencyTimeoutException", true},
		{context.DeadlineExceeded, "DependencyTimeoutException", true},
		{context.Canceled, "DependencyTimeoutException", true},
		{keystore.ErrRootKey, "KMSInvalidStateException", true},
		{keystore.ErrInvalidCiphertext, "InvalidCiphertextException", false},
		{fmt.Errorf("what nobody expects"), "KMSInternalException", true},
	} {
		known, unexpected := apiError(fmt.Errorf("token main: %w", test.err))
		if api, ok := known.(interface{ ErrorCode() string }); !ok || api.ErrorCode() != test.code || unexpected != test.event {
			t.Errorf("%v: %v, %t; want %s, %t", test.err, known, unexpected, test.code, test.event)
		}
	}
}

// A full disk is the operator's to mend: callers are told, and that nothing was changed.
func TestFullDiskIsTold(t *testing.T) {
	known, unexpected := apiError(fmt.Errorf("kms.db: change: %w", store.ErrFull))
	var typed *types.KMSInternalException
	if !errors.As(known, &typed) || !unexpected || !strings.Contains(typed.ErrorMessage(), "Nothing was changed") || !strings.Contains(typed.ErrorMessage(), "disk") {
		t.Errorf("%v, %t", known, unexpected)
	}
}

// An error keeps its type on the way to the caller, and says when to try again
// where the keystore or the engine knows.
func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		err   error
		after time.Duration
	}{
		{keystore.ErrUnavailable, 0},
		{&keystore.RetryError{Err: keystore.ErrUnavailable, After: time.Second}, time.Second},
		{&keystore.RetryError{Err: keystore.ErrBusy, After: 2 * time.Second}, 2 * time.Second},
		{&keystore.RetryError{Err: throttled(), After: 3 * time.Second}, 3 * time.Second},
		{&keystore.RetryError{Err: limitExceeded("too many"), After: 4 * time.Second}, 4 * time.Second},
	} {
		known, _ := apiError(fmt.Errorf("token main: %w", test.err))
		if got := RetryAfter(fmt.Errorf("operation: %w", known)); got != test.after {
			t.Errorf("%v: after %v, want %v", test.err, got, test.after)
		}
	}
	known, _ := apiError(&keystore.RetryError{Err: limitExceeded("too many"), After: time.Second})
	var typed *types.LimitExceededException
	if !errors.As(known, &typed) {
		t.Errorf("%T is not of the SDK", known)
	}
}
