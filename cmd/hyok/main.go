// Command hyok serves keys that a PKCS#11 token holds to AWS KMS, and provisions
// them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	if err := hardenProcess(); err != nil {
		fmt.Fprintln(os.Stderr, "hyok:", err)
		os.Exit(exitFailed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, newRootCommand())
	stop()
	os.Exit(code)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "hyok",
		Short: "Hold your own key: an AWS KMS external key store proxy for PKCS#11 tokens",
		Long: `hyok keeps keys in a PKCS#11 token (a network HSM, or SoftHSM2). It lets AWS KMS
use them through the External Key Store (XKS) proxy API, and serves the AWS KMS
API itself over them.

Exit codes: 0 done; 1 failed; 2 wrong arguments or flags; 3 not confirmed or not
allowed; 4 the token refused the PIN.`,
	}
	root.AddCommand(
		newInitCommand(), newServeCommand(),
		newStoreCommand(), newCredentialCommand(), newIdentityCommand(), newConfigCommand(),
		newTokenCommand(), newKeyCommand(), newTLSCommand(), newVersionCommand(), newModuleCommand(),
		newGroup("xks", "Check and load any XKS proxy", "Commands that call an XKS proxy as AWS KMS does.",
			newXKSVerifyCommand(), newXKSBenchCommand()),
	)
	return root
}
