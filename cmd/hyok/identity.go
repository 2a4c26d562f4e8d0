package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
)

// newIdentityCommand returns hyok identity.
func newIdentityCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("identity", "Manage who may call the embedded KMS", `An identity is an access key of a principal in an account, both of which need no
set-up: each account sees its own keys. Identities are in the file that kms.identities of
the configuration names. A running server takes changes over by itself.`,
		newIdentityCreateCommand(data, format),
		newIdentityListCommand(data, format),
		newIdentityDeleteCommand(data, format),
	)
	data.add(group)
	format.add(group)
	return group
}

// identityView is an identity as it is printed. The secret is left out unless it
// was asked for.
type identityView struct {
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey,omitzero"`
	Account         string    `json:"account"`
	ARN             string    `json:"arn"`
	UserID          string    `json:"userId,omitzero"`
	Created         time.Time `json:"created,omitzero"`
	File            string    `json:"file"`
}

func viewIdentity(id config.Identity, file string) identityView {
	return identityView{AccessKeyID: id.AccessKeyID, Account: id.Account, ARN: id.ARN, UserID: id.UserID, Created: id.Created, File: file}
}

func newIdentityListCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List who may call the embedded KMS",
		Long:  "Lists access key ids, their accounts and principals, and when they were made, oldest first. Secrets are not shown.",
		Example: `  $ hyok identity list
  ACCESS KEY ID         ACCOUNT       PRINCIPAL                          CREATED
  HYOKZKJ5PNPTQZ6L2HYQ  111122223333  arn:aws:iam::111122223333:root     2026-01-02T15:04:05Z
  test                  000000000000  arn:aws:iam::000000000000:user/ci  -`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			kms, err := data.kms()
			if err != nil {
				return err
			}
			views := []identityView{}
			var rows [][]string
			for _, id := range kms.Identities {
				views = append(views, viewIdentity(id, kms.IdentitiesFile))
				rows = append(rows, []string{id.AccessKeyID, id.Account, id.ARN, timeText(id.Created)})
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), views)
			}
			return printTable(cmd.OutOrStdout(), []string{"ACCESS KEY ID", "ACCOUNT", "PRINCIPAL", "CREATED"}, rows)
		},
	}
}

func newIdentityDeleteCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ACCESS_KEY_ID",
		Short: "Remove an identity for good",
		Long: `Removes an identity, after asking on a terminal; --yes answers yes. From then on requests
that are signed with it are refused. The keys of its account stay; another identity of the
account reaches them.`,
		Example: `  $ hyok identity delete HYOKZKJ5PNPTQZ6L2HYQ --yes
  Identity HYOKZKJ5PNPTQZ6L2HYQ was deleted.`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: data.completeIdentity,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := data.path()
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Delete the identity %q? Requests signed with it will be refused.", args[0])
			if err := confirm(cmd, yes, question); err != nil {
				return err
			}
			id, file, err := config.DeleteIdentity(path, args[0])
			if err != nil {
				return err
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), viewIdentity(id, file))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Identity %s was deleted.\n", id.AccessKeyID)
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// kms returns the settings of the embedded KMS.
func (f *dataFlags) kms() (*config.KMS, error) {
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	if c.KMS == nil {
		return nil, fmt.Errorf("%s %w", c.Path, config.ErrNoKMS)
	}
	return c.KMS, nil
}

// completeIdentity completes an access key id.
func (f *dataFlags) completeIdentity(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	kms, err := f.kms()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []cobra.Completion
	for _, id := range kms.Identities {
		ids = append(ids, id.AccessKeyID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
