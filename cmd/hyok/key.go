package main

import (
	"context"
	"fmt"
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
renamed or destroyed.`,
		Example: `  $ hyok key list
  ID      TOKEN  VERSIONS  NEWEST  USAGE            STATUS
  orders  main   1         1       encrypt,decrypt  enabled
  prod-1  main   2         2       encrypt,decrypt  enabled
  prod-2  main   1         1       none             disabled`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos, err := flags.allKeys(cmd)
			if err != nil {
				return err
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), infos)
			}
			var rows [][]string
			for _, k := range infos {
				v := k.Newest()
				rows = append(rows, []string{k.ID, k.Token, fmt.Sprint(len(k.Versions)), fmt.Sprint(v.Number), usageText(v), keyStatus(k)})
			}
			return printTable(cmd.OutOrStdout(), []string{"ID", "TOKEN", "VERSIONS", "NEWEST", "USAGE", "STATUS"}, rows)
		},
	}
	flags.addToken(cmd, "configured token to look into (default all)")
	return cmd
}

// allKeys returns the keys of the token that --token names, or of all.
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
	for i := range tokens {
		err := withToken(cmd, c, &tokens[i], func(ctx context.Context, tok *keystore.Token) error {
			infos, err := tok.Keys(ctx)
			all = append(all, infos...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
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
			{"SENSITIVE", yesNo(v.Sensitive)}, {"ALWAYS SENSITIVE", yesNo(v.AlwaysSensitive)},
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
