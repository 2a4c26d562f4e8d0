package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

const (
	parallel = 50                     // requests at once
	deadline = 250 * time.Millisecond // after which AWS KMS gives up
	samples  = 9                      // requests of which the median latency is taken
)

// secMetadataConsiderations is where the deadline of AWS KMS is first named.
const secMetadataConsiderations = "GetKeyMetadata, KMS Considerations"

// loadChecks are about many requests at once and how long one takes.
func loadChecks() []Check {
	checks := []Check{{ID: "load.parallel", Section: encrypt.section(), Level: Must,
		Title: fmt.Sprintf("%d Encrypt at once with one key succeed", parallel), run: parallelEncrypts}}
	for _, op := range operations() {
		checks = append(checks, Check{ID: "load.latency." + string(op), Section: secMetadataConsiderations, Level: Should,
			Title: fmt.Sprintf("%s answers within %v (median of %d)", op.section(), deadline, samples), run: latency(op)})
	}
	return checks
}

// parallelEncrypts takes throttling for what it is: a right of the proxy.
func parallelEncrypts(ctx context.Context, p *prober) error {
	answers := make([]answer, parallel)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = p.ask(ctx, encrypt) })
	}
	wg.Wait()
	throttled := 0
	for _, a := range answers {
		if a.errorName() == xks.ThrottlingException {
			throttled++
		} else if err := a.accepted(); err != nil {
			return err
		}
	}
	if throttled > 0 {
		return warnf("%d of %d requests were throttled, %d times each", throttled, parallel, throttleTries)
	}
	return nil
}

// latency warns only: the network between is not the proxy's.
func latency(op operation) func(context.Context, *prober) error {
	return func(ctx context.Context, p *prober) error {
		var took []time.Duration
		for range samples {
			a := p.ask(ctx, op)
			if err := a.accepted(); err != nil {
				return err
			}
			took = append(took, a.duration)
		}
		slices.Sort(took)
		if median := took[samples/2]; median > deadline {
			return fmt.Errorf("want at most %v, got %v", deadline, median.Round(time.Millisecond))
		}
		return nil
	}
}
