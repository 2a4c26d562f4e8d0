package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// newKeyCommand returns hyok key.
func newKeyCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("key", "Manage the external keys in a token", `An external key is an AES-256 key in a token. Its id is its label there, and in AWS KMS
the XksKeyId of a KMS key. A key has versions: the newest one encrypts, all decrypt.`,
		newKeyCreateCommand(data, format),
		newKeyImportCommand(data, format),
		newKeyListCommand(data, format),
		newKeyShowCommand(data, format),
		newKeyRotateCommand(data, format),
		newKeyReplicateCommand(data, format),
		newKeyDisableCommand(data, format),
		newKeyEnableCommand(data, format),
		newKeyDestroyCommand(data, format),
	)
	data.add(group)
	format.add(group)
	return group
}

const onlyToken = "configured token that has the key (default the only one)"

func newKeyListCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the external keys in the tokens",
		Long: `Lists the external keys as the tokens hold them now. The status ambiguous means that two
objects in the token claim to be the same version of the key: it is not used until one is
renamed or destroyed.

Standard error tells how many AES keys of a token are passed over, and why, and warns of
keys that are not private or not sensitive, as other programs make them. A token whose URI
names no PIN is left out with a warning; if another one cannot be opened the command fails
after it has listed the rest.`,
		Example: `  $ hyok key list
  ID      TOKEN  VERSIONS  NEWEST  USAGE            STATUS
  orders  main   1         1       encrypt,decrypt  enabled
  prod-1  main   2         2       encrypt,decrypt  enabled
  prod-2  main   1         1       none             disabled`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos, listErr := flags.allKeys(cmd)
			if len(infos) == 0 && listErr != nil {
				return listErr
			}
			if err := warnOfKeys(cmd.ErrOrStderr(), infos); err != nil {
				return err
			}
			if *format == formatJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), infos), listErr)
			}
			var rows [][]string
			for _, k := range infos {
				v := k.Newest()
				rows = append(rows, []string{k.ID, k.Token, fmt.Sprint(len(k.Versions)), fmt.Sprint(v.Number), usageText(v), keyStatus(k)})
			}
			return errors.Join(printTable(cmd.OutOrStdout(), []string{"ID", "TOKEN", "VERSIONS", "NEWEST", "USAGE", "STATUS"}, rows), listErr)
		},
	}
	flags.addToken(cmd, "configured token to look into (default all)")
	return cmd
}

// allKeys returns the keys of the token that --token names, or of all, and the errors
// of those that do not tell theirs.
func (f *tokenFlags) allKeys(cmd *cobra.Command) ([]keystore.KeyInfo, error) {
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	tokens := c.Tokens
	if f.token != "" || len(tokens) == 0 {
		_, t, err := f.choose(f.token)
		if err != nil {
			return nil, err
		}
		tokens = []config.Token{*t}
	}
	all := []keystore.KeyInfo{}
	var errs, left []error
	for i := range tokens {
		infos, err := keysOf(cmd, c, &tokens[i])
		all = append(all, infos...)
		switch {
		case cmd.Context().Err() != nil:
			return nil, err
		case errors.Is(err, errNoPIN) && f.token == "":
			left = append(left, err)
		default:
			errs = append(errs, err)
		}
	}
	if len(left) == len(tokens) {
		return nil, errors.Join(left...)
	}
	for _, err := range left {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "warning: left out: %v\n", err); err != nil {
			return nil, err
		}
	}
	return all, errors.Join(errs...)
}

// keysOf returns the keys of one token, and warns of those that it passes over.
func keysOf(cmd *cobra.Command, c *config.Config, t *config.Token) (infos []keystore.KeyInfo, err error) {
	err = withToken(cmd, c, t, func(ctx context.Context, tok *keystore.Token) error {
		found, err := tok.Keys(ctx)
		if err != nil {
			return err
		}
		infos = found
		passed, err := tok.PassedOver(ctx)
		if err != nil || passed.Total() == 0 {
			return err
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "warning: token %s: %s passed over: %s\n", t.Name, count(passed.Total(), "AES key"), passedText(passed))
		return err
	})
	return infos, err
}

func passedText(p keystore.PassedOver) string {
	var parts []string
	for _, why := range []struct {
		n    int
		text string
	}{
		{p.OtherLength, "not of 256 bits"}, {p.NoLabel, "without a label"},
		{p.BadLabel, "with a label that cannot be an external key id"}, {p.Unreadable, "not described by the token"},
	} {
		if why.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", why.n, why.text))
		}
	}
	return strings.Join(parts, ", ")
}

// warnOfKeys warns of keys that the token does not keep as hyok would have it.
func warnOfKeys(w io.Writer, infos []keystore.KeyInfo) error {
	for _, k := range infos {
		for _, v := range k.Versions {
			var open []string
			if !v.Private {
				open = append(open, "not private (CKA_PRIVATE): it can be used without a PIN")
			}
			if !v.Sensitive {
				open = append(open, "not sensitive (CKA_SENSITIVE): it can be read out of the token")
			}
			if len(open) == 0 {
				continue
			}
			if _, err := fmt.Fprintf(w, "warning: key %s in the token %s, version %d, is %s\n", k.ID, k.Token, v.Number, strings.Join(open, "; and ")); err != nil {
				return err
			}
		}
	}
	return nil
}

func keyStatus(k keystore.KeyInfo) string {
	switch {
	case k.Ambiguous:
		return "ambiguous"
	case k.Disabled:
		return "disabled"
	}
	return "enabled"
}

func usageText(v keystore.VersionInfo) string {
	var uses []string
	if v.Encrypt {
		uses = append(uses, "encrypt")
	}
	if v.Decrypt {
		uses = append(uses, "decrypt")
	}
	if len(uses) == 0 {
		return "none"
	}
	return strings.Join(uses, ",")
}

func newKeyShowCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show the versions of a key with the token's word on each",
		Long: `Shows what the token itself says of each version of a key, as evidence for an audit: that
it is sensitive and cannot be extracted, that this has always been so, and that it was
generated in the token. REPLICABLE says whether it may leave the token wrapped under another
key, see 'hyok key replicate'. An attribute that the token does not tell counts as "no".`,
		Example: `  $ hyok key show prod-1
  ID      prod-1
  TOKEN   main
  STATUS  enabled
  NEWEST  1

  VERSION                    1
  USAGE                      encrypt,decrypt
  STATUS                     enabled
  PRIVATE                    yes
  SENSITIVE                  yes
  ALWAYS SENSITIVE           yes
  EXTRACTABLE                no
  NEVER EXTRACTABLE          yes
  REPLICABLE                 no
  GENERATED IN THE TOKEN     yes
  USAGE CAN BE WITHDRAWN     yes
  MARKED AS MANAGED BY HYOK  yes`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var info keystore.KeyInfo
			err := flags.use(cmd, func(ctx context.Context, tok *keystore.Token) (err error) {
				info, err = tok.Describe(ctx, args[0])
				return err
			})
			if err != nil {
				return err
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			return printKey(cmd, info)
		},
	}
	flags.addToken(cmd, onlyToken)
	return cmd
}

func printKey(cmd *cobra.Command, k keystore.KeyInfo) error {
	out := cmd.OutOrStdout()
	err := printTable(out, []string{"ID", k.ID}, [][]string{
		{"TOKEN", k.Token}, {"STATUS", keyStatus(k)}, {"NEWEST", fmt.Sprint(k.Newest().Number)},
	})
	for _, v := range k.Versions {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out); err != nil {
			return err
		}
		status := keyStatus(keystore.KeyInfo{Disabled: v.Disabled})
		err = printTable(out, []string{"VERSION", fmt.Sprint(v.Number)}, [][]string{
			{"USAGE", usageText(v)}, {"STATUS", status},
			{"PRIVATE", yesNo(v.Private)}, {"SENSITIVE", yesNo(v.Sensitive)}, {"ALWAYS SENSITIVE", yesNo(v.AlwaysSensitive)},
			{"EXTRACTABLE", yesNo(v.Extractable)}, {"NEVER EXTRACTABLE", yesNo(v.NeverExtractable)},
			{"REPLICABLE", replicableText(v.Replicable())},
			{"GENERATED IN THE TOKEN", yesNo(v.Local)}, {"USAGE CAN BE WITHDRAWN", yesNo(v.Modifiable)},
			{"MARKED AS MANAGED BY HYOK", yesNo(v.Marked)},
		})
	}
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
