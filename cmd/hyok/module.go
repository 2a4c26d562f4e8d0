package main

import (
	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/keystore"
)

// newModuleCommand returns the command that hyok serve starts for a token with
// isolation: process.
func newModuleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   keystore.ModuleCommand + " TOKEN", // whose name is for those who list processes
		Short: "Load a PKCS#11 module for the hyok that started this",
		Long: `Load the module of a token whose configuration says isolation: process, and serve
its calls over the socket that was inherited. hyok serve starts it and it ends with
it; it is of no use by hand.`,
		Example: "  hyok module main   # by hyok serve",
		Hidden:  true,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(*cobra.Command, []string) error { return keystore.ServeModule() },
	}
}
