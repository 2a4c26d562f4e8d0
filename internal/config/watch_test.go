package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watch is a Watcher whose ticks the test makes, and what it reported.
type watch struct {
	*Watcher
	path    string
	configs []*Config
	errs    []error
}

func newWatch(t *testing.T, text string) *watch {
	t.Helper()
	w := &watch{path: folder(t, text)}
	c, err := Load(w.path)
	if err != nil {
		t.Fatal(err)
	}
	w.Watcher = &Watcher{Reload: func(c *Config, asked bool, err error) {
		if asked {
			t.Error("nobody has asked")
		}
		if err != nil {
			w.errs = append(w.errs, err)
		} else {
			w.configs = append(w.configs, c)
		}
	}}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	w.Run(done, c) // takes c as the one in force, and ends
	return w
}

func (w *watch) ticks(n int) {
	for range n {
		w.tick()
	}
}

func (w *watch) file(name string) string { return filepath.Join(filepath.Dir(w.path), name) }

// expect fails unless so many configurations and errors were reported.
func (w *watch) expect(t *testing.T, configs, errs int) {
	t.Helper()
	if len(w.configs) != configs || len(w.errs) != errs {
		t.Fatalf("%d configurations and %d errors %v, want %d and %d", len(w.configs), len(w.errs), w.errs, configs, errs)
	}
}

func TestWatchReportsEachChangeOnce(t *testing.T) {
	w := newWatch(t, full)
	w.ticks(3)
	w.expect(t, 0, 0)

	put(t, w.path, strings.Replace(full, "max_in_flight: 64", "max_in_flight: 65536", 1))
	w.ticks(1) // it may still be written to
	w.expect(t, 0, 0)
	w.ticks(5)
	w.expect(t, 1, 0)
	if got := w.configs[0].Limits.MaxInFlight; got != 65536 {
		t.Errorf("max_in_flight %d is not the new one", got)
	}

	if _, _, err := AddCredential(w.path, "prod"); err != nil { // by a rename
		t.Fatal(err)
	}
	w.ticks(5)
	w.expect(t, 2, 0)
	if got := len(w.configs[1].Store("prod").Credentials); got != 2 {
		t.Errorf("%d credentials, want the new one too", got)
	}
}

func TestWatchFollowsTheFilesOfTheKMS(t *testing.T) {
	w := newWatch(t, full)
	added := NewIdentity("444455556666")
	if _, err := AddIdentity(w.path, added); err != nil {
		t.Fatal(err)
	}
	w.ticks(5)
	w.expect(t, 1, 0)
	if got := w.configs[0].KMS.Identities; len(got) != 3 || got[2] != added {
		t.Errorf("identities %v, want the new one too", got)
	}
	certificate, _ := newCertificate(t)
	for i, file := range []string{"tls/hsm.crt", "tls/proxies.crt"} {
		put(t, w.file(file), certificate)
		w.ticks(5)
		w.expect(t, i+2, 0)
	}
	put(t, w.file("credentials/kms.json"), "{}")
	if err := os.Chmod(w.file("credentials/kms.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.ticks(patience * 2)
	w.expect(t, 3, 1)
}

func TestWatchWaitsForTheWholePair(t *testing.T) {
	w := newWatch(t, full)
	certificate, key := newCertificate(t)
	put(t, w.file("tls/server.crt"), certificate+"\n")
	w.ticks(patience - 1)
	w.expect(t, 0, 0)
	put(t, w.file("tls/server.key"), key+"\n")
	w.ticks(patience * 2)
	w.expect(t, 1, 0)
}

func TestWatchReportsABadFileOnceAndThenTheGoodOne(t *testing.T) {
	w := newWatch(t, full)
	put(t, w.path, full+"\nbad: 1\n")
	w.ticks(patience * 3)
	w.expect(t, 0, 1)
	if !strings.Contains(w.errs[0].Error(), "unknown name") {
		t.Errorf("got %v", w.errs[0])
	}
	put(t, w.path, full+"\n")
	w.ticks(patience)
	w.expect(t, 1, 1)

	if err := os.Remove(w.file("credentials/prod.json")); err != nil {
		t.Fatal(err)
	}
	w.ticks(patience * 3)
	w.expect(t, 1, 2)
	var typed *Error
	if !errors.As(w.errs[1], &typed) || typed.File != w.file("credentials/prod.json") {
		t.Errorf("got %v, want an error about the missing file", w.errs[1])
	}
}

func TestWatchNoticesAMode(t *testing.T) {
	w := newWatch(t, full)
	if err := os.Chmod(w.file("credentials/prod.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.ticks(patience * 2)
	w.expect(t, 0, 1)
	if err := os.Chmod(w.file("credentials/prod.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ticks(2)
	w.expect(t, 1, 1)
}

// TestWatchFollowsSwappedLinks changes a file as a Kubernetes volume does.
func TestWatchFollowsSwappedLinks(t *testing.T) {
	text := strings.Replace(full, "credentials/prod.json", "secret/prod.json", 1)
	path := folder(t, full)
	dir := filepath.Dir(path)
	now := time.Now()
	for _, version := range []string{"1", "2"} { // alike in size and time
		file := filepath.Join(dir, "secret", ".."+version, "prod.json")
		put(t, file, credentialsJSON(strings.Repeat("CD"[version[0]-'1':][:1], 20)))
		if err := os.Chtimes(file, now, now); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		if err := errors.Join(os.Symlink(target, filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "secret", name))); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/prod.json", "prod.json")
	put(t, path, text)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	w := &Watcher{Reload: func(c *Config, _ bool, err error) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Store("prod").Credentials[0].AccessKeyID[:1])
	}}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	w.Run(done, c)
	link("..2", "..data")
	for range 5 {
		w.tick()
	}
	if strings.Join(got, "") != "D" {
		t.Errorf("loaded %v, want the credentials of the second folder, once", got)
	}
}

func TestWatchFindsWhatChangedBeforeItRan(t *testing.T) {
	path := folder(t, full)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, full+"\n")
	expectReload(t, c, func(ticks chan<- time.Time, _ chan<- os.Signal, got <-chan error) error {
		for {
			select {
			case ticks <- time.Time{}:
			case err := <-got:
				return err
			}
		}
	})
}

func TestWatchLoadsAtOnceWhenAsked(t *testing.T) {
	path := folder(t, full)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	expectReload(t, c, func(_ chan<- time.Time, now chan<- os.Signal, got <-chan error) error {
		now <- syscall.SIGHUP // nothing has changed
		if err := <-got; !errors.Is(err, errAsked) {
			return fmt.Errorf("it is not said that somebody asked: %w", err)
		}
		put(t, path, "bad: 1")
		now <- syscall.SIGHUP
		if err := <-got; err == nil {
			return errors.New("a bad file was accepted")
		}
		return nil
	})
}

// errAsked stands for a good configuration that was asked for.
var errAsked = errors.New("asked")

// expectReload runs a watcher while use drives it, which gets what it reports.
func expectReload(t *testing.T, c *Config, use func(chan<- time.Time, chan<- os.Signal, <-chan error) error) {
	t.Helper()
	ticks, now, got := make(chan time.Time), make(chan os.Signal), make(chan error, 1)
	w := &Watcher{Ticks: ticks, Now: now, Reload: func(_ *Config, asked bool, err error) {
		if asked && err == nil {
			err = errAsked
		}
		got <- err
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx, c) })
	if err := use(ticks, now, got); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
}
