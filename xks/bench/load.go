package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// DefaultRate is the default quota of AWS KMS for cryptographic requests to a
// custom key store, in requests a second.
const DefaultRate = 1800

// Limit is how long AWS KMS waits for an answer.
const Limit = 250 * time.Millisecond

// maxRate keeps the interval between two requests well above the resolution of
// any clock, in requests a second.
const maxRate = 1e6

// Operation says which requests a load consists of.
type Operation string

// The operations of a load.
const (
	Encrypt Operation = "encrypt"
	Decrypt Operation = "decrypt" // of ciphertexts that the proxy made before the load begins
	Mixed   Operation = "mixed"   // as many of the one as of the other
)

// Load is what to send to a proxy.
type Load struct {
	// NewRequest makes a signed request for a path below xks.APIPath; the
	// signature is made at the time of the call.
	NewRequest func(ctx context.Context, path string, body []byte) (*http.Request, error)
	// Transport is cloned for each connection.
	Transport *http.Transport

	Operation     Operation
	CDIV          bool     // ask Encrypt for a ciphertextDataIntegrityValue, and check it
	KeyIDs        []string // at least one; used evenly, in no order that a cache could like
	PlaintextSize int      // bytes, at least 1
	AADSize       int      // bytes; 0: no AAD

	Connections int           // each carries one request at a time
	Rate        float64       // requests a second; 0: closed loop
	Duration    time.Duration // of the measurement; ignored if Requests is given
	Requests    int64         // to measure, instead of a duration
	Warmup      time.Duration // sends as the rest does, and is not counted
	Timeout     time.Duration // of each request, from when it is sent
}

// Validate says what makes the load senseless. Run does too.
func (l *Load) Validate() error {
	switch {
	case l.NewRequest == nil || l.Transport == nil:
		return errors.New("load: NewRequest and Transport are required")
	case l.Operation != Encrypt && l.Operation != Decrypt && l.Operation != Mixed:
		return fmt.Errorf("operation %q: it must be %s, %s or %s", l.Operation, Encrypt, Decrypt, Mixed)
	case len(l.KeyIDs) == 0:
		return errors.New("no external key to use")
	case slices.ContainsFunc(l.KeyIDs, func(id string) bool { return !validKeyID(id) }):
		return errors.New("an external key id has 1 to 128 characters of A-Z, a-z, 0-9, '-', '.' and '_': one of those given does not")
	case l.PlaintextSize < 1 || l.PlaintextSize > xks.MinPlaintextLimit:
		return fmt.Errorf("plaintext of %d bytes: it must have 1 to %d", l.PlaintextSize, xks.MinPlaintextLimit)
	case l.AADSize < 0 || l.AADSize > xks.MinAADLimit:
		return fmt.Errorf("additional authenticated data of %d bytes: it must have 0 to %d", l.AADSize, xks.MinAADLimit)
	case l.Connections < 1:
		return fmt.Errorf("%d connections: at least one is needed", l.Connections)
	case math.IsNaN(l.Rate) || l.Rate < 0 || l.Rate > maxRate:
		return fmt.Errorf("rate of %g a second: it must be between 0 (closed loop) and %g", l.Rate, float64(maxRate))
	case l.Requests < 0 || l.Requests == 0 && l.Duration <= 0:
		return errors.New("a positive duration or number of requests is needed")
	case l.Rate > 0 && l.Requests == 0 && l.Rate*l.Duration.Seconds() < 1:
		return fmt.Errorf("rate of %g a second for %v: no request would be due", l.Rate, l.Duration)
	case l.Warmup < 0 || l.Timeout <= 0:
		return errors.New("the warm-up must not be negative, the timeout must be positive")
	}
	return nil
}

func validKeyID(id string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"
	return len(id) >= 1 && len(id) <= 128 && strings.Trim(id, allowed) == "" && id != "." && id != ".."
}

// Phase is what a run is doing.
type Phase string

// The phases of a run, in their order.
const (
	Preparing Phase = "preparing" // one request of each kind, ciphertexts to decrypt
	WarmingUp Phase = "warming up"
	Measuring Phase = "measuring"
)

// Progress is how far a run has come.
type Progress struct {
	Phase    Phase
	Fraction float64 // of the phase, from 0 to 1
	Due      int64   // requests to measure that were due by now; closed loop: sent
	Done     int64   // of these: answered or failed
	Failed   int64   // of these
}
