package engine

import (
	"context"

	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

// call runs one operation: it checks the input against the service model and
// gives errors the form that the official client gives them.
func call[I, O any](ctx context.Context, c *Client, op string, in *I, do func(context.Context, *I) (*O, error)) (*O, error) {
	if in == nil {
		in = new(I)
	}
	in = constraint.Present(c.engine.checks, in)
	err := c.engine.checks.Check(in)
	if err == nil {
		var out *O
		if out, err = do(ctx, in); err == nil {
			return out, nil
		}
	}
	known, unexpected := apiError(err)
	if unexpected {
		c.engine.log.ErrorContext(ctx, "an operation failed for a reason on this side", "operation", op,
			"region", c.region, "account", c.caller.Account, "request", RequestID(ctx), "error", err)
	}
	return nil, &smithy.OperationError{ServiceID: "KMS", OperationName: op, Err: known}
}
