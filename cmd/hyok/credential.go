package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
)

// newCredentialCommand returns hyok credential.
func newCredentialCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("credential", "Manage the credentials by which AWS KMS signs requests to a key store", `A key store may have several credentials at once. To rotate: create a second one, give
it to AWS KMS (UpdateCustomKeyStore, or 'hyok store export' and the AWS console), then
revoke the first. A running server takes changes over by itself.`,
		newCredentialCreateCommand(data, format),
		newCredentialListCommand(data, format),
		newCredentialRevokeCommand(data, format),
	)
	data.add(group)
	format.add(group)
	return group
}

// credentialView is a credential as it is printed. The secret is left out unless
// it was asked for.
type credentialView struct {
	Store           string    `json:"store"`
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey,omitzero"`
	Created         time.Time `json:"created,omitzero"`
	File            string    `json:"file"`
}

func newCredentialCreateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var showSecret bool
	cmd := &cobra.Command{
		Use:   "create STORE",
		Short: "Make a credential for a key store",
		Long: `Makes a credential and adds it to the credentials file of the key store, whose mode is
0600. The secret access key is not printed, unless --show-secret is given and the output is
a terminal or JSON.`,
		Example: `  $ hyok credential create prod
  Credential ZKJ5PNPTQZ6L2HYQJIGCWHWS of the key store prod was made.
  Its secret access key is in /srv/hyok/credentials/prod.json.`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: data.completeStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mayShowSecret(cmd, showSecret, *format); err != nil {
				return err
			}
			path, err := data.path()
			if err != nil {
				return err
			}
			c, file, err := config.AddCredential(path, args[0])
			if err != nil {
				return err
			}
			v := credentialView{Store: args[0], AccessKeyID: c.AccessKeyID, Created: c.Created, File: file}
			if showSecret {
				v.SecretAccessKey = c.SecretAccessKey
			}
			return printNewCredential(cmd, *format, v)
		},
	}
	cmd.Flags().BoolVar(&showSecret, "show-secret", false, "print the secret access key too")
	return cmd
}

// mayShowSecret refuses to print a secret to where it may stay by mistake.
func mayShowSecret(cmd *cobra.Command, show bool, format outputFormat) error {
	if show && format != formatJSON && !isTerminal(cmd.OutOrStdout()) {
		return refusedf("--show-secret prints to a terminal, or with -o json")
	}
	return nil
}

func printNewCredential(cmd *cobra.Command, format outputFormat, v credentialView) error {
	out := cmd.OutOrStdout()
	if format == formatJSON {
		return printJSON(out, v)
	}
	_, err := fmt.Fprintf(out, "Credential %s of the key store %s was made.\nIts secret access key is in %s.\n", v.AccessKeyID, v.Store, v.File)
	if err == nil && v.SecretAccessKey != "" {
		_, err = fmt.Fprintf(out, "Secret access key: %s\n", v.SecretAccessKey)
	}
	return err
}

func newCredentialListCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:   "list [STORE]",
		Short: "List the credentials of one key store or of all",
		Long:  "Lists access key ids and when they were made, oldest first within a key store. Secrets are not shown.",
		Example: `  $ hyok credential list prod
  STORE  ACCESS KEY ID             CREATED
  prod   LNSSAZKCIKUSWNCBLGP2FQG5  2026-01-02T15:04:05Z
  prod   ZKJ5PNPTQZ6L2HYQJIGCWHWS  2026-04-02T09:00:00Z`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: data.completeStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			stores, err := data.stores(args)
			if err != nil {
				return err
			}
			views := []credentialView{}
			var rows [][]string
			for _, s := range stores {
				for _, c := range s.Credentials {
					views = append(views, credentialView{Store: s.Name, AccessKeyID: c.AccessKeyID, Created: c.Created, File: s.CredentialsFile})
					rows = append(rows, []string{s.Name, c.AccessKeyID, timeText(c.Created)})
				}
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), views)
			}
			return printTable(cmd.OutOrStdout(), []string{"STORE", "ACCESS KEY ID", "CREATED"}, rows)
		},
	}
}

// stores returns the store that args names, or all.
func (f *dataFlags) stores(args []string) ([]config.Store, error) {
	if len(args) == 1 {
		_, s, err := f.store(args[0])
		if err != nil {
			return nil, err
		}
		return []config.Store{*s}, nil
	}
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	return c.Stores, nil
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func newCredentialRevokeCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "revoke STORE ACCESS_KEY_ID",
		Short: "Remove a credential of a key store for good",
		Long: `Removes a credential, after asking on a terminal; --yes answers yes. From then on
requests that are signed with it are refused. The last credential of a key store is removed
with --force alone, because AWS KMS cannot use the store without one.`,
		Example: `  $ hyok credential revoke prod LNSSAZKCIKUSWNCBLGP2FQG5 --yes
  Credential LNSSAZKCIKUSWNCBLGP2FQG5 of the key store prod was revoked.`,
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: data.completeCredential,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := data.store(args[0])
			if err != nil {
				return err
			}
			if last := len(s.Credentials) == 1 && s.Credentials[0].AccessKeyID == args[1]; last && !force {
				return refusedf("credential %s %w; --force removes it nevertheless", args[1], config.ErrLastCredential)
			}
			question := fmt.Sprintf("Revoke the credential %q of the key store %s? Requests signed with it will be refused.", args[1], s.Name)
			if err := confirm(cmd, yes, question); err != nil {
				return err
			}
			err = config.RevokeCredential(c.Path, s.Name, args[1], force)
			if errors.Is(err, config.ErrLastCredential) { // another one was revoked meanwhile
				return refusedf("%w; --force removes it nevertheless", err)
			} else if err != nil {
				return err
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), credentialView{Store: s.Name, AccessKeyID: args[1], File: s.CredentialsFile})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Credential %s of the key store %s was revoked.\n", args[1], s.Name)
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "remove even the last credential")
	return cmd
}

// completeCredential completes a store, then one of its access key ids.
func (f *dataFlags) completeCredential(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return f.completeStore(cmd, args, prefix)
	}
	_, s, err := f.store(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return viewStore(s).AccessKeyIDs, cobra.ShellCompDirectiveNoFileComp
}
