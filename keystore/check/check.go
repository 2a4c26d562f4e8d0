// Package check runs hyok's own use of a PKCS#11 token, what the XKS proxy and the
// embedded KMS do with one, on keys of its own, and says what the token can serve,
// by which profile, and where it departs from what hyok needs.
//
// All of its keys have labels that begin with [Label], which hyok never serves. They
// are destroyed at the end, and those that a killed check left behind when the next
// one begins. Nothing else in the token is used, changed or shown.
package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore"
)

// Label is what the labels of a check's token objects begin with.
const Label = "hyok.check."

// Door is what uses a token.
type Door string

// The doors.
const (
	XKS Door = "xks" // the XKS proxy
	KMS Door = "kms" // the embedded KMS
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	Pass       Status = "pass"
	Lacks      Status = "lacks" // the token says that it does not do it
	Fail       Status = "fail"  // it does it otherwise than hyok needs
	NotChecked Status = "not-checked"
)

// Result is one check.
type Result struct {
	ID     string // stable, such as "xks.tag"
	Door   Door
	Title  string // what was tried
	Status Status
	Detail string // what was measured on Pass; else what the token answered, or why it was not tried
	Took   time.Duration
}

// Options says which token to check and how.
type Options struct {
	// Token says how to open the token. Its Profile, Isolated, Background and Logger
	// are not looked at: the report tells all.
	Token keystore.Options
	// Profile is the only one to try; nil: those that may fit are tried, and the first
	// that does is used.
	Profile *keystore.Profile
	// Doors to check; none: both.
	Doors []Door
	// Modules is for this check alone; its Scope is set. By its Command it starts the
	// other process, which disables and destroys keys.
	Modules *keystore.Modules
	// Quick leaves out the key specs that take long to make.
	Quick bool
	// Progress is told each result, by the goroutine that called Run; nil: nobody is.
	Progress func(Result)
}

// Report is the outcome of a check.
type Report struct {
	Token   keystore.TokenInfo
	Profile string // that was used
	// Leftovers is how many objects of an earlier check were found and destroyed.
	Leftovers int
	Results   []Result
	Specs     []Spec // of the embedded KMS
	doors     []Door
}

// Checked reports whether a door was checked.
func (r *Report) Checked(d Door) bool { return slices.Contains(r.doors, d) }

// Serves reports whether the token can serve a door.
func (r *Report) Serves(d Door) bool {
	if !r.Checked(d) {
		return false
	}
	n := 0
	for _, res := range r.Results {
		if res.Door != d {
			continue
		}
		if res.Status == Fail || res.Status == Lacks && required(res.ID) {
			return false
		}
		n++
	}
	return n > 0
}

// OK reports whether the token can serve all doors that were checked.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.doors, func(d Door) bool { return !r.Serves(d) })
}

// required reports whether a door cannot do without what a check tries.
func required(id string) bool {
	return !slices.Contains([]string{"xks.known-key", "xks.rotate"}, id) && !isSpecID(id)
}

// runner is a check under way.
type runner struct {
	o       Options
	report  *Report
	profile keystore.Profile
	token   *keystore.Token // as a server opens it
	other   *keystore.Token // the same token for another process; nil: it could not be opened
	why     error           // why other is nil
}

const (
	openTimeout  = 30 * time.Second
	stepTimeout  = time.Minute
	closeTimeout = 5 * time.Second
)

// Run checks a token. An error says that it could not be opened, or that keys of the
// check are left in it; what the token lacks or does otherwise is in the report.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if len(o.Doors) == 0 {
		o.Doors = []Door{XKS, KMS}
	}
	o.Modules.Scope = Label
	r := &runner{o: o, report: &Report{doors: o.Doors}}
	if r.report.Leftovers, err = r.purge(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.cleanUp(ctx)) }()
	if err := r.choose(ctx); err != nil {
		return nil, err
	}
	r.report.Token = r.token.Info()
	r.openOther(ctx)
	if slices.Contains(o.Doors, XKS) {
		r.checkXKS(ctx)
	}
	if slices.Contains(o.Doors, KMS) {
		r.checkKMS(ctx)
	}
	return r.report, ctx.Err()
}

// open opens the token with a profile, as a server does.
func (r *runner) open(ctx context.Context, p keystore.Profile) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	o := r.o.Token
	o.Profile, o.Background, o.Isolated, o.Logger = p, true, false, slog.New(slog.DiscardHandler)
	t, err := keystore.Open(ctx, r.o.Modules, o)
	if err != nil {
		return err
	}
	r.token, r.profile, r.report.Profile = t, p, p.Name
	return nil
}

// openOther opens the token once more, in another process.
func (r *runner) openOther(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	o := r.o.Token
	o.Profile, o.Isolated, o.ProvePIN, o.Logger = r.profile, true, false, slog.New(slog.DiscardHandler)
	r.other, r.why = keystore.Open(ctx, r.o.Modules, o)
}

// purge destroys all keys of checks. The token is opened for this alone, so that
// nothing that was found out about it before is in the way.
func (r *runner) purge(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	o := r.o.Token
	o.Background, o.Isolated, o.Logger = false, false, slog.New(slog.DiscardHandler)
	var t *keystore.Token
	for _, o.Profile = range r.candidates() {
		if t, err = keystore.Open(ctx, r.o.Modules, o); !errors.Is(err, keystore.ErrProfile) {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.closeToken(ctx, t)) }()
	return t.Purge(ctx, "")
}

// cleanUp closes the token and destroys the keys of the check, also after ctx has
// ended.
func (r *runner) cleanUp(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, t := range []*keystore.Token{r.other, r.token} {
		if t != nil {
			errs = append(errs, r.closeToken(ctx, t))
		}
	}
	if _, err := r.purge(ctx); err != nil {
		errs = append(errs, fmt.Errorf("keys labelled %s… may be left in the token, until the next check: %w", Label, err))
	}
	return errors.Join(errs...)
}

func (r *runner) closeToken(ctx context.Context, t *keystore.Token) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return t.Close(ctx)
}

// errNotChecked says why something was not tried.
type errNotChecked string

func (e errNotChecked) Error() string { return string(e) }

// step runs one check and notes its outcome. What it returns is whether it passed.
func (r *runner) step(ctx context.Context, door Door, id, title string, try func(ctx context.Context) (detail string, err error)) bool {
	res := Result{ID: string(door) + "." + id, Door: door, Title: title}
	if ctx.Err() != nil {
		return false
	}
	stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	begin := time.Now()
	detail, err := try(stepCtx)
	res.Took, res.Detail = time.Since(begin), detail
	if ctx.Err() != nil {
		return false // it was interrupted: that says nothing of the token
	}
	res.Status, res.Detail = outcome(detail, err)
	r.report.Results = append(r.report.Results, res)
	if r.o.Progress != nil {
		r.o.Progress(res)
	}
	return res.Status == Pass
}

// outcome tells a token that lacks something from one that does it wrongly.
func outcome(detail string, err error) (Status, string) {
	var skipped errNotChecked
	switch {
	case err == nil:
		return Pass, detail
	case errors.As(err, &skipped):
		return NotChecked, err.Error()
	case isLacking(err):
		return Lacks, err.Error()
	}
	return Fail, err.Error()
}

// isLacking reports whether err says that the token does not do at all what it was
// asked.
func isLacking(err error) bool {
	var code pkcs11.Error
	return errors.Is(err, keystore.ErrUnsupported) ||
		errors.As(err, &code) && slices.Contains([]uint{pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED}, uint(code))
}
