package proxy

import (
	"context"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// A proxy starts without the tokens that do not answer, and looks for them until
// they are there: after a restart a dead token must neither keep the others from
// serving, nor, if it is the only one, need somebody who starts the proxy again.
const (
	openPatience = 10 * time.Second // with a token that hangs while it is opened
	lookInterval = 2 * time.Second  // between two attempts
)

// bear notes at the start why a token is missing.
func (p *Proxy) bear(err error) {
	p.unopened = append(p.unopened, err)
	p.log.Error("a token cannot be opened and is looked for: until it is there, the key stores that have no other one, "+
		"and the embedded KMS if it is its token, answer with DependencyTimeoutException", "error", err)
}

// Unopened returns why tokens that do not answer could not be opened at the start.
func (p *Proxy) Unopened() []error { return p.unopened }

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
			p.openMissingKMS(ctx)
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
		if p.hasGivenUp(name) {
			continue
		}
		// Not under the lock: it may hang.
		t, err := p.openToken(ctx, c, &settings)
		if err != nil {
			p.stillMissing(name, err)
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

// openMissingKMS opens what is behind the door of the KMS, if its token was missing
// and is there by now.
func (p *Proxy) openMissingKMS(ctx context.Context) {
	if p.kms == nil || p.kms.room.Load() != nil {
		return
	}
	p.mu.Lock()
	c := p.config
	p.mu.Unlock()
	if p.hasGivenUp(c.KMS.Token) {
		return
	}
	if err := p.openRoom(ctx, c, p.kms); err != nil {
		p.stillMissing(c.KMS.Token, err)
		return
	}
	p.log.Info("the token of the embedded KMS, which was missing, is in use", "token", c.KMS.Token)
}

// stillMissing notes why a token could not be opened again. What does not pass by
// itself is not tried again before somebody puts a configuration in force: a PIN that
// is tried every two seconds locks the token.
func (p *Proxy) stillMissing(name string, err error) {
	if keystore.MayPass(err) {
		p.log.Debug("a token is still missing", "token", name, "error", err)
		return
	}
	p.log.Error("a token that was missing is there and cannot be used; mend what is wrong, then let the configuration be loaded again", "token", name, "error", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.givenUp[name] = true
}

func (p *Proxy) hasGivenUp(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.givenUp[name]
}
