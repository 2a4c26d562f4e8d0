package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/check"
)

// tokenCheck is the command hyok token check.
type tokenCheck struct {
	tokenFlags
	format  *outputFormat
	profile string
	only    string
	quick   bool
}

func newTokenCheckCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	c := &tokenCheck{tokenFlags: tokenFlags{dataFlags: data}, format: format}
	cmd := &cobra.Command{
		Use:   "check [URI|NAME]",
		Short: "Try what hyok needs of a token, on keys of its own",
		Long: `Does with the token that a PKCS#11 URI names, or one of the configuration, what the XKS
proxy and the embedded KMS do: makes keys of every spec, uses them, compares the outcome with
another implementation, imports keys, disables and destroys some from another process and
measures how soon that is noticed, and lets the token close all sessions.

It is safe on a token with production keys: it sees, uses and changes nothing but keys of its
own, whose labels begin with ` + check.Label + `, and which it destroys at the end, also after Ctrl-C.
What a killed check left behind the next one destroys. Two checks of one token at a time disturb
each other, and nothing else. It needs no configuration; SoftHSM2 uses the softhsm2_conf of the one
that --data or --config names, or $SOFTHSM2_CONF.

Without --profile it tries those that hyok knows and uses the first by which AES-GCM works. The
exit code is 0 if the token can serve what was checked, whatever key specs of the KMS it lacks, 1
if it cannot, and 4 if it refused the PIN.`,
		Example: `  $ hyok token check 'pkcs11:token=lab?module-path=/usr/lib/vendor/pkcs11.so&pin-source=file:pin'
  $ hyok token check main --only xks -o json`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.tokenNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, strings.Join(args, "")) },
	}
	cmd.Flags().StringVar(&c.profile, "profile", "", "try this profile only: "+strings.Join(profiles(), ", "))
	cmd.Flags().StringVar(&c.only, "only", "", "check what the XKS proxy (xks) or the embedded KMS (kms) needs only")
	cmd.Flags().BoolVar(&c.quick, "quick", false, "leave out RSA keys of more than 2048 bits, which take long to make")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(profiles(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{string(check.XKS), string(check.KMS)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *tokenCheck) run(cmd *cobra.Command, token string) error {
	log := quietLogger(cmd.Context(), cmd.ErrOrStderr())
	o, err := c.options(cmd, token, log)
	if err != nil {
		return err
	}
	proxy.KeepTokens(log)
	text := &checkText{cmd: cmd}
	if *c.format == formatTable {
		o.Progress = text.result
	}
	report, err := check.Run(cmd.Context(), o)
	if cmd.Context().Err() != nil {
		return errors.Join(fmt.Errorf("interrupted: %w", cmd.Context().Err()), err)
	}
	if report == nil {
		return err
	}
	if *c.format == formatJSON {
		err = errors.Join(printJSON(cmd.OutOrStdout(), newTokenCheckView(o.Token.URI, report)), err)
	} else {
		err = errors.Join(text.err, text.summary(report), err)
	}
	if err == nil && !report.OK() {
		return fmt.Errorf("the token cannot serve %s", unserved(report))
	}
	return err
}

// options says what to check.
func (c *tokenCheck) options(cmd *cobra.Command, token string, log *slog.Logger) (o check.Options, err error) {
	o.Modules, o.Quick = &keystore.Modules{Command: keystore.ModuleProcess()}, c.quick
	switch door := check.Door(c.only); door {
	case "":
	case check.XKS, check.KMS:
		o.Doors = []check.Door{door}
	default:
		return o, usagef("--only takes xks or kms")
	}
	if c.profile != "" {
		p, err := keystore.ProfileByName(c.profile)
		if err != nil {
			return o, usagef("%w", err)
		}
		o.Profile = &p
	}
	if isURI(token) {
		o.Token, err = c.uriOptions(cmd, token, log)
		return o, err
	}
	conf, t, err := c.choose(token)
	if err != nil {
		return o, err
	}
	if err := proxy.SetEnvironment(conf); err != nil {
		return o, err
	}
	o.Modules = proxy.NewModules(conf.Dir())
	if o.Token, err = commandOptions(cmd, conf, t, log); err == nil && o.Profile == nil {
		o.Profile = &o.Token.Profile
	}
	return o, err
}

func isURI(s string) bool {
	const scheme = "pkcs11:"
	return len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme)
}

// uriOptions opens a token that no configuration names.
func (c *tokenCheck) uriOptions(cmd *cobra.Command, uri string, log *slog.Logger) (o keystore.Options, err error) {
	u, err := keystore.ParseURI(uri)
	if err != nil {
		return o, usagef("%w", err)
	}
	if _, _, err := c.modules(moduleFlags{u.ModulePath, u.ModuleParameters}); err != nil { // which sets the environment
		return o, err
	}
	o = keystore.Options{Name: "check", URI: u, PINFrom: &keystore.PINFromURI{Dir: "."}, Logger: log}
	o.PIN, err = pinFunc(cmd, u.Token, u, func() (string, error) { return u.PIN(".", false) })
	return o, err
}

// checkText prints a check for people.
type checkText struct {
	cmd *cobra.Command
	err error
}

func (t *checkText) result(r check.Result) {
	label := map[check.Status]string{check.Pass: "PASS", check.Lacks: "LACK", check.Fail: "FAIL", check.NotChecked: "SKIP"}[r.Status]
	t.printf("%s  %-32s %s\n", label, r.ID, r.Title)
	if r.Detail != "" {
		t.printf("      %s\n", r.Detail)
	}
}

func (t *checkText) summary(r *check.Report) error {
	t.printf("\n")
	info := r.Token
	rows := [][]string{
		{"SERIAL", info.Serial}, {"MANUFACTURER", info.Manufacturer}, {"MODEL", info.Model}, {"FIRMWARE", info.Firmware},
		{"PROFILE", r.Profile},
		{"XKS PROXY", servedText(r, check.XKS)}, {"EMBEDDED KMS", servedText(r, check.KMS)},
	}
	if r.Leftovers > 0 {
		rows = append(rows, []string{"LEFT BEHIND", fmt.Sprintf("%d keys of an earlier check, destroyed", r.Leftovers)})
	}
	err := printTable(t.cmd.OutOrStdout(), []string{"TOKEN", info.Label}, rows)
	if len(r.Specs) == 0 {
		return errors.Join(t.err, err)
	}
	t.printf("\n")
	rows = nil
	for _, s := range r.Specs {
		rows = append(rows, []string{string(s.Name), specText(s.Made), keptText(s), specText(s.Used), specText(s.Imported), s.Took.Round(time.Millisecond).String()})
	}
	return errors.Join(t.err, err, printTable(t.cmd.OutOrStdout(), []string{"KEY SPEC", "MADE", "KEPT", "USED", "IMPORTED", "TIME TO MAKE"}, rows))
}

func (t *checkText) printf(format string, args ...any) {
	_, err := fmt.Fprintf(t.cmd.OutOrStdout(), format, args...)
	t.err = errors.Join(t.err, err)
}

func servedText(r *check.Report, d check.Door) string {
	switch {
	case !r.Checked(d):
		return "not checked"
	case !r.Serves(d):
		return "cannot be served"
	case d == check.KMS:
		n := 0
		for _, s := range r.Specs {
			if s.Used == check.Pass {
				n++
			}
		}
		return fmt.Sprintf("can be served, with %d of %d key specs", n, len(r.Specs))
	}
	return "can be served"
}

func specText(s check.Status) string {
	return map[check.Status]string{check.Pass: "yes", check.Lacks: "no", check.Fail: "wrong", check.NotChecked: ""}[s]
}

func keptText(s check.Spec) string {
	switch {
	case s.Made != check.Pass:
		return ""
	case s.Resident:
		return "in the token"
	}
	return "wrapped"
}

// unserved names the doors that the token cannot serve.
func unserved(r *check.Report) string {
	var doors []string
	for _, d := range []check.Door{check.XKS, check.KMS} {
		if r.Checked(d) && !r.Serves(d) {
			doors = append(doors, map[check.Door]string{check.XKS: "the XKS proxy", check.KMS: "the embedded KMS"}[d])
		}
	}
	return strings.Join(doors, " and ")
}

// tokenCheckView is what `hyok token check -o json` prints.
type tokenCheckView struct {
	URI       string             `json:"uri"` // without a PIN
	Token     keystore.TokenInfo `json:"token"`
	Profile   string             `json:"profile"`
	Leftovers int                `json:"leftovers"`
	XKS       bool               `json:"xks"` // can be served
	KMS       bool               `json:"kms"`
	Results   []checkResultView  `json:"results"`
	Specs     []checkSpecView    `json:"specs"`
}

type checkResultView struct {
	ID     string       `json:"id"`
	Title  string       `json:"title"`
	Status check.Status `json:"status"`
	Detail string       `json:"detail,omitzero"`
	Millis float64      `json:"millis"`
}

type checkSpecView struct {
	Spec     keystore.Spec `json:"spec"`
	Resident bool          `json:"resident"`
	Made     check.Status  `json:"made"`
	Used     check.Status  `json:"used"`
	Imported check.Status  `json:"imported"`
	Detail   string        `json:"detail,omitzero"`
	Millis   float64       `json:"millis"` // to make one
}

func newTokenCheckView(u keystore.URI, r *check.Report) tokenCheckView {
	v := tokenCheckView{
		URI: u.String(), Token: r.Token, Profile: r.Profile, Leftovers: r.Leftovers,
		XKS: r.Serves(check.XKS), KMS: r.Serves(check.KMS), Results: []checkResultView{}, Specs: []checkSpecView{},
	}
	for _, res := range r.Results {
		v.Results = append(v.Results, checkResultView{res.ID, res.Title, res.Status, res.Detail, millis(res.Took)})
	}
	for _, s := range r.Specs {
		v.Specs = append(v.Specs, checkSpecView{s.Name, s.Resident, s.Made, s.Used, s.Imported, s.Detail, millis(s.Took)})
	}
	return v
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
