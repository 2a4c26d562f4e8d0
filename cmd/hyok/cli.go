package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// Exit codes of every command.
const (
	exitOK      = 0
	exitFailed  = 1 // it did not work; the message says why
	exitUsage   = 2 // wrong arguments or flags
	exitRefused = 3 // not confirmed, or not allowed without a flag
	exitPIN     = 4 // the token refused the PIN: to try again could lock it
)

// exitError is an error that ends the process with its own code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode returns the code; every error that has this method chooses one.
func (e *exitError) ExitCode() int { return e.code }

// usagef returns an error about wrong arguments or flags.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// refusedf returns an error about something that was not allowed.
func refusedf(format string, args ...any) error {
	return &exitError{exitRefused, fmt.Errorf(format, args...)}
}

// exitCode returns the code that a command's error ends the process with.
func exitCode(err error) int {
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.ExitCode()
	case errors.Is(err, keystore.ErrPINIncorrect):
		return exitPIN
	default:
		return exitFailed
	}
}

// execute runs the command line that root was given, prints the error if there
// is one, and returns the exit code.
func execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see '%s --help'", err, cmd.CommandPath())
	})
	asGroup(root)
	err := root.ExecuteContext(ctx)
	if err != nil {
		text := strings.ReplaceAll(err.Error(), "\n", "\n"+root.Name()+": ")
		_, _ = fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), text) // the exit code tells it too
	}
	return exitCode(err)
}

// newGroup returns a command that only holds others.
func newGroup(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{Use: use, Short: short, Long: long}
	group.AddCommand(commands...)
	asGroup(group)
	return group
}

// asGroup makes a missing or unknown command an error; cobra would print the
// help and succeed.
func asGroup(group *cobra.Command) {
	group.SuggestionsMinimumDistance = 2
	group.Args = cobra.ArbitraryArgs
	group.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("which command? see '%s --help'", cmd.CommandPath())
		}
		hint := ""
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			hint = " (did you mean " + strings.Join(similar, " or ") + "?)"
		}
		return usagef("unknown command %q%s; see '%s --help'", args[0], hint, cmd.CommandPath())
	}
}

// usageArgs makes the error of a check of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%w; usage: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// dataFlags finds the configuration file.
type dataFlags struct {
	data, config string
}

// add adds --data and --config to cmd and the commands below it.
func (f *dataFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.data, "data", "", "folder with "+config.FileName+" (default $HYOK_DATA, or ./data)")
	cmd.PersistentFlags().StringVar(&f.config, "config", "", "configuration file, instead of the one in --data")
}

// dir returns the data folder.
func (f *dataFlags) dir() string {
	switch env := os.Getenv("HYOK_DATA"); {
	case f.data != "":
		return f.data
	case f.config != "":
		return filepath.Dir(f.config)
	case env != "":
		return env
	default:
		return "data"
	}
}

// path returns the path of the configuration file.
func (f *dataFlags) path() (string, error) {
	if f.data != "" && f.config != "" {
		return "", usagef("give either --data or --config")
	}
	if f.config != "" {
		return f.config, nil
	}
	return filepath.Join(f.dir(), config.FileName), nil
}

// load reads the configuration.
func (f *dataFlags) load() (*config.Config, error) {
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	return config.Load(path, profiles()...)
}

// profiles returns the names that a token's profile may have.
func profiles() []string {
	var names []string
	for _, p := range keystore.Profiles() {
		names = append(names, p.Name)
	}
	return names
}

// outputFormat is the value of the flag -o.
type outputFormat string

const (
	formatTable outputFormat = "table"
	formatJSON  outputFormat = "json"
)

// add adds -o to cmd and the commands below it.
func (f *outputFormat) add(cmd *cobra.Command) {
	*f = formatTable
	cmd.PersistentFlags().VarP(f, "output", "o", "output format: table for people, json for programs")
	// It fails for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *outputFormat) Type() string { return "table|json" }

// Set implements pflag.Value.
func (f *outputFormat) Set(s string) error {
	if !slices.Contains([]outputFormat{formatTable, formatJSON}, outputFormat(s)) {
		return errors.New("must be table or json")
	}
	*f = outputFormat(s)
	return nil
}

// printJSON writes v as indented JSON.
func printJSON(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, json.Deterministic(true), jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// printTable writes rows under a head, in columns. What is not printable in a
// cell, such as the escape sequence in a key's label, is replaced.
func printTable(w io.Writer, head []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		line := strings.Join(mapCells(row), "\t")
		if _, err := fmt.Fprintln(t, line); err != nil {
			return err
		}
	}
	return t.Flush()
}

func mapCells(row []string) []string {
	cells := make([]string, len(row))
	for i, cell := range row {
		cells[i] = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return unicode.ReplacementChar
			}
			return r
		}, cell)
		if cell == "" {
			cells[i] = "-"
		}
	}
	return cells
}

// isTerminal reports whether a person is at stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a person whether to do what question says. Without a terminal, or
// without a yes, it returns an error of code exitRefused.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return refusedf("not confirmed: there is no terminal to ask on; --yes answers the question %q", question)
	}
	_, err := await(cmd.Context(), func() (struct{}, error) {
		return struct{}{}, ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question)
	})
	return err
}

func ask(in io.Reader, out io.Writer, question string) error {
	if _, err := fmt.Fprintf(out, "%s [y/N] ", question); err != nil {
		return err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return refusedf("not confirmed: nothing was changed")
}
