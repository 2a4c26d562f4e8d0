package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

const replicableName = "replicable"

// replicableFlag is --replicable, which alone means yes.
type replicableFlag keystore.Replicable

func (f *replicableFlag) add(cmd *cobra.Command, usage string) {
	cmd.Flags().Var(f, replicableName, usage)
	cmd.Flags().Lookup(replicableName).NoOptDefVal = "yes"
	// It fails for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc(replicableName, cobra.FixedCompletions([]string{"yes", "trusted", "no"}, cobra.ShellCompDirectiveNoFileComp))
}

// String returns "", of which no default is shown.
func (f *replicableFlag) String() string { return "" }

// Type names the values in the help.
func (f *replicableFlag) Type() string { return "yes|trusted|no" }

// Set takes a value over.
func (f *replicableFlag) Set(value string) error {
	switch value {
	case "yes":
		*f = replicableFlag(keystore.ReplicableByAny)
	case "trusted":
		*f = replicableFlag(keystore.ReplicableByTrusted)
	case "no":
		*f = replicableFlag(keystore.NotReplicable)
	default:
		return fmt.Errorf("must be yes, trusted or no")
	}
	return nil
}

func replicableText(r keystore.Replicable) string {
	switch r {
	case keystore.ReplicableByAny:
		return "yes"
	case keystore.ReplicableByTrusted:
		return "under trusted wrapping keys"
	case keystore.NotReplicable:
	}
	return "no"
}

// replicateView is what hyok key replicate prints.
type replicateView struct {
	ID       string                `json:"id"`
	From     string                `json:"from"`
	To       string                `json:"to"`
	Versions []keystore.Replicated `json:"versions"`
}

// replicateFlags are those of hyok key replicate.
type replicateFlags struct {
	tokenFlags
	from, to   string
	version    uint32
	wrapping   string
	replicable replicableFlag
}

func newKeyReplicateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := replicateFlags{tokenFlags: tokenFlags{dataFlags: data}}
	cmd := &cobra.Command{
		Use:   "replicate ID --to TOKEN",
		Short: "Copy a key from token to token, wrapped",
		Long: `Copies the versions of a key from one token to another, with what it may be used for; a
disabled key stays disabled. The key is wrapped in the one token and unwrapped in the other
and is never in the clear outside of them. It is wrapped under a key that the source makes
for this one time, which travels under an RSA key of the target; or with --wrapping-key
under an AES key of that label that both tokens have. A key can be replicated if it was made
with --replicable.

Each copy has to open what the source sealed before it counts. A version that the target has
already is proven in the same way and passed over; where it is another key, nothing is
changed. So the command can be repeated until it succeeds.`,
		Example: `  $ hyok key create pair-1 --replicable --token main
  Key pair-1 was made in the token main.
  A running server finds it at the first request for it, in a key store that has this id.
  $ hyok key replicate pair-1 --from main --to spare
  VERSION  STATUS   WAS            DIGEST
  1        enabled  copied         7d0c5d3c9a3b1f60
  Key pair-1 is the same in the tokens main and spare.
  $ hyok key replicate pair-1 --from main --to spare
  VERSION  STATUS   WAS            DIGEST
  1        enabled  there already  7d0c5d3c9a3b1f60
  Key pair-1 is the same in the tokens main and spare.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := flags.replicate(cmd, args[0])
			if err != nil {
				return err
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return v.print(cmd, flags.version)
		},
	}
	flags.add(cmd)
	return cmd
}

func (f *replicateFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "configured token that has the key (default the other one of two)")
	cmd.Flags().StringVar(&f.to, "to", "", "configured token that is to have it too")
	cmd.Flags().Uint32Var(&f.version, "version", 0, "version to copy (default all)")
	cmd.Flags().StringVar(&f.wrapping, "wrapping-key", "", "label of an AES key that both tokens have, to wrap under")
	f.replicable.add(cmd, "let the copy leave its token wrapped in turn: yes, trusted (under trusted wrapping keys alone) or no (default no)")
	names := func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return f.tokenNames(), cobra.ShellCompDirectiveNoFileComp
	}
	// These fail for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("from", names)
	_ = cmd.RegisterFlagCompletionFunc("to", names)
}

// tokens returns the two tokens that the flags mean.
func (f *replicateFlags) tokens() (c *config.Config, from, to *config.Token, err error) {
	if f.to == "" {
		return nil, nil, nil, usagef("--to says which token is to have the key too")
	}
	if c, to, err = f.choose(f.to); err != nil {
		return nil, nil, nil, err
	}
	if f.from == "" && len(c.Tokens) == 2 {
		other := 0
		if c.Tokens[0].Name == to.Name {
			other = 1
		}
		return c, &c.Tokens[other], to, nil
	}
	if f.from == "" {
		return nil, nil, nil, usagef("--from says which token has the key")
	}
	_, from, err = f.choose(f.from)
	return c, from, to, err
}

func (f *replicateFlags) replicate(cmd *cobra.Command, id string) (v replicateView, err error) {
	if err := keystore.ValidateID(id); err != nil {
		return v, usagef("%w", err)
	}
	if cmd.Flags().Changed("version") && f.version == 0 {
		return v, usagef("--version must be 1 at least")
	}
	c, from, to, err := f.tokens()
	if err != nil {
		return v, err
	}
	if from.Name == to.Name {
		return v, usagef("--from and --to name the same token")
	}
	v = replicateView{ID: id, From: from.Name, To: to.Name}
	err = withTokens(cmd, c, []*config.Token{from, to}, func(ctx context.Context, open []*keystore.Token) (err error) {
		v.Versions, err = keystore.Replicate(ctx, open[0], open[1], id, keystore.ReplicateOptions{
			Version: f.version, WrappingKey: f.wrapping, Replicable: keystore.Replicable(f.replicable),
		})
		return err
	})
	return v, err
}

// shownDigest is how many hex digits of a digest people are shown.
const shownDigest = 16

// print shows the outcome for a version, or for all (0).
func (v replicateView) print(cmd *cobra.Command, version uint32) error {
	var rows [][]string
	for _, r := range v.Versions {
		was := "there already"
		if r.Made {
			was = "copied"
		}
		digest := cmp.Or(r.Digest, "-")
		rows = append(rows, []string{fmt.Sprint(r.Version), keyStatus(keystore.KeyInfo{Disabled: r.Disabled}), was, digest[:min(len(digest), shownDigest)]})
	}
	out := cmd.OutOrStdout()
	if err := printTable(out, []string{"VERSION", "STATUS", "WAS", "DIGEST"}, rows); err != nil {
		return err
	}
	what := "Key " + v.ID
	if version != 0 {
		what = fmt.Sprintf("Version %d of the key %s", version, v.ID)
	}
	_, err := fmt.Fprintf(out, "%s is the same in the tokens %s and %s.\n", what, v.From, v.To)
	return err
}
