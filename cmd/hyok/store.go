package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
)

// newStoreCommand returns hyok store.
func newStoreCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("store", "Manage key stores: what AWS KMS reaches under a URI path", `A key store is a URI path of the XKS proxy with its own keys and credentials. AWS
KMS connects to it as an external key store. Changes are made in the configuration
file, comments and order kept, and a running server takes them over by itself.`,
		newStoreCreateCommand(data, format),
		newStoreListCommand(data, format),
		newStoreShowCommand(data, format),
		newStoreExportCommand(data, format),
	)
	data.add(group)
	format.add(group)
	return group
}

// storeView is a key store as it is printed: without secrets.
type storeView struct {
	Name            string         `json:"name"`
	Prefix          string         `json:"prefix"`
	URIPath         string         `json:"xksProxyUriPath"`
	Tokens          []string       `json:"tokens"`
	Keys            []string       `json:"keys,omitempty"`
	KeyPattern      string         `json:"keyPattern,omitzero"`
	CredentialsFile string         `json:"credentialsFile"`
	AccessKeyIDs    []string       `json:"accessKeyIds"`
	Regions         []string       `json:"regions,omitempty"`
	RateLimit       *rateLimitView `json:"rateLimit,omitzero"`
	SampleMetadata  []byte         `json:"sampleMetadata,omitempty"`
}

type rateLimitView struct {
	PerSecond int `json:"perSecond"`
	Burst     int `json:"burst"`
}

func viewStore(s *config.Store) storeView {
	v := storeView{
		Name: s.Name, Prefix: s.Prefix, URIPath: s.URIPath(), Tokens: s.Tokens, Keys: s.Keys, KeyPattern: s.KeyPattern,
		CredentialsFile: s.CredentialsFile, Regions: s.Regions, SampleMetadata: s.SampleMetadata,
	}
	for _, c := range s.Credentials {
		v.AccessKeyIDs = append(v.AccessKeyIDs, c.AccessKeyID)
	}
	if s.RateLimit != nil {
		v.RateLimit = &rateLimitView{s.RateLimit.PerSecond, s.RateLimit.Burst}
	}
	return v
}

// keyText says in a cell which keys a store has.
func (v storeView) keyText() string {
	if v.KeyPattern != "" {
		return "pattern " + v.KeyPattern
	}
	return fmt.Sprintf("%d listed", len(v.Keys))
}

func (v storeView) rateText() string {
	if v.RateLimit == nil {
		return "unlimited"
	}
	return fmt.Sprintf("%d/s, burst %d", v.RateLimit.PerSecond, v.RateLimit.Burst)
}

func newStoreListCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the key stores",
		Long:  "Lists the key stores of the configuration file.",
		Example: `  $ hyok store list
  NAME     URI PATH                       TOKENS  KEYS            CREDENTIALS
  default  /keystores/default/kms/xks/v1  main    2 listed        1
  prod     /prod/kms/xks/v1               main    pattern prod-*  1`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := data.read()
			if err != nil {
				return err
			}
			views := make([]storeView, 0, len(c.Stores))
			var rows [][]string
			for i := range c.Stores {
				v := viewStore(&c.Stores[i])
				views = append(views, v)
				rows = append(rows, []string{v.Name, v.URIPath, strings.Join(v.Tokens, ","), v.keyText(), fmt.Sprint(len(v.AccessKeyIDs))})
			}
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), views)
			}
			return printTable(cmd.OutOrStdout(), []string{"NAME", "URI PATH", "TOKENS", "KEYS", "CREDENTIALS"}, rows)
		},
	}
}

func newStoreShowCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show one key store",
		Long:  "Shows all that is configured of a key store, but for the secrets.",
		Example: `  $ hyok store show prod
  NAME            prod
  URI PATH        /prod/kms/xks/v1
  TOKENS          main
  KEYS            prod-*
  CREDENTIALS     /srv/hyok/credentials/prod.json
  ACCESS KEY IDS  LNSSAZKCIKUSWNCBLGP2FQG5
  REGIONS         eu-central-1
  RATE LIMIT      1800/s, burst 1800`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: data.completeStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, s, err := data.store(args[0])
			if err != nil {
				return err
			}
			v := viewStore(s)
			if *format == formatJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return printStore(cmd, v)
		},
	}
}

func printStore(cmd *cobra.Command, v storeView) error {
	keys := v.KeyPattern
	if keys == "" {
		keys = strings.Join(v.Keys, ", ")
	}
	regions := "all"
	if len(v.Regions) > 0 {
		regions = strings.Join(v.Regions, ", ")
	}
	return printTable(cmd.OutOrStdout(), []string{"NAME", v.Name}, [][]string{
		{"URI PATH", v.URIPath},
		{"TOKENS", strings.Join(v.Tokens, ", ")},
		{"KEYS", keys},
		{"CREDENTIALS", v.CredentialsFile},
		{"ACCESS KEY IDS", strings.Join(v.AccessKeyIDs, ", ")},
		{"REGIONS", regions},
		{"RATE LIMIT", v.rateText()},
	})
}

// read reads the configuration without what only a server needs of it.
func (f *dataFlags) read() (*config.Config, error) {
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	return config.Read(path, profiles()...)
}

// store returns a key store with the configuration that it is in.
func (f *dataFlags) store(name string) (*config.Config, *config.Store, error) {
	c, err := f.read()
	if err != nil {
		return nil, nil, err
	}
	s := c.Store(name)
	if s == nil {
		return nil, nil, fmt.Errorf("key store %q %w in %s: 'hyok store list' shows those that do", name, config.ErrNotFound, c.Path)
	}
	return c, s, nil
}

// completeStore completes the name of a key store as the first argument.
func (f *dataFlags) completeStore(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := f.read()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, s := range c.Stores {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
