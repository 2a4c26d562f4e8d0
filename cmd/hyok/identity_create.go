package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
)

// identityFlags are the flags of hyok identity create.
type identityFlags struct {
	account, arn, accessKeyID, secretFile string
	showSecret                            bool
}

func newIdentityCreateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var flags identityFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an identity that may call the embedded KMS",
		Long: `Makes an identity and adds it to the identities file, whose mode is 0600. Access key id
and secret are random, unless they are given, such as those that a test set-up has already.
The principal is the root of the account, unless --arn names another.

The secret access key is not printed, unless --show-secret is given and the output is a
terminal or JSON.`,
		Example: `  $ hyok identity create --account 111122223333
  Identity HYOKZKJ5PNPTQZ6L2HYQ is arn:aws:iam::111122223333:root.
  Its secret access key is in /srv/hyok/credentials/kms.json.
  $ printf test | hyok identity create --arn arn:aws:iam::000000000000:user/ci --access-key-id test --secret-file -
  Identity test is arn:aws:iam::000000000000:user/ci.
  Its secret access key is in /srv/hyok/credentials/kms.json.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mayShowSecret(cmd, flags.showSecret, *format); err != nil {
				return err
			}
			path, err := data.path()
			if err != nil {
				return err
			}
			id, err := flags.identity(cmd, data)
			if err != nil {
				return err
			}
			file, err := config.AddIdentity(path, id)
			if err != nil {
				return err
			}
			v := viewIdentity(id, file)
			if flags.showSecret {
				v.SecretAccessKey = id.SecretAccessKey
			}
			return printNewIdentity(cmd, *format, v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.account, "account", "", "account of 12 digits (default that of --arn, or the only one that has identities)")
	f.StringVar(&flags.arn, "arn", "", "ARN of the principal, of iam or sts (default the root of the account)")
	f.StringVar(&flags.accessKeyID, "access-key-id", "", "access key id (default a random one)")
	f.StringVar(&flags.secretFile, "secret-file", "", "file with the secret access key, - for standard input (default a random one)")
	f.BoolVar(&flags.showSecret, "show-secret", false, "print the secret access key too")
	return cmd
}

// identity returns the identity to add, which is a good one.
func (f *identityFlags) identity(cmd *cobra.Command, data *dataFlags) (config.Identity, error) {
	account, err := f.accountOf(data)
	if err != nil {
		return config.Identity{}, err
	}
	id := config.NewIdentity(account)
	if f.arn != "" {
		id.ARN = f.arn
	}
	if f.accessKeyID != "" {
		id.AccessKeyID = f.accessKeyID
	}
	if f.secretFile != "" {
		if id.SecretAccessKey, err = secretFrom(cmd, f.secretFile); err != nil {
			return config.Identity{}, err
		}
	}
	if err := id.Validate(); err != nil {
		return config.Identity{}, &exitError{exitUsage, err}
	}
	return id, nil
}

// accountOf returns the account that was asked for.
func (f *identityFlags) accountOf(data *dataFlags) (string, error) {
	if f.account != "" {
		return f.account, nil
	}
	if f.arn != "" {
		account, ok := config.AccountOf(f.arn)
		if !ok {
			return "", usagef("--arn must be that of a principal, such as arn:aws:iam::111122223333:user/alice")
		}
		return account, nil
	}
	kms, err := data.kms()
	if err != nil {
		return "", err
	}
	accounts := map[string]bool{}
	for _, id := range kms.Identities {
		accounts[id.Account] = true
	}
	if len(accounts) != 1 {
		return "", usagef("%s has %s: say by --account which one to use", kms.IdentitiesFile, count(len(accounts), "account"))
	}
	return kms.Identities[0].Account, nil
}

// secretFrom reads a secret access key from a file, or from standard input.
func secretFrom(cmd *cobra.Command, file string) (string, error) {
	if file != "-" {
		return readSecretFile(file)
	}
	if isTerminal(cmd.InOrStdin()) {
		return "", usagef("standard input is a terminal, which would show the secret: pipe it in, or give a file")
	}
	return await(cmd.Context(), func() (string, error) {
		data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxSecretFile+1))
		defer clear(data)
		if err == nil && len(data) > maxSecretFile {
			err = errors.New("there is too much of it")
		}
		if err != nil {
			return "", usagef("secret access key from standard input: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	})
}

func printNewIdentity(cmd *cobra.Command, format outputFormat, v identityView) error {
	out := cmd.OutOrStdout()
	if format == formatJSON {
		return printJSON(out, v)
	}
	_, err := fmt.Fprintf(out, "Identity %s is %s.\nIts secret access key is in %s.\n", v.AccessKeyID, v.ARN, v.File)
	if err == nil && v.SecretAccessKey != "" {
		_, err = fmt.Fprintf(out, "Secret access key: %s\n", v.SecretAccessKey)
	}
	return err
}
