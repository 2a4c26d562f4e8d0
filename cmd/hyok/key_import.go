package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/keystore"
)

func newKeyImportCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := newKeyFlags{tokenFlags: tokenFlags{dataFlags: data}}
	var file, form string
	cmd := &cobra.Command{
		Use:   "import ID --file FILE",
		Short: "Store an AES-256 key that was made elsewhere",
		Long: `Stores 32 bytes of key material as a key, which the token then does not give out any more.
The file holds 32 raw bytes, or 64 hex digits, or their Base64 between a BEGIN and an END
line; --file - reads standard input. 'hyok key show' will tell an auditor that the key was
not generated in the token.`,
		Example: `  $ hyok key import legacy --file legacy.hex
  Key legacy was imported in the token main.
  A running server finds it at the first request for it, in a key store that has this id.
  The material is still in legacy.hex: delete it unless it is your backup.
  $ openssl rand 32 | hyok key import other --file - --format raw
  Key other was imported in the token main.
  A running server finds it at the first request for it, in a key store that has this id.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkImport(cmd, file, form); err != nil {
				return err
			}
			n, err := flags.check(args)
			if err != nil {
				return err
			}
			if err := importKey(cmd, n, file, form); err != nil {
				return err
			}
			if err := n.addToStore(); err != nil {
				return err
			}
			if err := n.report(cmd, *format, "imported"); err != nil || file == "-" || *format == formatJSON {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The material is still in %s: delete it unless it is your backup.\n", file)
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&file, "file", "", "file with the key material, - for standard input")
	cmd.Flags().StringVar(&form, "format", formAuto, "its form: auto, raw, hex or pem")
	// It fails for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formAuto, formRaw, formHex, formPEM}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func checkImport(cmd *cobra.Command, file, form string) error {
	switch {
	case file == "":
		return usagef("--file says where the key material is, - for standard input")
	case !slices.Contains([]string{formAuto, formRaw, formHex, formPEM}, form):
		return usagef("--format must be auto, raw, hex or pem")
	case file == "-" && isTerminal(cmd.InOrStdin()):
		return usagef("standard input is a terminal, which would show the key: pipe it in, or give a file")
	}
	return nil
}

func importKey(cmd *cobra.Command, n *newKeys, file, form string) error {
	material, err := await(cmd.Context(), func() ([]byte, error) { return materialFrom(cmd.InOrStdin(), file, form) })
	if err != nil {
		return err
	}
	defer clear(material)
	return withToken(cmd, n.config, n.token, func(ctx context.Context, tok *keystore.Token) error {
		return tok.ImportKey(ctx, n.ids[0], n.usage, material)
	})
}

// materialFrom reads key material from a file, or from in for "-".
func materialFrom(in io.Reader, file, form string) (material []byte, err error) {
	name := "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read the key material: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in, name = f, file
	}
	if material, err = readMaterial(in, form); err != nil {
		return nil, fmt.Errorf("read the key material from %s: %w", name, err)
	}
	return material, nil
}
