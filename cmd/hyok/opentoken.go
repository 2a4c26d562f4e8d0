package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/keystore"
)

// closeTimeout is how long a command waits for calls that hang in a module
// before it ends without them.
const closeTimeout = time.Second

// tokenFlags find a configured token.
type tokenFlags struct {
	*dataFlags
	token string
}

// addToken adds --token to cmd; the others belong to its group.
func (f *tokenFlags) addToken(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&f.token, "token", "", usage)
	// It fails for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("token", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return f.tokenNames(), cobra.ShellCompDirectiveNoFileComp
	})
}

func (f *tokenFlags) tokenNames() []cobra.Completion {
	c, err := f.read()
	if err != nil {
		return nil
	}
	names := make([]cobra.Completion, 0, len(c.Tokens))
	for i := range c.Tokens {
		names = append(names, c.Tokens[i].Name)
	}
	return names
}

// choose returns the token of this name, or the only one for "".
func (f *tokenFlags) choose(name string) (*config.Config, *config.Token, error) {
	c, err := f.read()
	if err != nil {
		return nil, nil, err
	}
	if name != "" {
		if t := c.Token(name); t != nil {
			return c, t, nil
		}
		return nil, nil, fmt.Errorf("token %q %w in %s: 'hyok token list' shows those that do", name, config.ErrNotFound, c.Path)
	}
	switch len(c.Tokens) {
	case 0:
		return nil, nil, fmt.Errorf("%s has no token: add one under tokens; 'hyok token init' makes one", c.Path)
	case 1:
		return c, &c.Tokens[0], nil
	}
	return nil, nil, usagef("which token? --token takes %s", strings.Join(f.tokenNames(), ", "))
}

// use opens the token that --token names, or the only one, for run.
func (f *tokenFlags) use(cmd *cobra.Command, run func(context.Context, *keystore.Token) error) error {
	c, t, err := f.choose(f.token)
	if err != nil {
		return err
	}
	return withToken(cmd, c, t, run)
}

// withToken opens a token for run and closes it afterwards. The end of cmd's
// context ends whatever waits for the token.
func withToken(cmd *cobra.Command, c *config.Config, t *config.Token, run func(context.Context, *keystore.Token) error) error {
	return withTokens(cmd, c, []*config.Token{t}, func(ctx context.Context, open []*keystore.Token) error { return run(ctx, open[0]) })
}

// withTokens is withToken for several tokens at once.
func withTokens(cmd *cobra.Command, c *config.Config, tokens []*config.Token, run func(context.Context, []*keystore.Token) error) (err error) {
	ctx := cmd.Context()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("interrupted: %w", err)
		}
	}()
	if err := proxy.SetEnvironment(c); err != nil {
		return err
	}
	log := quietLogger(ctx, cmd.ErrOrStderr())
	proxy.KeepTokens(log)
	modules := proxy.NewModules(c.Dir())
	open := make([]*keystore.Token, 0, len(tokens))
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		for _, tok := range open {
			if closeErr := tok.Close(closing); ctx.Err() == nil { // else what hangs was left behind on purpose
				err = errors.Join(err, closeErr)
			}
		}
	}()
	for _, t := range tokens {
		options, err := commandOptions(cmd, c, t, log)
		if err != nil {
			return err
		}
		tok, err := keystore.Open(ctx, modules, options)
		if err != nil {
			return err
		}
		open = append(open, tok)
	}
	return run(ctx, open)
}

// commandOptions returns the options that open a token for a command, which may
// have to ask for the PIN.
func commandOptions(cmd *cobra.Command, c *config.Config, t *config.Token, log *slog.Logger) (keystore.Options, error) {
	options, err := proxy.TokenOptions(c, t, log)
	if err != nil {
		return options, err
	}
	options.Isolated = false // a command is a process of its own, and parses no requests
	options.PIN, err = pinFunc(cmd, t.Name, options.URI, options.PIN)
	return options, err
}

// quietLogger lets warnings and errors through until ctx ends: what is left
// behind then has nothing to say to a person who has pressed Ctrl-C.
func quietLogger(ctx context.Context, w io.Writer) *slog.Logger {
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	context.AfterFunc(ctx, func() { level.Set(math.MaxInt) })
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// errNoPIN is of a token that others bring the PIN for, as a custom key store does.
var errNoPIN = errors.New("its URI names no PIN and there is no terminal to ask on")

// pinFunc returns what gives the PIN of a token: configured, if the URI names
// it, or an answer of the person at the terminal.
func pinFunc(cmd *cobra.Command, token string, u keystore.URI, configured func() (string, error)) (func() (string, error), error) {
	if u.NamesPIN() {
		return configured, nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return nil, fmt.Errorf("token %s: %w: add pin-source=file:PATH or pin-source=env:NAME to the URI", token, errNoPIN)
	}
	pin, err := askSecret(cmd, fmt.Sprintf("User PIN of the token %s: ", token))
	if err != nil {
		return nil, err
	}
	return func() (string, error) { return pin, nil }, nil
}

// askSecret reads a line from the terminal that standard input is, without echo.
func askSecret(cmd *cobra.Command, question string) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return "", errors.New("there is no terminal to ask on")
	}
	fd, out := int(in.Fd()), cmd.ErrOrStderr()
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the state of the terminal: %w", err)
	}
	if _, err := fmt.Fprint(out, question); err != nil {
		return "", err
	}
	secret, err := await(cmd.Context(), func() ([]byte, error) { return term.ReadPassword(fd) })
	if cmd.Context().Err() != nil {
		err = errors.Join(err, term.Restore(fd, before)) // the one who reads has not
	}
	defer clear(secret)
	_, _ = fmt.Fprintln(out) // the line end was not echoed; nothing depends on it
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	if len(secret) == 0 {
		return "", errors.New("nothing was entered")
	}
	return string(secret), nil
}

// await calls f, which knows no context, and leaves it behind when ctx ends.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		value, err := f()
		results <- result{value, err}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
