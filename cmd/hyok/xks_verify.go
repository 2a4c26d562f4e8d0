package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/hyok-kms/hyok/xks/verify"
)

// verifyTimeout is the default for one request, longer than AWS KMS waits: a
// slow proxy is to be told what else is wrong with it.
const verifyTimeout = "10s"

// xksVerify is `hyok xks verify` with its flags.
type xksVerify struct {
	xksFlags
	encryptOnly, decryptOnly, impotent, disabled string
	only, skip                                   []string
	output                                       string
}

// xksVerifyError is why a proxy was not found to conform.
type xksVerifyError struct {
	code int
	err  error
}

func (e *xksVerifyError) Error() string { return e.err.Error() }
func (e *xksVerifyError) Unwrap() error { return e.err }

// ExitCode returns 1 if the proxy does not conform and 2 if it could not be reached.
func (e *xksVerifyError) ExitCode() int { return e.code }

// newXKSVerifyCommand makes `hyok xks verify`.
func newXKSVerifyCommand() *cobra.Command {
	v := &xksVerify{}
	cmd := &cobra.Command{
		Use:   "verify [URL]",
		Short: "Check whether an XKS proxy conforms to the specification",
		Long: `Check the XKS proxy at URL (default $HYOK_XKS_URL), hyok's or any other, against
every requirement of the XKS proxy API specification, version 1, that can be
seen from outside. Each check is a line with its section of the specification;
one that fails says what was expected and what came.

It encrypts and decrypts test data with the external key that is named, which
must be enabled and permit both, and sends many requests that must be refused.
Checks of keys with restrictions need such keys, those of mTLS a client
certificate; without, they are reported as not checked.

Exit codes: 0 if every MUST that was checked is met, 1 if one is not, 2 for a
mistake on the command line or a proxy that cannot be reached.`,
		Example: `  . data/quickstart.env
  hyok xks verify
  hyok xks verify --encrypt-only-key-id e --decrypt-only-key-id d --impotent-key-id i
  hyok xks verify https://xks.example.com/prefix --secret-file secret -o json
  hyok xks verify --only auth --only encrypt.cdiv`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%d arguments: at most one URL is expected", len(args))
			}
			return nil
		},
		RunE: v.run,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	v.register(cmd.Flags())
	return cmd
}

func (v *xksVerify) register(fs *pflag.FlagSet) {
	shared := pflag.NewFlagSet("", pflag.ContinueOnError)
	v.xksFlags.register(shared)
	shared.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "http2": // both versions are checked
			return
		case "timeout":
			f.DefValue = verifyTimeout
			_ = f.Value.Set(verifyTimeout) // a constant duration
		}
		fs.AddFlag(f)
	})
	fs.StringVar(&v.encryptOnly, "encrypt-only-key-id", "", "external key `id` of a key that may encrypt only")
	fs.StringVar(&v.decryptOnly, "decrypt-only-key-id", "", "external key `id` of a key that may decrypt only")
	fs.StringVar(&v.impotent, "impotent-key-id", "", "external key `id` of a key that may do neither")
	fs.StringVar(&v.disabled, "disabled-key-id", "", "external key `id` of a disabled key")
	fs.StringArrayVar(&v.only, "only", nil, "make only the checks whose `id` this is or begins with; repeatable")
	fs.StringArrayVar(&v.skip, "skip", nil, "leave out the checks whose `id` this is or begins with; repeatable")
	fs.StringVarP(&v.output, "output", "o", "text", "text or json")
}

func (v *xksVerify) run(cmd *cobra.Command, args []string) error {
	if v.output != "text" && v.output != "json" {
		return usagef("--output %q: it must be text or json", v.output)
	}
	target, err := v.verifyTarget(args)
	if err != nil {
		return err
	}
	checks, err := verify.Select(verify.Checks(), v.only, v.skip)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	// What goes wrong from here on is not a matter of usage.
	cmd.SilenceUsage = true
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()

	text := &verifyText{w: cmd.OutOrStdout(), colour: colourful(cmd.OutOrStdout())}
	document := verifyDocument{URL: target.URL, Results: []verifyResult{}}
	report := text.result
	if v.output == "json" {
		report = document.add
	}
	sum, err := verify.Run(ctx, target, checks, report)
	if err != nil {
		return &xksVerifyError{code: 2, err: fmt.Errorf("verify %s: %w", target.URL, err)}
	}
	if v.output == "json" {
		err = document.write(cmd.OutOrStdout(), sum)
	} else {
		err = text.summary(sum)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if !sum.Conforms() {
		return &xksVerifyError{code: 1, err: fmt.Errorf("%s does not conform: %d checks failed", target.URL, sum.Failed)}
	}
	return nil
}

// verifyTarget resolves flags and environment.
func (v *xksVerify) verifyTarget(args []string) (verify.Target, error) {
	t, err := v.target(args)
	if err != nil {
		return verify.Target{}, err
	}
	if len(t.KeyIDs) > 1 {
		return verify.Target{}, usagef("%d external keys: one --key-id is expected", len(t.KeyIDs))
	}
	config, err := v.tlsConfig()
	if err != nil {
		return verify.Target{}, err
	}
	target := verify.Target{
		URL: t.URL.String(), Region: t.Region, Credential: t.Credential, KeyID: t.KeyIDs[0],
		EncryptOnlyKeyID: v.encryptOnly, DecryptOnlyKeyID: v.decryptOnly, ImpotentKeyID: v.impotent, DisabledKeyID: v.disabled,
		RootCAs: config.RootCAs, Timeout: v.timeout,
	}
	if len(config.Certificates) > 0 {
		target.ClientCertificate = &config.Certificates[0]
	}
	return target, nil
}

// colourful reports whether a person looks at w and wants colours.
func colourful(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

// verifyText prints results for people, one line each as it comes.
type verifyText struct {
	w      io.Writer
	colour bool
	err    error // the first of writing
}

func (t *verifyText) result(r verify.Result) {
	label, colour := "PASS", "32"
	switch r.Status {
	case verify.Fail:
		label, colour = "FAIL", "1;31"
	case verify.Warn:
		label, colour = "WARN", "33"
	case verify.NotChecked:
		label, colour = "SKIP", "2"
	}
	if t.colour {
		label = "\x1b[" + colour + "m" + label + "\x1b[0m"
	}
	t.printf("%s  %-40s [%s]  %s\n", label, r.ID, r.Section, r.Title)
	if r.Detail != "" {
		t.printf("      %s\n", r.Detail)
	}
}

func (t *verifyText) summary(s verify.Summary) error {
	verdict := "conforms"
	if !s.Conforms() {
		verdict = "does not conform"
	}
	t.printf("\n%d passed, %d failed, %d warnings, %d not checked: the proxy %s as far as was checked\n",
		s.Passed, s.Failed, s.Warned, s.NotChecked, verdict)
	return t.err
}

func (t *verifyText) printf(format string, args ...any) {
	_, err := fmt.Fprintf(t.w, format, args...)
	t.err = errors.Join(t.err, err)
}

// verifyDocument is what `hyok xks verify -o json` prints:
//
//	url       up to and with the key store's path prefix
//	results   the checks in the order in which they were made
//	  id        stable name of the check, such as "encrypt.cdiv.aad"
//	  section   of the specification
//	  title     what is required
//	  level     "MUST" or "SHOULD"
//	  status    "pass", "fail" (a MUST that is not met), "warn" or "not-checked"
//	  detail    what was expected and what came, or why it was not checked; absent on pass
//	  millis    duration in milliseconds
//	summary   how many passed, failed, warned, notChecked; conforms is true if none failed
type verifyDocument struct {
	URL     string         `json:"url"`
	Results []verifyResult `json:"results"`
	Summary verifySummary  `json:"summary"`
}

type verifyResult struct {
	ID      string        `json:"id"`
	Section string        `json:"section"`
	Title   string        `json:"title"`
	Level   verify.Level  `json:"level"`
	Status  verify.Status `json:"status"`
	Detail  string        `json:"detail,omitzero"`
	Millis  float64       `json:"millis"`
}

type verifySummary struct {
	Passed     int  `json:"passed"`
	Failed     int  `json:"failed"`
	Warned     int  `json:"warned"`
	NotChecked int  `json:"notChecked"`
	Conforms   bool `json:"conforms"`
}

func (d *verifyDocument) add(r verify.Result) {
	d.Results = append(d.Results, verifyResult{
		r.ID, r.Section, r.Title, r.Level, r.Status, r.Detail, float64(r.Duration) / float64(time.Millisecond),
	})
}

func (d *verifyDocument) write(w io.Writer, s verify.Summary) error {
	d.Summary = verifySummary{s.Passed, s.Failed, s.Warned, s.NotChecked, s.Conforms()}
	if err := json.MarshalWrite(w, d, json.Deterministic(true), jsontext.WithIndent("  ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
