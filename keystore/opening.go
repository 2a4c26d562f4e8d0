package keystore

import (
	"fmt"
	"sync"
)

// An attempt to open a token whose module hangs is left behind when its context
// ends: a call cannot be ended. Whoever tries again and again must not leave one
// more each time. Nor must a PIN be tried while the token may yet refuse it.

// mostLeftBehind is how many attempts to open a token may hang in its module before
// it is not tried again until one of them has returned. The first may hang since its
// connection is dead, while the next would not.
const mostLeftBehind = 3

// leftBehind are the attempts that nobody waits for any more, by token.
type leftBehind struct {
	mu  sync.Mutex
	all map[string]map[*attempt]bool // guarded by mu
}

// attempt is one to open a token.
type attempt struct {
	of    *leftBehind
	token string
	login func() bool // reports whether the PIN is being tried
}

// attempt returns an attempt that may begin, or why it may not.
func (l *leftBehind) attempt(u URI) (*attempt, error) {
	u.PINSource, u.pinValue = "", "" // whatever its PIN, the token is the same
	a := &attempt{of: l, token: u.String()}
	l.mu.Lock()
	defer l.mu.Unlock()
	others := l.all[a.token]
	for other := range others {
		if other.login() {
			return nil, fmt.Errorf("%w: a former login hangs in its module, so the PIN is not tried again yet", ErrUnavailable)
		}
	}
	if len(others) >= mostLeftBehind {
		return nil, fmt.Errorf("%w: %d former attempts to open it hang in its module", ErrUnavailable, len(others))
	}
	return a, nil
}

// leave notes that nobody waits for the attempt any more; returned ends that.
func (a *attempt) leave(login func() bool) {
	a.login = login
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if a.of.all == nil {
		a.of.all = map[string]map[*attempt]bool{}
	}
	if a.of.all[a.token] == nil {
		a.of.all[a.token] = map[*attempt]bool{}
	}
	a.of.all[a.token][a] = true
}

func (a *attempt) returned() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if delete(a.of.all[a.token], a); len(a.of.all[a.token]) == 0 {
		delete(a.of.all, a.token)
	}
}

// leaveBehind notes that nobody waits any more until a closed token has given up its
// module, which hangs.
func (t *Token) leaveBehind() {
	t.attempt.leave(func() bool {
		if !t.login.mu.TryLock() {
			return true
		}
		defer t.login.mu.Unlock()
		return false
	})
	go func() {
		<-t.life.over
		t.attempt.returned()
		if why := t.login.refused.Load(); why != nil && t.late != nil {
			t.late(fmt.Errorf("token %s: %w", t.name, *why))
		}
	}()
}
