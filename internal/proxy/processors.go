package proxy

import (
	"os"
	"runtime"
	"slices"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// processorsACore is how many of Go's processors there are for each core where
// tokens block their threads.
const processorsACore = 4

// SpareProcessors gives the process more of Go's processors (GOMAXPROCS) than it
// has cores if a module in this process blocks its callers, as that of a network HSM
// does: a thread that waits for the HSM keeps its processor until Go's monitor has
// noticed, up to ten milliseconds later, and with two processors and two such calls
// nothing else runs meanwhile. SoftHSM2 computes in the thread that calls it, for
// which more processors do nothing. The environment variable GOMAXPROCS is heeded.
func SpareProcessors(c *config.Config) {
	blocks := func(t config.Token) bool {
		p, err := keystore.ProfileByName(t.Profile)
		return err == nil && !t.Isolated && p.Lanes == 0
	}
	if os.Getenv("GOMAXPROCS") == "" && slices.ContainsFunc(c.Tokens, blocks) {
		runtime.GOMAXPROCS(processorsACore * runtime.NumCPU())
	}
}
