package drill_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/softhsm"
	"github.com/hyok-kms/hyok/xks"
)

// newHoused starts a proxy on n tokens of one module, SoftHSM2 itself, with a key "k",
// and returns their folders.
func newHoused(t *testing.T, n int, lines string) (s *site, folders []string) {
	t.Helper()
	s = &site{t: t}
	// A copy, which the process loads beside the one that the tokens are made by.
	library, err := os.ReadFile(tokentest.Module(t))
	module := filepath.Join(t.TempDir(), "softhsm2.so")
	if err := errors.Join(err, os.WriteFile(module, library, 0o700)); err != nil {
		t.Fatal(err)
	}
	var tokens []siteToken
	for range n {
		u := tokentest.NewToken(t, &modules)
		other := tokentest.Open(t, &modules, tokentest.Options(u))
		s.put(other)
		folder, err := softhsm.Folder(other.Info().Serial)
		if err != nil || folder == "" {
			t.Fatal(folder, err)
		}
		tokens, folders = append(tokens, siteToken{u.Token, module}), append(folders, folder)
	}
	s.start(tokens, lines)
	eventually(t, "all tokens are well", func() bool { return s.wellTokens() == n })
	return s, folders
}

// wellTokens returns how many tokens GetHealthStatus says can serve.
func (s *site) wellTokens() int {
	h, err := s.client.GetHealthStatus(s.t.Context(), xks.RequestMetadata{KMSRequestID: "drill", KMSOperation: "KmsHealthCheck"})
	if err != nil {
		return 0
	}
	n := 0
	for _, m := range h.EKMFleet {
		if m.Health != xks.HealthUnavailable {
			n++
		}
	}
	return n
}

// aways are the ways in which the storage of a token goes away.
func aways() map[string]func(t *testing.T, folder string) (back func()) {
	do := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	return map[string]func(t *testing.T, folder string) (back func()){
		"move": func(t *testing.T, folder string) (back func()) {
			do(t, os.Rename(folder, folder+".away"))
			return func() { do(t, os.Rename(folder+".away", folder)) }
		},
		"mode": func(t *testing.T, folder string) (back func()) {
			info, err := os.Stat(folder)
			if err == nil {
				err = os.Chmod(folder, fs.FileMode(0))
			}
			do(t, err)
			return func() { do(t, os.Chmod(folder, info.Mode().Perm())) }
		},
	}
}

// The storage of a token goes away under load and comes back, of the only token and of
// the spare one of a group: nobody is told that the key does not exist, and it serves
// again. A process that is root's may read whatever the mode is, so it is not.
func TestStorageAway(t *testing.T) {
	if tokentest.AsNobody(t) {
		return
	}
	for how, away := range aways() {
		for _, tokens := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d tokens", how, tokens), func(t *testing.T) {
				isolations(t, func(t *testing.T, lines string) {
					s, folders := newHoused(t, tokens, lines)
					for _, d := range pick([]time.Duration{800 * time.Millisecond}, []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second, 30 * time.Second}) {
						s.awayFor(d, folders[tokens-1], tokens, away)
					}
				})
			})
		}
	}
}

// awayFor has the storage of a token away for some time, while requests come.
func (s *site) awayFor(d time.Duration, folder string, tokens int, away func(*testing.T, string) func()) {
	t := s.t
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all []sample
	var load sync.WaitGroup
	begin := time.Now()
	load.Go(func() { all = s.load(ctx, pick(100, 300)) })
	time.Sleep(pick(100*time.Millisecond, time.Second)) // session copies are in use then
	back := away(t, folder)
	time.Sleep(d)
	back()
	returned := time.Since(begin)
	served := eventually(t, "it serves", func() bool { return s.encrypt(t.Context()) == nil })
	whole := eventually(t, "all tokens are well", func() bool { return s.wellTokens() == tokens })
	time.Sleep(pick(100*time.Millisecond, 2*time.Second))
	stop()
	load.Wait()
	refused := map[xks.ErrorName]int{}
	lastRefusal := time.Duration(0)
	for _, a := range all {
		name := named(t, a.err)
		if name == "" {
			continue
		}
		// ThrottlingException says that this machine is busy.
		if refused[name]++; a.sent > returned && name != xks.ThrottlingException {
			lastRefusal = max(lastRefusal, a.sent+a.took-returned)
		}
		if name == xks.KeyNotFoundException || name == xks.InvalidCiphertextException {
			t.Errorf("away for %v: %v", d, a.err)
		}
	}
	if name := named(t, s.encrypt(t.Context())); name != "" {
		t.Errorf("away for %v: afterwards it answers %s", d, name)
	}
	if full() && max(served, lastRefusal) > time.Second {
		t.Errorf("away for %v: it served %v after the return, the last refusal came %v after it", d, served, lastRefusal)
	}
	if s.forbids() {
		t.Error("the group remembers that a key was destroyed")
	}
	t.Logf("away for %v, %d requests: refused %v, the last one %v after the return; first answer then %v after it, all tokens well %v after that; p50 %v, p99.9 %v, slowest %v",
		d, len(all), refused, lastRefusal.Round(time.Millisecond), served.Round(time.Millisecond), whole.Round(time.Millisecond),
		quantile(times(all, accepted), .5).Round(time.Microsecond), quantile(times(all, accepted), .999).Round(time.Microsecond), quantile(times(all, every), 1).Round(time.Microsecond))
}

// forbids reports whether what is remembered of the tokens forbids anything.
func (s *site) forbids() bool {
	s.t.Helper()
	found := false
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "known-answers") {
			return err
		}
		text, err := os.ReadFile(path)
		found = found || strings.Contains(string(text), `"destroyed"`)
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return found
}

// What the tokens of a module notice when it is initialized again because of another
// one that is sick: nothing is refused.
func TestInitializedAgainUnderLoad(t *testing.T) {
	s, folders := newHoused(t, 2, "")
	again := pick(2, 50)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all []sample
	var load sync.WaitGroup
	load.Go(func() { all = s.load(ctx, pick(100, 500)) })
	for range again {
		back := aways()["move"](t, folders[1])
		eventually(t, "one token is out of service", func() bool { return s.wellTokens() == 1 })
		back()
		eventually(t, "all tokens are well", func() bool { return s.wellTokens() == 2 })
	}
	stop()
	load.Wait()
	failed := map[xks.ErrorName]int{}
	for _, a := range all {
		if name := named(t, a.err); name != "" {
			failed[name]++
		}
	}
	t.Logf("%d times initialized again: of %d requests failed %v, p50 %v, p99 %v, p99.9 %v, slowest %v", again, len(all), failed,
		quantile(times(all, every), .5), quantile(times(all, every), .99), quantile(times(all, every), .999), quantile(times(all, every), 1))
}
