package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// newKeyFlags are the flags of the commands that make keys.
type newKeyFlags struct {
	tokenFlags
	usage      string
	replicable replicableFlag
	store      string
}

// add adds the flags to cmd.
func (f *newKeyFlags) add(cmd *cobra.Command) {
	f.addToken(cmd, "configured token to make the key in (default the only one)")
	cmd.Flags().StringVar(&f.usage, "usage", "encrypt,decrypt", "what the token shall permit: encrypt,decrypt or encrypt or decrypt or none")
	f.replicable.add(cmd, "let the key leave the token wrapped: yes, trusted (under trusted wrapping keys alone) or no (default no)")
	cmd.Flags().StringVar(&f.store, "store", "", "key store to whose list the key is added")
	// These fail for an unknown flag only.
	_ = cmd.RegisterFlagCompletionFunc("usage", cobra.FixedCompletions([]string{"encrypt,decrypt", "encrypt", "decrypt", "none"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("store", func(cmd *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return f.completeStore(cmd, nil, prefix)
	})
}

// newKeys says which keys to make, where, and who serves them.
type newKeys struct {
	config *config.Config
	token  *config.Token
	ids    []string
	usage  keystore.KeyUsage
	store  *config.Store // nil: none is to list them
}

// check looks at everything before a key is made, since it would stay.
func (f *newKeyFlags) check(ids []string) (*newKeys, error) {
	usage, err := parseUsage(f.usage)
	if err != nil {
		return nil, err
	}
	usage.Replicable = keystore.Replicable(f.replicable)
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if err := keystore.ValidateID(id); err != nil {
			return nil, usagef("%w", err)
		}
		if seen[id] {
			return nil, usagef("key id %s is given twice", id)
		}
		seen[id] = true
	}
	c, t, err := f.choose(f.token)
	if err != nil {
		return nil, err
	}
	n := &newKeys{config: c, token: t, ids: ids, usage: usage}
	if f.store != "" {
		if n.store, err = storeFor(c, f.store, t.Name, ids); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// storeFor returns the store if it can have keys of these ids in this token.
func storeFor(c *config.Config, name, token string, ids []string) (*config.Store, error) {
	s := c.Store(name)
	switch {
	case s == nil:
		return nil, fmt.Errorf("key store %q %w in %s: 'hyok store list' shows those that do", name, config.ErrNotFound, c.Path)
	case !slices.Contains(s.Tokens, token):
		return nil, fmt.Errorf("key store %s has no keys in the token %s: its tokens are %s", name, token, strings.Join(s.Tokens, ", "))
	case s.KeyPattern == "":
		return s, nil
	}
	for _, id := range ids {
		if ok, err := path.Match(s.KeyPattern, id); err != nil || !ok {
			return nil, fmt.Errorf("key store %s takes its keys by the pattern %s, which %s does not match", name, s.KeyPattern, id)
		}
	}
	return s, nil
}

// addToStore lists the keys in the store, unless its pattern does already.
func (n *newKeys) addToStore() error {
	if n.store == nil || n.store.KeyPattern != "" {
		return nil
	}
	if err := config.AddStoreKeys(n.config.Path, n.store.Name, n.ids...); err != nil {
		return fmt.Errorf("%s made, but not added to the key store %s: %w", was(len(n.ids), "key"), n.store.Name, err)
	}
	return nil
}

func parseUsage(s string) (keystore.KeyUsage, error) {
	switch s {
	case "encrypt,decrypt", "decrypt,encrypt":
		return keystore.KeyUsage{Encrypt: true, Decrypt: true}, nil
	case "encrypt":
		return keystore.KeyUsage{Encrypt: true}, nil
	case "decrypt":
		return keystore.KeyUsage{Decrypt: true}, nil
	case "none":
		return keystore.KeyUsage{}, nil
	}
	return keystore.KeyUsage{}, usagef("--usage must be encrypt,decrypt or encrypt or decrypt or none")
}

// newKeysView is what is printed of keys that were made.
type newKeysView struct {
	Token string   `json:"token"`
	Keys  []string `json:"keys"`
	Store string   `json:"store,omitzero"`
}

// report prints that the keys were made ("made" or "imported").
func (n *newKeys) report(cmd *cobra.Command, format outputFormat, done string) error {
	v := newKeysView{Token: n.token.Name, Keys: n.ids}
	if n.store != nil {
		v.Store = n.store.Name
	}
	out := cmd.OutOrStdout()
	if format == formatJSON {
		return printJSON(out, v)
	}
	what, serve, find := "Key "+n.ids[0]+" was", "serves it", "finds it at the first request for it, in a key store that has this id"
	if last := len(n.ids) - 1; last > 0 {
		what = fmt.Sprintf("%d keys, %s to %s, were", len(n.ids), n.ids[0], n.ids[last])
		serve, find = "serves them", "finds each at the first request for it, in a key store that has its id"
	}
	next := fmt.Sprintf("A running server %s.", find)
	if n.store != nil {
		next = fmt.Sprintf("The key store %s %s now; a running server takes that over by itself.", v.Store, serve)
	}
	_, err := fmt.Fprintf(out, "%s %s in the token %s.\n%s\n", what, done, v.Token, next)
	return err
}

func was(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return count(n, noun) + " were"
}

// maxCount bounds --count: above it a mistyped number is likelier than a wish.
const maxCount = 100_000

func newKeyCreateCommand(data *dataFlags, format *outputFormat) *cobra.Command {
	flags := newKeyFlags{tokenFlags: tokenFlags{dataFlags: data}}
	var count int
	cmd := &cobra.Command{
		Use:   "create ID...",
		Short: "Generate keys in a token",
		Long: `Generates AES-256 keys in a token: sensitive, never extractable, for encryption and
decryption at most. With --replicable they may leave it wrapped under another key, so that
'hyok key replicate' can copy them to a second token. With --count N the id is a prefix: ID-1 to ID-N are made. With --store
the ids are also added to the key store's list in the configuration.`,
		Example: `  $ hyok key create orders invoices --store prod
  2 keys, orders to invoices, were made in the token main.
  The key store prod serves them now; a running server takes that over by itself.
  $ hyok key create load --count 25
  25 keys, load-1 to load-25, were made in the token main.
  A running server finds each at the first request for it, in a key store that has its id.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := keyIDs(args, count, cmd.Flags().Changed("count"))
			if err != nil {
				return err
			}
			n, err := flags.check(ids)
			if err != nil {
				return err
			}
			if err := createKeys(cmd, n); err != nil {
				return err
			}
			if err := n.addToStore(); err != nil {
				return err
			}
			return n.report(cmd, *format, "made")
		},
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&count, "count", 0, "make ID-1 to ID-N")
	return cmd
}

// keyIDs returns the ids that the arguments mean.
func keyIDs(args []string, count int, counted bool) ([]string, error) {
	switch {
	case !counted:
		return args, nil
	case len(args) != 1:
		return nil, usagef("--count takes one ID, the prefix")
	case count < 1 || count > maxCount:
		return nil, usagef("--count must be 1 to %d", maxCount)
	}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", args[0], i+1)
	}
	return ids, nil
}

func createKeys(cmd *cobra.Command, n *newKeys) error {
	return withToken(cmd, n.config, n.token, func(ctx context.Context, tok *keystore.Token) error {
		bar := newKeyProgress(cmd.ErrOrStderr(), len(n.ids))
		err := tok.GenerateKeys(ctx, n.ids, n.usage, bar.set)
		bar.finish()
		if err != nil && n.store != nil {
			return fmt.Errorf("%w; nothing was added to the key store %s", err, n.store.Name)
		}
		return err
	})
}

// keyProgress shows how many keys are made. On anything but a terminal, and for
// one key, it shows nothing.
type keyProgress struct{ bar *progressbar.ProgressBar }

func newKeyProgress(w io.Writer, total int) keyProgress {
	if !isTerminal(w) || total == 1 {
		return keyProgress{}
	}
	return keyProgress{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("making keys"),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetTheme(progressbar.ThemeUnicode),
	)}
}

// set shows that done keys are made. A bar that cannot be drawn is no reason to
// stop.
func (p keyProgress) set(done int) {
	if p.bar != nil {
		_ = p.bar.Set(done)
	}
}

// finish wipes the bar.
func (p keyProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear() // as above
	}
}
