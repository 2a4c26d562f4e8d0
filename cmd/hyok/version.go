package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release, which the build sets by
// -ldflags "-X main.version=v1.2.3"; nothing else writes it.
var version string

// versionView is what hyok version prints.
type versionView struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitzero"` // of the source, where the build knew it
	Modified bool   `json:"modified"`          // the source differed from that revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand() *cobra.Command {
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of hyok",
		Long:  "Prints the version of hyok, the revision of its source, the Go version and the platform.",
		Example: `  $ hyok version
  hyok v1.0.0 (go1.26.0, linux/amd64)`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := viewVersion()
			if format == formatJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "hyok %s (%s, %s)\n", versionString(), v.Go, v.Platform)
			return err
		},
	}
	format.add(cmd)
	return cmd
}

func viewVersion() versionView {
	v := versionView{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if v.Version == "" && ok {
		v.Version = info.Main.Version
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// versionString returns the version for people and logs, such as v1.2.3.
func versionString() string { return viewVersion().Version }
