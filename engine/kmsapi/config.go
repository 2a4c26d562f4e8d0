package kmsapi

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/engine"
)

// Identity is who a request may be signed by. Its String, GoString and
// LogValue forms leave the secrets out.
type Identity struct {
	AccessKeyID     string // 1 to 128 printable characters without '/' and ','
	SecretAccessKey string
	SessionToken    string // if set, requests must carry it in X-Amz-Security-Token
	Account         string // 12 digits
	PrincipalARN    string // default: the root of the account
	UserID          string // default: the account, as for its root
}

// Config is what a [Handler] serves, and to whom.
type Config struct {
	Identities []Identity // access key ids are unique
	// Client returns the API as a caller in a Region sees it. It is called by
	// many goroutines at once, and so is the API that it returns, which is kept
	// for the caller's next requests. Once an operation has returned, nothing
	// else may use its input, nor the plaintexts and shared secrets of its
	// output: the handler wipes them. While it returns nil, the KMS cannot serve
	// yet: operations are answered with DependencyTimeoutException.
	Client func(region string, caller engine.Caller) engine.API
	// Deadline bounds the work on a request once its body is here. Default 8 s,
	// so that an answer still fits in the 10 s that a listener takes to write.
	Deadline time.Duration
	// Generation bounds the work on a request that needs an RSA pair to be generated,
	// and has the listener wait as much longer. Default 50 s: the aws CLI and boto3
	// wait 60 s for an answer.
	Generation time.Duration
	// MaxInFlight bounds the requests that are worked on at once; one more is
	// refused with ThrottlingException. Default 256.
	MaxInFlight int
	Observe     func(Observation) // called by many goroutines at once; may be nil
	Logger      *slog.Logger      // gets one line for each request; nil: none
}

const (
	defaultDeadline    = 8 * time.Second
	defaultGeneration  = 50 * time.Second
	defaultMaxInFlight = 256
	maxAccessKeyID     = 128
)

func (c *Config) setDefaults() {
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.Generation == 0 {
		c.Generation = defaultGeneration
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports everything that would keep a [Handler] from serving the
// configuration.
func (c *Config) Validate() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("no client: name what to serve"))
	}
	if c.Deadline < 0 || c.Generation < 0 || c.MaxInFlight < 0 {
		errs = append(errs, errors.New("deadlines and requests in flight cannot be negative"))
	}
	seen := map[string]bool{}
	for i := range c.Identities {
		id := &c.Identities[i]
		if seen[id.AccessKeyID] {
			errs = append(errs, fmt.Errorf("access key id %q is given twice", id.AccessKeyID))
		}
		seen[id.AccessKeyID] = true
		if err := id.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Validate reports what is wrong with the identity. The error contains no
// secret.
func (id *Identity) Validate() error {
	if id.AccessKeyID == "" || len(id.AccessKeyID) > maxAccessKeyID || strings.ContainsFunc(id.AccessKeyID, unfitForID) {
		return fmt.Errorf("access key id %q: it must have 1 to %d printable characters without spaces, '/' and ','", id.AccessKeyID, maxAccessKeyID)
	}
	if id.SecretAccessKey == "" {
		return fmt.Errorf("access key id %s has no secret access key", id.AccessKeyID)
	}
	if len(id.Account) != 12 || strings.Trim(id.Account, "0123456789") != "" {
		return fmt.Errorf("access key id %s: account %q must have 12 digits", id.AccessKeyID, id.Account)
	}
	if id.PrincipalARN != "" && !strings.HasPrefix(id.PrincipalARN, "arn:") {
		return fmt.Errorf("access key id %s: principal %q must be an ARN", id.AccessKeyID, id.PrincipalARN)
	}
	return nil
}

// unfitForID reports whether a credential scope or a header cannot hold r.
func unfitForID(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ',' }

// caller returns the identity as the engine sees it.
func (id *Identity) caller() engine.Caller {
	c := engine.Caller{Account: id.Account, ARN: id.PrincipalARN, UserID: id.UserID}
	if c.ARN == "" {
		c.ARN = "arn:aws:iam::" + id.Account + ":root"
	}
	if c.UserID == "" {
		c.UserID = id.Account
	}
	return c
}

// String returns the access key id alone.
func (id Identity) String() string { return id.AccessKeyID }

// GoString returns the access key id alone.
func (id Identity) GoString() string { return "kmsapi.Identity{" + id.AccessKeyID + "}" }

// LogValue returns the access key id alone.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.AccessKeyID) }
