package group

import "sync/atomic"

const (
	hedgeShare = 10 // one request in so many may hedge
	hedgeBurst = 10 // and so many more after a quiet time
	hedgeFull  = hedgeShare * hedgeBurst
)

// budget is a bucket of tokens for hedges, so that they cannot double the load on
// tokens that are slow because they are overloaded. Each request adds the tenth
// part of what a hedge takes.
type budget struct{ tenths atomic.Int64 }

func (b *budget) init() { b.tenths.Store(hedgeFull) }

// earn is called by each request.
func (b *budget) earn() {
	if n := b.tenths.Load(); n < hedgeFull {
		b.tenths.CompareAndSwap(n, n+1) // what is lost in a race is lost
	}
}

// spend reports whether a hedge may be done.
func (b *budget) spend() bool {
	for n := b.tenths.Load(); n >= hedgeShare; n = b.tenths.Load() {
		if b.tenths.CompareAndSwap(n, n-hedgeShare) {
			return true
		}
	}
	return false
}
