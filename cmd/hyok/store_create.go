package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
)

// storeCreateFlags are the flags of hyok store create.
type storeCreateFlags struct {
	prefix, keyPattern    string
	tokens, keys, regions []string
	rate                  int
}

func newStoreCreateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	var flags storeCreateFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Add a key store with a first credential",
		Long: `Adds a key store to the configuration file, and makes a credential for it in
credentials/NAME.json beside that file. Without --key or --key-pattern the store has
no keys yet.`,
		Example: `  $ hyok store create prod --prefix /prod --key-pattern 'prod-*' --region eu-central-1 --rate 1800
  Key store prod is at the URI path /prod/kms/xks/v1.
  Its credential LNSSAZKCIKUSWNCBLGP2FQG5 is in /srv/hyok/credentials/prod.json.
  'hyok store export prod' writes both for the AWS console.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, path, err := flags.store(cmd, data, args[0])
			if err != nil {
				return err
			}
			if s.CredentialsFile, err = config.AddStore(path, *s); err != nil {
				return err
			}
			v := viewStore(s)
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Key store %s is at the URI path %s.\nIts credential %s is in %s.\n'hyok store export %s' writes both for the AWS console.\n",
				v.Name, v.URIPath, v.AccessKeyIDs[0], v.CredentialsFile, v.Name)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.prefix, "prefix", "", "URI path before /kms/xks/v1, may be empty (default /keystores/NAME)")
	f.StringArrayVar(&flags.tokens, "token", nil, "token that has the keys, may be repeated (default the only one)")
	f.StringArrayVar(&flags.keys, "key", nil, "external key id, may be repeated")
	f.StringVar(&flags.keyPattern, "key-pattern", "", "pattern of external key ids, such as 'prod-*'")
	f.StringArrayVar(&flags.regions, "region", nil, "AWS Region that may use the store, may be repeated (default all)")
	f.IntVar(&flags.rate, "rate", 0, "limit of requests a second (default none)")
	return cmd
}

// store returns the store to add and the path of the configuration file.
func (flags *storeCreateFlags) store(cmd *cobra.Command, data *dataFlags, name string) (*config.Store, string, error) {
	if err := flags.check(cmd, name); err != nil {
		return nil, "", err
	}
	path, err := data.path()
	if err != nil {
		return nil, "", err
	}
	s := &config.Store{
		Name: name, Prefix: flags.prefix, Tokens: flags.tokens, Keys: flags.keys, KeyPattern: flags.keyPattern,
		Regions: flags.regions, Credentials: []config.Credential{config.NewCredential()},
	}
	if !cmd.Flags().Changed("prefix") {
		s.Prefix = "/keystores/" + name
	}
	if flags.rate > 0 {
		s.RateLimit = &config.RateLimit{PerSecond: flags.rate, Burst: flags.rate}
	}
	if len(s.Tokens) == 0 {
		c, err := data.read()
		if err != nil {
			return nil, "", err
		}
		if len(c.Tokens) != 1 {
			return nil, "", usagef("%s has %d tokens: say by --token which one has the keys", c.Path, len(c.Tokens))
		}
		s.Tokens = []string{c.Tokens[0].Name}
	}
	return s, path, nil
}

// check reports the mistakes that are seen without the configuration.
func (flags *storeCreateFlags) check(cmd *cobra.Command, name string) error {
	if err := config.ValidateName(name); err != nil {
		return usagef("NAME %w", err)
	}
	if err := config.ValidatePrefix(flags.prefix); err != nil {
		return usagef("--prefix %w", err)
	}
	for _, id := range flags.keys {
		if err := config.ValidateKeyID(id); err != nil {
			return usagef("--key %w", err)
		}
	}
	if len(flags.keys) > 0 && flags.keyPattern != "" {
		return usagef("give either --key or --key-pattern")
	}
	if cmd.Flags().Changed("rate") && flags.rate < 1 {
		return usagef("--rate must be 1 at least")
	}
	return nil
}
