package engine

import (
	"context"
	"fmt"
	"testing"

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
