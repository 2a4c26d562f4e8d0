package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/keystore"
)

// newTokenCommand returns hyok token.
func newTokenCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("token", "List, initialize and check PKCS#11 tokens", `A token is where keys live: a partition of an HSM, or a folder of SoftHSM2. A PKCS#11
module, which is a shared library of the vendor, gives access to its tokens. The
configuration names tokens by PKCS#11 URIs (RFC 7512).`,
		newTokenListCommand(data, format),
		newTokenInitCommand(data, format),
		newTokenShowCommand(data, format),
		newTokenCheckCommand(data, format),
	)
	data.add(group)
	format.add(group)
	return group
}

// tokenView is a token as a module shows it.
type tokenView struct {
	Name               string `json:"name,omitzero"` // in the configuration, if it is there
	Module             string `json:"module"`
	keystore.TokenInfo `json:",inline"`
}

func newTokenListCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var module moduleFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens that PKCS#11 modules show",
		Long: `Lists all tokens that the modules of the configuration show, those that are not configured
included, and fails after that if one does not describe itself. With --module it lists those of that module, and needs no configuration; one that
--data or --config names gives the tokens' names, and SoftHSM2 its softhsm2_conf. No PIN is
needed.`,
		Example: `  $ hyok token list
  NAME  SLOT       LABEL  SERIAL            MANUFACTURER     MODEL       INITIALIZED  PIN
  main  711853055  hyok   a1f00d3d2a6e03ff  SoftHSM project  SoftHSM v2  yes          set
  -     1          -      -                 SoftHSM project  SoftHSM v2  no           not set
  $ hyok token list --module /usr/lib/softhsm/libsofthsm2.so`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			modules, named, err := data.modules(module)
			if err != nil {
				return err
			}
			views, listErr := listTokens(cmd.Context(), modules, named)
			if len(views) == 0 && listErr != nil {
				return listErr
			}
			if *format == formatJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), views), listErr)
			}
			var rows [][]string
			for _, v := range views {
				rows = append(rows, []string{v.Name, fmt.Sprint(v.Slot), v.Label, v.Serial, v.Manufacturer, v.Model, yesNo(v.Initialized), pinText(v.TokenInfo)})
			}
			return errors.Join(printTable(cmd.OutOrStdout(), []string{"NAME", "SLOT", "LABEL", "SERIAL", "MANUFACTURER", "MODEL", "INITIALIZED", "PIN"}, rows), listErr)
		},
	}
	module.add(cmd, "PKCS#11 module, instead of those of the configuration")
	return cmd
}

// namedURI is a token of the configuration.
type namedURI struct {
	name string
	uri  keystore.URI
}

// moduleFlags names a PKCS#11 module.
type moduleFlags struct {
	path       string
	parameters string // for C_Initialize
}

// add adds --module and --module-parameters to cmd.
func (m *moduleFlags) add(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&m.path, "module", "", usage)
	cmd.Flags().StringVar(&m.parameters, "module-parameters", "", "text that the module wants in C_Initialize's reserved argument, as NSS does")
}

// modules returns the modules to look into and the tokens that the configuration
// names. For a given module the configuration is read only if a flag says where it is.
// The environment is set for them.
func (f *dataFlags) modules(module moduleFlags) ([]moduleFlags, []namedURI, error) {
	if module.path == "" && module.parameters != "" {
		return nil, nil, usagef("--module-parameters are for a module that --module names")
	}
	if module.path != "" && f.data == "" && f.config == "" {
		return []moduleFlags{module}, nil, nil
	}
	c, err := f.read()
	if err != nil {
		return nil, nil, err
	}
	if err := proxy.SetEnvironment(c); err != nil {
		return nil, nil, err
	}
	var modules []moduleFlags
	var named []namedURI
	for i := range c.Tokens {
		u, err := proxy.TokenURI(&c.Tokens[i])
		if err != nil {
			return nil, nil, err
		}
		named = append(named, namedURI{c.Tokens[i].Name, u})
		known := func(m moduleFlags) bool { return m.path == resolve(u.ModulePath) }
		if u.ModulePath != "" && !slices.ContainsFunc(modules, known) {
			modules = append(modules, moduleFlags{resolve(u.ModulePath), u.ModuleParameters})
		}
	}
	if module.path != "" {
		return []moduleFlags{module}, named, nil
	}
	if len(modules) == 0 {
		return nil, nil, fmt.Errorf("no token in %s names a module: --module lists the tokens of one", c.Path)
	}
	return modules, named, nil
}

// resolve follows links, so that one module has one name.
func resolve(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// listTokens asks each module; the error tells of modules and tokens that do not
// answer.
func listTokens(ctx context.Context, modules []moduleFlags, named []namedURI) ([]tokenView, error) {
	views := []tokenView{}
	var errs []error
	for _, m := range modules {
		path := m.path
		infos, err := await(ctx, func() ([]keystore.TokenInfo, error) { return new(keystore.Modules).Tokens(path, m.parameters) })
		errs = append(errs, err)
		for _, info := range infos {
			v := tokenView{Module: path, TokenInfo: info}
			for _, n := range named {
				if resolve(n.uri.ModulePath) == resolve(path) && n.uri.Matches(info) {
					v.Name = n.name
				}
			}
			views = append(views, v)
		}
	}
	return views, errors.Join(errs...)
}

func pinText(info keystore.TokenInfo) string {
	switch {
	case info.PINLocked:
		return "locked"
	case info.PINSet:
		return "set"
	}
	return "not set"
}

// tokenStateView is what hyok token show prints.
type tokenStateView struct {
	tokenView     `json:",inline"`
	URI           string  `json:"uri"` // without a PIN
	Profile       string  `json:"profile"`
	RunOnHardware bool    `json:"profileRunOnHardware"`
	Sessions      int     `json:"sessions"` // at most
	Keys          int     `json:"keys"`
	Unread        int     `json:"unreadObjects,omitzero"` // passed over
	Health        string  `json:"health"`
	Reason        string  `json:"reason,omitzero"`
	LatencyMS     float64 `json:"probeLatencyMs"`

	Abilities []abilityView `json:"abilities,omitempty"`
}

func newTokenShowCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "Open a configured token and show its state",
		Long: `Opens a token as a server does, counts its keys, and encrypts and decrypts with a key of
hyok's own in it. The exit code is 1 if the token cannot be used.

Then it tells what the token can serve: it makes a key of each kind in a session, wraps
it, unwraps it and uses it, and nothing of that stays. A list of mechanisms tells less.`,
		Example: `  $ hyok token show main
  NAME           main
  URI            pkcs11:token=hyok?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin
  LABEL          hyok
  SERIAL         a1f00d3d2a6e03ff
  MANUFACTURER   SoftHSM project
  MODEL          SoftHSM v2
  SLOT           711853055
  PIN            set
  PROFILE        softhsm2 (run on the real thing)
  SESSIONS       16 at most
  KEYS           3
  HEALTH         active
  PROBE LATENCY  112µs

  FOR                           SERVED  HOW
  external keys (XKS)           yes     AES-GCM
  wrapping the keys of the KMS  yes     CKM_AES_KEY_WRAP_PAD
  SYMMETRIC_DEFAULT             yes     wrapped in the database
  RSA_2048 SIGN_VERIFY          yes     wrapped in the database
  ...`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return flags.tokenNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, t, err := flags.choose(strings.Join(args, ""))
			if err != nil {
				return err
			}
			v, err := tokenState(cmd, c, t)
			if err != nil {
				return err
			}
			if *format == formatJSON {
				err = printJSON(cmd.OutOrStdout(), v)
			} else {
				err = printTokenState(cmd, v)
			}
			if err == nil && v.Health == keystore.Unavailable.String() {
				return fmt.Errorf("token %s cannot be used: %s", t.Name, v.Reason)
			}
			return err
		},
	}
}

func tokenState(cmd *cobra.Command, c *config.Config, t *config.Token) (v tokenStateView, err error) {
	profile, err := keystore.ProfileByName(t.Profile)
	if err != nil {
		return v, fmt.Errorf("token %s: %w", t.Name, err)
	}
	u, err := proxy.TokenURI(t)
	if err != nil {
		return v, err
	}
	err = withToken(cmd, c, t, func(ctx context.Context, tok *keystore.Token) error {
		if err := tok.Refresh(ctx); err != nil {
			return err
		}
		_ = tok.Probe(ctx) // the first one may have to make the key to probe with
		h, stats := tok.Probe(ctx), tok.Stats()
		v = tokenStateView{
			tokenView: tokenView{Name: t.Name, Module: u.ModulePath, TokenInfo: tok.Info()},
			URI:       u.String(), Profile: profile.Name, RunOnHardware: profile.RunOnHardware,
			Sessions: stats.SessionLimit, Keys: stats.Keys, Unread: stats.Unread,
			Health: h.State.String(), Reason: h.Reason, LatencyMS: float64(h.Latency.Microseconds()) / 1000,
		}
		can, err := tok.Abilities(ctx)
		if err == nil {
			v.Abilities = abilities(can)
		} else if v.Reason == "" {
			return fmt.Errorf("try what the token can do: %w", err)
		}
		return ctx.Err()
	})
	return v, err
}

func printTokenState(cmd *cobra.Command, v tokenStateView) error {
	profile := v.Profile + " (not yet run on the real thing)"
	switch {
	case v.RunOnHardware:
		profile = v.Profile + " (run on the real thing)"
	case v.Profile == keystore.GenericProfile:
		profile = v.Profile + " (of no make in particular)"
	}
	keys := fmt.Sprint(v.Keys)
	if v.Unread > 0 {
		keys += fmt.Sprintf(", and %d objects that cannot be read", v.Unread)
	}
	latency := time.Duration(v.LatencyMS * float64(time.Millisecond))
	rows := [][]string{
		{"URI", v.URI}, {"LABEL", v.Label}, {"SERIAL", v.Serial}, {"MANUFACTURER", v.Manufacturer}, {"MODEL", v.Model},
		{"SLOT", fmt.Sprint(v.Slot)}, {"PIN", pinText(v.TokenInfo)}, {"PROFILE", profile},
		{"SESSIONS", fmt.Sprintf("%d at most", v.Sessions)}, {"KEYS", keys},
		{"HEALTH", strings.TrimSuffix(v.Health+": "+v.Reason, ": ")}, {"PROBE LATENCY", latency.String()},
	}
	if err := printTable(cmd.OutOrStdout(), []string{"NAME", cmp.Or(v.Name, "-")}, rows); err != nil || len(v.Abilities) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout()); err != nil {
		return err
	}
	return printTable(cmd.OutOrStdout(), []string{"FOR", "SERVED", "HOW"}, abilityRows(v.Abilities))
}
