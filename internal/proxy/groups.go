package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
)

// storeGroup is the group behind a key store, with what it was made from.
type storeGroup struct {
	*group.Group
	tokens     []*keystore.Token
	absent     []string // tokens that are not open
	keys       []string
	keyPattern string
	answers    *group.Answers // nil: a group of one that never was more
}

// answersFolder is the folder, in the data folder, of what groups remember.
const answersFolder = "known-answers"

func answersPath(c *config.Config, store string) string {
	return filepath.Join(c.Dir(), answersFolder, store+".json")
}

// openGroups makes the groups of c that are not there already. They are not
// started yet.
func (p *Proxy) openGroups(c *config.Config, tokens map[string]*openToken) (map[string]*storeGroup, error) {
	groups := map[string]*storeGroup{}
	for i := range c.Stores {
		s := &c.Stores[i]
		next := &storeGroup{keys: s.Keys, keyPattern: s.KeyPattern}
		next.tokens, next.absent = storeTokens(s, tokens)
		old := p.groups[s.Name]
		if old != nil && old.sameAs(next) {
			groups[s.Name] = old
			continue
		}
		if old != nil {
			next.answers = old.answers
		}
		if next.answers == nil {
			answers, err := p.openAnswers(c, s)
			if err != nil {
				return nil, err
			}
			next.answers = answers
		}
		next.Group = group.New(group.Options{Name: s.Name, Tokens: next.tokens, Absent: next.absent, Allow: allow(s), Answers: next.answers, Logger: p.log})
		groups[s.Name] = next
	}
	return groups, nil
}

func (g *storeGroup) sameAs(other *storeGroup) bool {
	return slices.Equal(g.tokens, other.tokens) && slices.Equal(g.absent, other.absent) && slices.Equal(g.keys, other.keys) && g.keyPattern == other.keyPattern
}

// openAnswers reads what a former process remembered of a key store. One with a
// single token has nothing to remember, but what is there of a time when it had
// more must not outlive that.
func (p *Proxy) openAnswers(c *config.Config, s *config.Store) (*group.Answers, error) {
	path := answersPath(c, s.Name)
	if _, err := os.Stat(path); len(s.Tokens) == 1 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	answers, err := group.OpenAnswers(path, p.log.With("store", s.Name))
	if err != nil {
		return nil, fmt.Errorf("key store %s: %w", s.Name, err)
	}
	return answers, nil
}

// startGroups starts those that do not run yet.
func (p *Proxy) startGroups(groups map[string]*storeGroup) {
	for name, g := range groups {
		if p.groups[name] != g {
			g.Start()
		}
	}
}

// retireGroups ends the groups of old that are not in kept, once the requests that
// may still use them are over.
func (p *Proxy) retireGroups(old, kept map[string]*storeGroup) {
	wait := p.config.Limits.Deadline + time.Second
	for name, g := range old {
		next := kept[name]
		if next == g {
			continue
		}
		p.closing.Go(func() {
			time.Sleep(wait)
			g.Close()
			if next == nil {
				p.closeAnswers(name, g)
			}
		})
	}
}

func (p *Proxy) closeAnswers(store string, g *storeGroup) {
	if g.answers == nil {
		return
	}
	if err := g.answers.Close(); err != nil {
		p.log.Error("what is known of the keys of a group of tokens could not be written", "store", store, "error", err)
	}
}

// closeGroups ends all groups and writes what they remember.
func (p *Proxy) closeGroups() {
	for name, g := range p.groups {
		g.Close()
		p.closeAnswers(name, g)
	}
}

// refreshGroups has the groups look again at what they found out.
func (p *Proxy) refreshGroups(ctx context.Context) {
	if s := p.current.Load(); s != nil {
		for _, g := range s.stores {
			g.Refresh(ctx)
		}
	}
}

// groupStats returns the figures of the key stores with several tokens.
func (p *Proxy) groupStats() map[string]group.Stats {
	all := map[string]group.Stats{}
	if s := p.current.Load(); s != nil {
		for name, g := range s.stores {
			if stats := g.Stats(); stats.Members > 1 {
				all[name] = stats
			}
		}
	}
	return all
}
