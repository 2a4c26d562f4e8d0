// Package verify checks whether an XKS proxy conforms to the specification of
// the AWS KMS External Key Store Proxy API, version 1, as far as that can be
// seen from outside: hyok's own proxy or another vendor's.
//
// Each [Check] is one requirement, positive or negative, with the section of
// the specification that it comes from. The package builds, signs and damages
// its requests by itself and shares no code with the server but the wire
// names, so that a mistake in one is not repeated by the other.
package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// Target is the proxy to check and what it takes to talk to it.
type Target struct {
	URL        string // scheme, host and the key store's path prefix, without /kms/xks/v1
	Region     string // of the credential scope; us-east-1 if empty
	Credential xks.Credential
	KeyID      string // external key id of an enabled key that may encrypt and decrypt

	// External key ids for checks of keys with restrictions. A check whose key
	// is not given is reported as not checked.
	EncryptOnlyKeyID string // may encrypt, not decrypt
	DecryptOnlyKeyID string // may decrypt, not encrypt
	ImpotentKeyID    string // may do neither
	DisabledKeyID    string // keyStatus DISABLED

	RootCAs           *x509.CertPool   // trusted for the proxy's certificate; nil: the system's
	ClientCertificate *tls.Certificate // presented to the proxy; nil: none, and mTLS is not checked
	Timeout           time.Duration    // of one request; 10 seconds if zero
}

// Level is how strongly the specification asks for something.
type Level string

// Levels of RFC 2119. A SHOULD that is not met gives a warning.
const (
	Must   Level = "MUST"
	Should Level = "SHOULD"
)

// Status is the outcome of one check.
type Status string

// Outcomes. A check that could not be made (a key not given, a feature not in
// use) is NotChecked, never Pass.
const (
	Pass       Status = "pass"
	Fail       Status = "fail"
	Warn       Status = "warn"
	NotChecked Status = "not-checked"
)

// Check is one requirement of the specification.
type Check struct {
	ID      string // dotted and stable: a prefix names a group
	Section string // heading in the specification, "App. C" for appendix C
	Title   string
	Level   Level

	// run returns nil if the requirement is met, an error made by skipf or
	// warnf, or any other error, which says what was expected and seen.
	run func(context.Context, *prober) error
}

// Result is the outcome of one check.
type Result struct {
	Check
	Status   Status
	Detail   string // empty on Pass; otherwise what was expected and seen, or why not checked
	Duration time.Duration
}

// Summary counts the results of a run by status.
type Summary struct {
	Passed, Failed, Warned, NotChecked int
}

// Conforms reports whether no check of level MUST failed.
func (s Summary) Conforms() bool { return s.Failed == 0 }

// ErrUnreachable is wrapped by the error of [Run] if the proxy gave no HTTP
// answer, or would not take the credential: nothing can be checked then.
var ErrUnreachable = errors.New("cannot reach the proxy")

// Checks returns all checks in the order in which they are made.
func Checks() []Check {
	return slices.Concat(
		transportChecks(), uriChecks(), authChecks(), requestChecks(),
		healthChecks(), metadataChecks(), encryptChecks(), roundTripChecks(), decryptChecks(),
		usageChecks(), mtlsChecks(), loadChecks(), answerChecks(),
	)
}

// Select returns the checks whose id is, or starts below, one of only (all if
// empty) and none of skip. Ids are compared by whole dotted parts: "encrypt"
// selects "encrypt.cdiv". A name that matches no check is an error.
func Select(checks []Check, only, skip []string) ([]Check, error) {
	for _, name := range slices.Concat(only, skip) {
		if !slices.ContainsFunc(checks, func(c Check) bool { return below(c.ID, name) }) {
			return nil, fmt.Errorf("no check is called %q, or has an id that begins with %q", name, name+".")
		}
	}
	var selected []Check
	for _, c := range checks {
		matches := func(name string) bool { return below(c.ID, name) }
		if (len(only) == 0 || slices.ContainsFunc(only, matches)) && !slices.ContainsFunc(skip, matches) {
			selected = append(selected, c)
		}
	}
	return selected, nil
}

func below(id, name string) bool { return id == name || strings.HasPrefix(id, name+".") }

// Run makes the checks one after another and hands each result to report as
// soon as it is known. It returns an error, wrapping [ErrUnreachable] where
// that is why, if the target is not usable or ctx ends; failed checks are no
// error.
func Run(ctx context.Context, target Target, checks []Check, report func(Result)) (Summary, error) {
	p, err := newProber(target)
	if err != nil {
		return Summary{}, err
	}
	defer p.close()
	if err := p.preflight(ctx); err != nil {
		return Summary{}, err
	}
	var sum Summary
	for _, c := range checks {
		started := time.Now()
		err := c.run(ctx, p.forCheck(c.ID))
		if ctx.Err() != nil {
			return sum, fmt.Errorf("stopped during check %s: %w", c.ID, context.Cause(ctx))
		}
		r := judge(c, err)
		r.Duration = time.Since(started)
		sum.add(r.Status)
		report(r)
	}
	return sum, nil
}

func (s *Summary) add(status Status) {
	switch status {
	case Pass:
		s.Passed++
	case Fail:
		s.Failed++
	case Warn:
		s.Warned++
	case NotChecked:
		s.NotChecked++
	}
}

// verdict is an error that fixes the status of its check whatever its level.
type verdict struct {
	status Status
	detail string
}

func (v *verdict) Error() string { return v.detail }

// skipf says why a check could not be made.
func skipf(format string, args ...any) error {
	return &verdict{NotChecked, fmt.Sprintf(format, args...)}
}

// warnf is for what the specification permits, or leaves open, but should be known.
func warnf(format string, args ...any) error {
	return &verdict{Warn, fmt.Sprintf(format, args...)}
}

func judge(c Check, err error) Result {
	r := Result{Check: c, Status: Pass}
	if err == nil {
		return r
	}
	r.Status, r.Detail = Fail, strings.ReplaceAll(err.Error(), "\n", "; ") // joined errors: one line all the same
	if v, ok := errors.AsType[*verdict](err); ok {
		r.Status = v.status
	} else if c.Level != Must {
		r.Status = Warn
	}
	return r
}
