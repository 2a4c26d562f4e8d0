package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/keystore"
)

// keyView is a key as it is after a change.
type keyView struct {
	ID       string `json:"id"`
	Token    string `json:"token"`
	Version  uint32 `json:"version,omitzero"`
	Disabled bool   `json:"disabled,omitzero"`
	Lost     bool   `json:"destroyed,omitzero"`
}

// withinSecond is keystore's promise of how fast a stopped key stops.
const withinSecond = "A running server notices within a second."

// changeKey runs change on a key and prints its outcome with a text for people.
func changeKey(cmd *cobra.Command, flags *tokenFlags, format outputFormat, change func(context.Context, *keystore.Token) (keyView, string, error)) error {
	var v keyView
	var text string
	err := flags.use(cmd, func(ctx context.Context, tok *keystore.Token) (err error) {
		v, text, err = change(ctx, tok)
		v.Token = tok.Name()
		return err
	})
	if err != nil {
		return err
	}
	if format == formatJSON {
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func newKeyRotateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	var replicable replicableFlag
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a new version of a key, which encrypts from then on",
		Long: `Generates a new version of a key in the token. New encryptions use it; what was encrypted
before stays readable by the versions before, which stay too. AWS KMS sees no change. The
new version is as replicable as the one before, unless --replicable says otherwise.`,
		Example: `  $ hyok key rotate prod-1
  Key prod-1 in the token main has the new version 2.
  A running server encrypts under it within 10s, later if the token is very full, or at once on SIGHUP.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeKey(cmd, &flags, *format, func(ctx context.Context, tok *keystore.Token) (keyView, string, error) {
				n, err := rotateKey(ctx, cmd, tok, args[0], replicable)
				text := fmt.Sprintf("Key %s in the token %s has the new version %d.\nA running server encrypts under it within %v, later if the token is very full, or at once on SIGHUP.",
					args[0], tok.Name(), n, keystore.SearchInterval.Round(time.Second))
				return keyView{ID: args[0], Version: n}, text, err
			})
		},
	}
	flags.addToken(cmd, onlyToken)
	replicable.add(cmd, "whether the new version may leave the token wrapped: yes, trusted (under trusted wrapping keys alone) or no (default as the version before)")
	return cmd
}

func rotateKey(ctx context.Context, cmd *cobra.Command, tok *keystore.Token, id string, as replicableFlag) (uint32, error) {
	if cmd.Flags().Changed(replicableName) {
		return tok.RotateKeyAs(ctx, id, keystore.Replicable(as))
	}
	return tok.RotateKey(ctx, id)
}

func newKeyDisableCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	cmd := newKeySwitchCommand(data, format, false)
	cmd.Use, cmd.Short = "disable ID", "Stop the use of a key until it is enabled again"
	cmd.Long = `Withdraws the permission to encrypt and to decrypt from all versions of a key, in the token
itself, so that it holds for every user of the token. AWS KMS is told that the key is
disabled. A key that is disabled already stays so.`
	cmd.Example = `  $ hyok key disable prod-1
  Key prod-1 in the token main is disabled.
  A running server notices within a second.`
	return cmd
}

func newKeyEnableCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	cmd := newKeySwitchCommand(data, format, true)
	cmd.Use, cmd.Short = "enable ID", "Undo the disabling of a key"
	cmd.Long = `Gives all versions of a disabled key the permissions back that they had before. A key that
is not disabled stays as it is.`
	cmd.Example = `  $ hyok key enable prod-1
  Key prod-1 in the token main is enabled.
  A running server notices within a second.`
	return cmd
}

func newKeySwitchCommand(data *dataFlags, format *outputFormat, enabled bool) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	cmd := &cobra.Command{
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeKey(cmd, &flags, *format, func(ctx context.Context, tok *keystore.Token) (keyView, string, error) {
				err := tok.SetEnabled(ctx, args[0], enabled)
				text := fmt.Sprintf("Key %s in the token %s is %s.\n%s",
					args[0], tok.Name(), keyStatus(keystore.KeyInfo{Disabled: !enabled}), withinSecond)
				return keyView{ID: args[0], Disabled: !enabled}, text, err
			})
		},
	}
	flags.addToken(cmd, onlyToken)
	return cmd
}

func newKeyDestroyCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := tokenFlags{dataFlags: data}
	var number uint32
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy ID",
		Short: "Delete a key, or one version of it, from the token for ever",
		Long: `Deletes all versions of a key from the token, or with --version one of them, after asking
on a terminal; --yes answers yes. Everything encrypted under it, in every AWS account,
becomes unreadable, unless the token has a backup. 'hyok key disable' stops a key in a way
that can be undone.`,
		Example: `  $ hyok key destroy prod-2 --yes
  Key prod-2 was destroyed in the token main.
  A running server notices within a second.
  $ hyok key destroy prod-1 --version 1 --yes
  Version 1 of the key prod-1 was destroyed in the token main.
  A running server notices within a second.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("version") && number == 0 {
				return usagef("--version must be 1 at least")
			}
			return changeKey(cmd, &flags, *format, func(ctx context.Context, tok *keystore.Token) (keyView, string, error) {
				what, err := doomed(ctx, tok, args[0], number)
				if err != nil {
					return keyView{}, "", err
				}
				question := fmt.Sprintf("Destroy %s in the token %s for ever? Everything encrypted under it, in every AWS account, becomes unreadable.", what, tok.Name())
				if err := confirm(cmd, yes, question); err != nil {
					return keyView{}, "", err
				}
				name := "Key " + args[0]
				if number != 0 {
					name = fmt.Sprintf("Version %d of the key %s", number, args[0])
				}
				text := fmt.Sprintf("%s was destroyed in the token %s.\n%s", name, tok.Name(), withinSecond)
				return keyView{ID: args[0], Version: number, Lost: true}, text, tok.DestroyKey(ctx, args[0], number)
			})
		},
	}
	flags.addToken(cmd, onlyToken)
	cmd.Flags().Uint32Var(&number, "version", 0, "version to destroy (default all)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// doomed says what is about to be destroyed.
func doomed(ctx context.Context, tok *keystore.Token, id string, number uint32) (string, error) {
	info, err := tok.Describe(ctx, id)
	switch {
	case errors.Is(err, keystore.ErrKeyAmbiguous) && number == 0:
		return "all keys labelled " + id, nil
	case errors.Is(err, keystore.ErrKeyAmbiguous):
		return fmt.Sprintf("all keys that claim to be version %d of the key %s", number, id), nil
	case err != nil:
		return "", err
	case number == 0:
		return fmt.Sprintf("the key %s with %s", id, count(len(info.Versions), "version")), nil
	}
	if !slices.ContainsFunc(info.Versions, func(v keystore.VersionInfo) bool { return v.Number == number }) {
		return "", fmt.Errorf("key %s in the token %s has no version %d: %w", id, tok.Name(), number, keystore.ErrKeyNotFound)
	}
	return fmt.Sprintf("version %d of the key %s", number, id), nil
}
