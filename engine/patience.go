package engine

import (
	"context"
	"time"
)

// patientKey is under what a context carries the one that lasts longer.
type patientKey struct{}

// WithDeadlines returns a context for a request that ends after a time, and lets the
// request take longer if it needs a key pair that has to be generated first.
func WithDeadlines(ctx context.Context, usual, generation time.Duration) (context.Context, context.CancelFunc) {
	patient, cancelPatient := context.WithTimeout(ctx, max(usual, generation))
	ctx, cancel := context.WithTimeout(context.WithValue(patient, patientKey{}, patient), usual)
	return ctx, func() {
		cancel()
		cancelPatient()
	}
}

// Patient returns the context for a request that needs a key pair: ctx, unless it
// has one that lasts longer.
func Patient(ctx context.Context) context.Context {
	if longer, ok := ctx.Value(patientKey{}).(context.Context); ok {
		return longer
	}
	return ctx
}
