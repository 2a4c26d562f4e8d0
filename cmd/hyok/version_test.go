package main

import (
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestVersion(t *testing.T) {
	got := runProgram(t.Context(), "", "version")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "hyok "+versionString()+" (go") || versionString() == "" {
		t.Errorf("%d %q", got.code, got.stdout)
	}
	var v versionView
	runProgram(t.Context(), "", "version", "-o", "json").decode(t, &v)
	if v.Version != versionString() || v.Go != runtime.Version() || v.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", v)
	}
}

func TestShellCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := runProgram(t.Context(), "", "completion", shell); got.code != 0 || !strings.Contains(got.stdout, "hyok") {
			t.Errorf("%s: code %d, %q", shell, got.code, got.stderr)
		}
	}
	o := newOffice(t, "first", "second")
	for _, args := range [][]string{{"token", "show", ""}, {"key", "list", "--token", ""}} {
		got := runProgram(t.Context(), "", append([]string{"__complete"}, append(args[:2:2], append([]string{"--data", o.dir}, args[2:]...)...)...)...)
		if !strings.HasPrefix(got.stdout, "first\nsecond\n") {
			t.Errorf("%v: %q", args, got.stdout)
		}
	}
}

// Every command says what it does and shows how.
func TestEveryCommandHasHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s lacks a description or an example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRootCommand())
}
