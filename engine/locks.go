package engine

import (
	"context"
	"slices"
	"sync"
)

// locks serialises what changes one thing, by its name, and lets all else run
// side by side. Readers do not come here.
type locks struct {
	mu   sync.Mutex
	held map[string]*namedLock // guarded by mu
}

// namedLock is a lock that somebody holds or waits for.
type namedLock struct {
	taken chan struct{} // capacity 1: full while it is held
	users int           // who hold it or wait; guarded by locks.mu
}

// lock takes the locks of all names, in their order, so that two callers cannot
// wait for each other. The function that it returns gives them back.
func (l *locks) lock(ctx context.Context, names ...string) (unlock func(), err error) {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		if err := l.lockOne(ctx, name); err != nil {
			l.unlock(names[:i])
			return nil, err
		}
	}
	return func() { l.unlock(names) }, nil
}

func (l *locks) lockOne(ctx context.Context, name string) error {
	l.mu.Lock()
	n := l.held[name]
	if n == nil {
		if l.held == nil {
			l.held = map[string]*namedLock{}
		}
		n = &namedLock{taken: make(chan struct{}, 1)}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	select {
	case n.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		l.leave(name, n)
		return ctx.Err()
	}
}

func (l *locks) unlock(names []string) {
	for _, name := range slices.Backward(names) {
		l.mu.Lock()
		n := l.held[name]
		l.mu.Unlock()
		<-n.taken
		l.leave(name, n)
	}
}

func (l *locks) leave(name string, n *namedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.held, name)
	}
}
