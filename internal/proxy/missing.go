package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
)

// A proxy starts without tokens that do not answer, if each key store has another
// one, and looks for them until they are there: a dead member of a group must not
// keep the others from serving after a restart.
const (
	openPatience = 10 * time.Second // with a token that hangs while it is opened
	lookInterval = 2 * time.Second  // between two attempts
)

// bearMissing logs which tokens are missing, unless a key store has no other one:
// that is an error.
func (p *Proxy) bearMissing(c *config.Config, tokens map[string]*openToken, failures map[string]error) error {
	var errs []error
	for _, s := range c.Stores {
		if open, missing := storeTokens(&s, tokens); len(open) == 0 && len(missing) > 0 {
			for _, name := range missing {
				errs = append(errs, failures[name])
			}
			errs = append(errs, fmt.Errorf("key store %s: none of its tokens can be opened", s.Name))
		}
	}
	for name, err := range failures {
		if !slices.ContainsFunc(c.Stores, func(s config.Store) bool { return slices.Contains(s.Tokens, name) }) {
			errs = append(errs, err) // nobody else does its work
		}
	}
	if len(errs) == 0 {
		for name, err := range failures {
			p.log.Error("a token cannot be opened; its key stores are served without it until it can", "token", name, "error", err)
		}
	}
	return errors.Join(errs...)
}

// known returns the token of a name that is open.
func (p *Proxy) known(name string) *openToken {
	if t := p.found[name]; t != nil {
		return t
	}
	return p.tokens[name]
}

// lookForMissing tries to open the missing tokens until ctx ends.
func (p *Proxy) lookForMissing(ctx context.Context) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.openMissing(ctx)
		}
	}
}

// openMissing opens what it can of the missing tokens, and puts it in use.
func (p *Proxy) openMissing(ctx context.Context) {
	p.mu.Lock()
	c, missing := p.config, p.missing
	p.mu.Unlock()
	found := map[string]*openToken{}
	for name, settings := range missing {
		// Not under the lock: it may hang.
		t, err := p.openToken(ctx, c, &settings)
		if err != nil {
			p.log.Debug("a token is still missing", "token", name, "error", err)
			continue
		}
		found[name] = &openToken{t, settings}
	}
	if len(found) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config == c && !p.draining.Load() {
		p.found = found
		if err := p.reload(ctx, c); err != nil {
			p.log.Error("a token that was missing cannot be put in use", "error", err)
		} else {
			for name := range found {
				p.log.Info("a token that was missing is in use", "token", name)
			}
		}
		p.found = nil
	}
	p.retire(found, p.tokens) // what another configuration has no use for
}
