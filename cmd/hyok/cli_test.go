package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("broken"), 1},
		{usagef("which?"), 2},
		{fmt.Errorf("create: %w", refusedf("no")), 3},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("exitCode(%v) = %d, want %d", test.err, got, test.want)
		}
	}
}

func TestExecuteReportsUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "which command?"},
		{[]string{"grup"}, "did you mean group?"},
		{[]string{"group"}, "see 'hyok group --help'"},
		{[]string{"group", "x"}, `unknown command "x"`},
		{[]string{"group", "leaf", "extra"}, "usage: hyok group leaf"},
		{[]string{"group", "leaf", "--nope"}, "unknown flag: --nope"},
		{[]string{"group", "leaf", "-o", "xml"}, "must be table or json"},
	} {
		leaf := &cobra.Command{Use: "leaf", Args: usageArgs(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return nil }}
		var format outputFormat
		format.add(leaf)
		root := &cobra.Command{Use: "hyok"}
		root.AddCommand(newGroup("group", "", "", leaf))
		var stderr bytes.Buffer
		root.SetErr(&stderr)
		root.SetArgs(append([]string{}, test.args...))
		if code := execute(t.Context(), root); code != exitUsage || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("hyok %v: code %d, %q; want code 2 and %q", test.args, code, stderr.String(), test.want)
		}
	}
}

func TestDataFlags(t *testing.T) {
	for _, test := range []struct {
		name, env string
		flags     dataFlags
		want      string
	}{
		{"default", "", dataFlags{}, "data/hyok.yaml"},
		{"environment", "/srv/hyok", dataFlags{}, "/srv/hyok/hyok.yaml"},
		{"flag before environment", "/srv/hyok", dataFlags{data: "d"}, "d/hyok.yaml"},
		{"config before environment", "/srv/hyok", dataFlags{config: "/etc/my.yaml"}, "/etc/my.yaml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("HYOK_DATA", test.env)
			path, err := test.flags.path()
			if err != nil || filepath.ToSlash(path) != test.want {
				t.Errorf("path() = %q, %v, want %q", path, err, test.want)
			}
			if dir := test.flags.dir(); dir != filepath.Dir(test.want) {
				t.Errorf("dir() = %q, want the folder of %q", dir, test.want)
			}
		})
	}
	both := dataFlags{data: "a", config: "b"}
	if _, err := both.path(); exitCode(err) != exitUsage {
		t.Errorf("both flags: %v, want a usage error", err)
	}
}

func TestConfirm(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetIn(strings.NewReader("y\n")) // not a terminal: its answer must not count
	if err := confirm(cmd, false, "Destroy?"); exitCode(err) != exitRefused || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without a terminal: %v, want a refusal that names --yes", err)
	}
	if err := confirm(cmd, true, "Destroy?"); err != nil {
		t.Errorf("with --yes: %v", err)
	}
	for answer, want := range map[string]int{"y\n": exitOK, "YES\n": exitOK, "yes": exitOK, "\n": exitRefused, "": exitRefused, "yikes\n": exitRefused} {
		var out bytes.Buffer
		if err := ask(strings.NewReader(answer), &out, "Destroy?"); exitCode(err) != want {
			t.Errorf("answer %q: %v, want code %d", answer, err, want)
		}
		if out.String() != "Destroy? [y/N] " {
			t.Errorf("asked %q", out.String())
		}
	}
}

func TestPrintTable(t *testing.T) {
	var out bytes.Buffer
	if err := printTable(&out, []string{"NAME", "KEYS"}, [][]string{{"a\x1b[31m\tb", "1"}, {"c", ""}}); err != nil {
		t.Fatal(err)
	}
	const want = "NAME      KEYS\na\uFFFD[31m\uFFFDb  1\nc         -\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPrintJSON(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, map[string]int{"b": 2, "a": 1}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"a\": 1,\n  \"b\": 2\n}\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
