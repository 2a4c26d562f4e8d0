package engine

import "github.com/hyok-kms/hyok/keystore"

// slowRoom bounds how many requests at once have an RSA key generated. Each takes
// a processor for up to seconds, and most of them wait; who sends more must not
// take the places of all other requests.
const slowRoom = 32

// slowly takes one of the places for what generates a key of a spec, if that is
// slow, until done is called. AWS KMS throttles such requests sooner than others
// as well.
func (e *Engine) slowly(s keystore.Spec) (done func(), err error) {
	switch s {
	case keystore.SpecRSA2048, keystore.SpecRSA3072, keystore.SpecRSA4096:
	default:
		return func() {}, nil
	}
	select {
	case e.slow <- struct{}{}:
		return func() { <-e.slow }, nil
	default:
		return nil, throttled()
	}
}
