package proxy

import (
	"context"
	"errors"
	"maps"
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
	c, missing, reloads := p.config, p.missing, p.reloads
	p.mu.Unlock()
	found := map[string]*openToken{}
	for name, settings := range missing {
		if p.hasGivenUp(name) {
			continue
		}
		// Not under the lock: it may hang.
		t, err := p.openToken(ctx, c, &settings, p.lateRefusal(ctx, name, reloads))
		if err != nil {
			p.stillMissing(ctx, name, reloads, err)
			continue
		}
		found[name] = &openToken{t, settings}
	}
	if len(found) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reloads == reloads && !p.draining.Load() {
		p.putInUse(found)
	}
	p.retire(found, p.tokens) // what another configuration has no use for
}

// putInUse adds tokens to the configuration in force. It does not read the files of
// that again: what is wrong with them by now is no reason to do without a token.
func (p *Proxy) putInUse(found map[string]*openToken) {
	tokens, missing := maps.Clone(p.tokens), maps.Clone(p.missing)
	maps.Copy(tokens, found)
	for name := range found {
		delete(missing, name)
	}
	put, err := p.prepareStores(p.config, tokens, missing)
	if err != nil {
		p.log.Error("a token that was missing cannot be put in use", "error", err)
		return
	}
	put()
	for name := range found {
		p.log.Info("a token that was missing is in use", "token", name)
	}
}

// openMissingKMS opens what is behind the door of the KMS, if its token was missing
// and is there by now.
func (p *Proxy) openMissingKMS(ctx context.Context) {
	if p.kms == nil || p.kms.room.Load() != nil {
		return
	}
	p.mu.Lock()
	c, reloads := p.config, p.reloads
	p.mu.Unlock()
	token := c.KMS.Token
	if p.hasGivenUp(token) || p.hasGivenUp(token+ofKMS) {
		return
	}
	err := p.openRoom(ctx, c, p.kms, reloads)
	switch {
	case err == nil:
		p.log.Info("the token of the embedded KMS, which was missing, is in use", "token", token)
	case errors.Is(err, keystore.ErrPINIncorrect):
		p.stillMissing(ctx, token, reloads, err) // nor must the XKS proxy try that
	default:
		p.stillMissing(ctx, token+ofKMS, reloads, err)
	}
}

// stillMissing notes why a token could not be opened again, by an attempt that began
// after so many reloads. What does not pass by itself is not tried again before
// RetryPINs: a PIN that is tried every two seconds locks the token.
func (p *Proxy) stillMissing(ctx context.Context, name string, reloads uint64, err error) {
	if ctx.Err() != nil {
		return // the attempt was given up
	}
	if keystore.MayPass(err) {
		p.log.Debug("a token is still missing", "token", name, "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reloads != reloads {
		return // it was tried as it was configured before
	}
	p.log.Error("a token that was missing is there and cannot be used; mend what is wrong, then reload (SIGHUP)", "token", name, "error", err)
	p.givenUp[name] = true
}

// lateRefusal returns what notes that the token refused the PIN after the attempt was
// taken for one that hangs.
func (p *Proxy) lateRefusal(ctx context.Context, name string, reloads uint64) func(error) {
	return func(err error) { p.stillMissing(ctx, name, reloads, err) }
}

func (p *Proxy) hasGivenUp(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.givenUp[name]
}
