package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
)

// newConfigCommand returns hyok config.
func newConfigCommand() *cobra.Command {
	data, format := new(dataFlags), new(outputFormat)
	group := newGroup("config", "Check the configuration", "The configuration is one strict YAML file, hyok.yaml, and the files that it names.",
		newConfigCheckCommand(data, format))
	data.add(group)
	format.add(group)
	return group
}

// checkView is the outcome of a check.
type checkView struct {
	File      string      `json:"file"`
	Good      bool        `json:"good"`
	Tokens    int         `json:"tokens"`
	Stores    int         `json:"stores"`
	Listeners int         `json:"listeners"`
	KMS       *kmsView    `json:"kms,omitempty"`
	Errors    []errorView `json:"errors,omitempty"`
	Warnings  []errorView `json:"warnings,omitempty"`
}

// kmsView is the embedded KMS, where there is one.
type kmsView struct {
	Listeners  int `json:"listeners"`
	Identities int `json:"identities"`
	Clusters   int `json:"cloudhsmClusters"`
}

type errorView struct {
	File    string `json:"file,omitzero"`
	Line    int    `json:"line,omitzero"`
	Column  int    `json:"column,omitzero"`
	Name    string `json:"name,omitzero"`
	Message string `json:"message"`
}

func newConfigCheckCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check the configuration file and the files that it names",
		Long: `Checks the configuration file with its credentials, identities and certificates as a server does
before it uses them, and reports everything that is wrong with its line. The exit code is
1 if anything is; a warning alone, as of a certificate without its intermediate one,
changes nothing. Tokens are not opened.`,
		Example: `  $ hyok config check hyok.yaml
  /srv/hyok/hyok.yaml is good: 1 token, 2 key stores, 1 listener; the embedded KMS: 1 listener, 2 identities, 0 clusters
  $ hyok config check broken.yaml
  hyok: /srv/hyok/broken.yaml:6:15: tokens.main.sessions: must be a whole number from 1 to 1024`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if data.config != "" || data.data != "" {
					return usagef("give either FILE or --config or --data")
				}
				data.config = args[0]
			}
			path, err := data.path()
			if err != nil {
				return err
			}
			c, err := data.load()
			if err == nil {
				err = proxy.Check(c)
			}
			v := viewCheck(path, c, err)
			if *format == formatJSON {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), v))
			}
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				if _, err := fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), v.text())
			return err
		},
	}
}

func viewCheck(path string, c *config.Config, err error) checkView {
	if err == nil {
		v := checkView{File: c.Path, Good: true, Tokens: len(c.Tokens), Stores: len(c.Stores), Listeners: len(c.Listeners)}
		if k := c.KMS; k != nil {
			v.KMS = &kmsView{len(k.Listeners), len(k.Identities), len(k.Clusters)}
		}
		v.Warnings = viewErrors(c.Warnings)
		return v
	}
	v := checkView{File: path}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	v.Errors = viewErrors(all)
	return v
}

func viewErrors(errs []error) []errorView {
	var views []errorView
	for _, err := range errs {
		var e *config.Error
		if errors.As(err, &e) {
			views = append(views, errorView{e.File, e.Line, e.Column, e.Name, e.Message})
		} else {
			views = append(views, errorView{Message: err.Error()})
		}
	}
	return views
}

// text says what a good configuration has.
func (v checkView) text() string {
	s := fmt.Sprintf("%s is good: %s, %s, %s", v.File, count(v.Tokens, "token"), count(v.Stores, "key store"), count(v.Listeners, "listener"))
	if k := v.KMS; k != nil {
		s += fmt.Sprintf("; the embedded KMS: %s, %s, %s", count(k.Listeners, "listener"), count(k.Identities, "identity"), count(k.Clusters, "cluster"))
	}
	return s
}

// count returns "1 token" or "2 tokens".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "ty"); ok {
		return fmt.Sprintf("%d %sties", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
