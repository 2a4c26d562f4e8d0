package engine

import (
	"context"
	"testing"
	"time"
)

func TestRequestID(t *testing.T) {
	type otherKey struct{}
	ctx := context.WithValue(t.Context(), otherKey{}, "other")
	if got := RequestID(ctx); got != "" {
		t.Errorf("without an id: %q", got)
	}
	ctx, cancel := context.WithTimeout(WithRequestID(WithRequestID(ctx, "outer"), "inner"), time.Hour)
	if got := RequestID(ctx); got != "inner" {
		t.Errorf("got %q", got)
	}
	if got := ctx.Value(otherKey{}); got != "other" {
		t.Errorf("another value: %v", got)
	}
	cancel()
	if ctx.Err() == nil {
		t.Error("the context does not end")
	}
}
