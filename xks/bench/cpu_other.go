//go:build !unix

package bench

import "time"

// processCPU returns the processor time that this process has used: unknown.
func processCPU() time.Duration { return 0 }
