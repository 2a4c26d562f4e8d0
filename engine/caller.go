package engine

import "context"

// Caller is who makes a request: the account that a [Client] acts in, and the
// principal within it.
type Caller struct {
	Account string // 12 digits
	ARN     string // of the principal, such as arn:aws:iam::111122223333:user/alice
	UserID  string // the principal's unique id, as GetCallerIdentity answers it
}

// requestContext is a context with the id of a request. A type of its own takes
// a third of the memory blocks that context.WithValue would.
type requestContext struct {
	context.Context
	id string
}

// requestIDKey is the key of the request id in a context.
type requestIDKey struct{}

// Value returns the id for its key, and leaves other keys to the parent.
func (c *requestContext) Value(key any) any {
	if key == (requestIDKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// WithRequestID returns a context that carries the id of the request that is
// served with it.
func WithRequestID(ctx context.Context, id string) context.Context {
	return &requestContext{ctx, id}
}

// RequestID returns the id that [WithRequestID] put into the context, or "" if
// it has none, as in calls that did not come over HTTP.
func RequestID(ctx context.Context) string {
	if c, ok := ctx.Value(requestIDKey{}).(*requestContext); ok {
		return c.id
	}
	return ""
}
