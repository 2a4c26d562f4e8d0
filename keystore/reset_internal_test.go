package keystore

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// newFake returns a token of a module without more than tests of sessions need.
func newFake(t *testing.T, m cryptoki.Module) *Token {
	ctx, stop := context.WithCancel(t.Context())
	tok := &Token{
		name: "t", modules: new(Modules), module: &module{ctx: m}, log: slog.New(slog.DiscardHandler), epoch: time.Now(),
		background: ctx, stop: stop, idle: make(chan *worker, 1),
	}
	tok.sessions.limit = 1
	tok.breaker.init()
	t.Cleanup(stop)
	return tok
}

// closings is a module of which sessions are closed.
type closings struct {
	cryptoki.Module
	t      *testing.T
	calls  *sync.RWMutex
	closed []cryptoki.Session
}

func (c *closings) CloseSession(s cryptoki.Session) error {
	if c.calls.TryLock() {
		c.t.Error("the module could be finalized while a session is closed")
		c.calls.Unlock()
	}
	c.closed = append(c.closed, s)
	return nil
}

// The session of the copies is closed as any other call is made, and not at all once
// the module was initialized again: then its handle may be another's.
func TestSessionOfCopiesIsClosed(t *testing.T) {
	for _, anew := range []bool{false, true} {
		c := &closings{t: t}
		tok := newFake(t, c)
		c.calls = &tok.module.calls
		tok.copies.session, tok.copies.open = 7, true
		if anew {
			tok.module.resets.Add(1)
		}
		tok.stop()
		tok.keepCopies(tok.background)
		if closed := slices.Contains(c.closed, 7); closed == anew || tok.copies.open {
			t.Errorf("initialized again: %v, closed: %v", anew, closed)
		}
	}
}

// Each test that hangs for good costs a thread, of which a process has 10,000: those of
// a token that hangs for weeks are few.
func TestHangingTestsStayFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok := newFake(t, &closings{t: t})
		begin, tests := time.Now(), 0
		r := &revival{t: tok, patience: revivePatience, kill: killPatience, moved: begin}
		for ; time.Since(begin) < 60*24*time.Hour; tests++ {
			time.Sleep(r.patience) // of the bubble's clock
			r.hanging()
		}
		if tests > 1000 {
			t.Errorf("%d", tests)
		}
	})
}
