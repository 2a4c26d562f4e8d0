package verify

import (
	"slices"
	"testing"
)

// outcome makes the checks and returns every result that is not Pass.
func outcome(t *testing.T, target Target, checks []Check) (Summary, map[string]Result) {
	t.Helper()
	found := map[string]Result{}
	sum, err := Run(t.Context(), target, checks, func(r Result) {
		if r.Status != Pass {
			found[r.ID] = r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum, found
}

// untimed leaves out the checks whose result depends on the machine's load.
func untimed(t *testing.T) []Check {
	t.Helper()
	checks, err := Select(Checks(), nil, []string{"load.latency"})
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

func TestOurProxyConforms(t *testing.T) {
	target := newTestProxy(t).start(t)
	checks := untimed(t)
	sum, found := outcome(t, target, checks)
	for id, r := range found {
		// The test proxy is on loopback, and always returns metadata.
		if !slices.Contains([]string{"uri.server", "decrypt.metadata.added"}, id) || r.Status != NotChecked {
			t.Errorf("%s: %s: %s", id, r.Status, r.Detail)
		}
	}
	if !sum.Conforms() || sum.Passed != len(checks)-2 {
		t.Errorf("summary %+v of %d checks", sum, len(checks))
	}
}
