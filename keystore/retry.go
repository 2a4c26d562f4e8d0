package keystore

import (
	"errors"
	"time"
)

// RetryError is an error of something that passes by itself: the same request is
// worth another try After. Callers get it wrapped and ask [RetryAfter].
type RetryError struct {
	Err   error
	After time.Duration
}

func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns the error without the time.
func (e *RetryError) Unwrap() error { return e.Err }

// RetryAfter returns the time after which what failed with err is worth another
// try; 0: it is not known.
func RetryAfter(err error) time.Duration {
	var e *RetryError
	if !errors.As(err, &e) {
		return 0
	}
	return e.After
}

// The bounds of retryAfter: the first is what most outages last, the second is the
// longest that botocore waits for a server's word.
const (
	leastRetry = 250 * time.Millisecond
	mostRetry  = 5 * time.Second
)

// retryAfter is when to ask again a token that has not been asked for so long: it
// is expected to stay away as long again.
func (t *trip) retryAfter() time.Duration {
	return min(max(time.Since(t.since), leastRetry), mostRetry).Round(time.Millisecond)
}
