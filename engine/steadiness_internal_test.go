package engine

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/clock"
)

func TestSteadiness(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var wall, elapsed time.Duration
	pass := func(d time.Duration) { wall, elapsed = wall+d, elapsed+d }
	var out strings.Builder
	s := newSteadiness(clock.NewFor(func() time.Time { return start.Add(wall) }, func() time.Duration { return elapsed }),
		slog.New(slog.NewTextHandler(&out, nil)))
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"at the start", func() {}, false},
		{"before an hour", func() { pass(steadyFor - time.Second) }, false},
		{"after an hour", func() { pass(time.Second) }, true},
		{"jumped a month ahead", func() { wall += 30 * day }, false},
		{"half an hour later", func() { pass(steadyFor / 2) }, false},
		{"set right", func() { wall -= 30 * day }, false},
		{"half an hour after that", func() { pass(steadyFor / 2) }, false},
		{"an hour after that", func() { pass(steadyFor / 2) }, true},
	} {
		step.do()
		if got := s.proven(); got != step.want {
			t.Errorf("%s: proven is %t", step.name, got)
		}
	}
	if n := strings.Count(out.String(), "the clock has jumped"); n != 2 {
		t.Errorf("%d jumps in the log:\n%s", n, &out)
	}
}
