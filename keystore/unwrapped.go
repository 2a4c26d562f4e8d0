package keystore

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// errStale says that a handle was got before the token lost its sessions: it may
// name nothing any more, or something else.
var errStale = errors.New("the object handle is of a lost session")

// unwrapTimeout bounds an unwrap that nobody may wait for any more.
const unwrapTimeout = 10 * time.Second

// unwrappedCache keeps session objects of a vault's wrapped keys, the most
// recently used ones. An object is destroyed when it is not in the cache any
// more and no operation uses it.
type unwrappedCache struct {
	v     *Vault
	limit int

	hits, unwraps, evictions atomic.Uint64

	mu      sync.Mutex
	keys    map[string]*unwrapped // by id; guarded by mu
	order   *list.List            // of *unwrapped, most recently used first; guarded by mu
	pending []*unwrapped          // to be destroyed; guarded by mu
}

// unwrapped is one key that is unwrapped or about to be.
type unwrapped struct {
	c        *unwrappedCache
	material Material // without its digest

	ready chan struct{} // closed when what follows is valid
	// Valid once ready is closed:
	err    error
	handle pkcs11.ObjectHandle
	epoch  uint64       // sessionCount.losses when its session was opened
	over   *atomic.Bool // its session is closed

	// Guarded by unwrappedCache.mu:
	place *list.Element // in order
	users int           // operations that use it, and the unwrap
	out   bool          // not in the cache any more
	done  bool          // ready is closed
}

func (c *unwrappedCache) init(v *Vault, limit int) {
	c.v, c.limit = v, limit
	c.keys, c.order = map[string]*unwrapped{}, list.New()
}

func (c *unwrappedCache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

// get returns the unwrapped key of m, whose user the caller is then. All who ask
// for a key that is not there wait for one unwrap.
func (c *unwrappedCache) get(ctx context.Context, m *Material) (*unwrapped, error) {
	e, hit := c.enter(m)
	if e == nil {
		return nil, c.v.t.closedError()
	}
	if hit {
		c.hits.Add(1)
		return e, nil
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		c.release(e)
		return nil, fmt.Errorf("token %s has not unwrapped a key in time: %w", c.v.t.name, ctx.Err())
	}
	if e.err != nil {
		c.release(e)
		return nil, e.err
	}
	return e, nil
}

// enter finds the key of m in the cache, or enters it and begins to unwrap; hit:
// it is ready. It returns nil once the token is closed.
func (c *unwrappedCache) enter(m *Material) (e *unwrapped, hit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.keys[m.ID]; e != nil {
		if e.isOf(m) && (!e.done || e.valid()) {
			c.order.MoveToFront(e.place)
			e.users++
			return e, e.done
		}
		c.remove(e)
	}
	e = c.newEntry(m)
	e.users = 2
	if !c.v.t.start(func() { c.unwrap(e) }) {
		return nil, false
	}
	c.insert(e)
	return e, false
}

func (c *unwrappedCache) newEntry(m *Material) *unwrapped {
	own := Material{ID: m.ID, Spec: m.Spec, Wrap: m.Wrap, Wrapped: bytes.Clone(m.Wrapped), Public: bytes.Clone(m.Public)}
	return &unwrapped{c: c, material: own, ready: make(chan struct{})}
}

// insert puts a key into the cache, in which there is none of its id; mu is held.
func (c *unwrappedCache) insert(e *unwrapped) {
	c.keys[e.material.ID] = e
	e.place = c.order.PushFront(e)
	for len(c.keys) > c.limit {
		c.evictions.Add(1)
		c.remove(c.order.Back().Value.(*unwrapped))
	}
}

// adopt enters an object that a worker has unwrapped in its own session, and
// destroys what that leaves no room for.
func (c *unwrappedCache) adopt(w *worker, m *Material, h pkcs11.ObjectHandle) {
	e := c.newEntry(m)
	e.handle, e.epoch, e.over, e.done = h, w.epoch, w.over, true
	close(e.ready)
	c.mu.Lock()
	if old := c.keys[m.ID]; old != nil {
		c.remove(old)
	}
	c.insert(e)
	c.mu.Unlock()
	c.destroyPending(w)
}

// remove takes a key out of the cache; mu is held.
func (c *unwrappedCache) remove(e *unwrapped) {
	if e.out {
		return
	}
	e.out = true
	delete(c.keys, e.material.ID)
	c.order.Remove(e.place)
	c.dispose(e)
}

// dispose puts up for destruction what nobody needs any more; mu is held.
func (c *unwrappedCache) dispose(e *unwrapped) {
	if e.out && e.users == 0 && e.done && e.err == nil {
		c.pending = append(c.pending, e)
	}
}

// release ends one use of a key.
func (c *unwrappedCache) release(e *unwrapped) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.dispose(e)
}

// unwrap unwraps a key and tells all who wait for it.
func (c *unwrappedCache) unwrap(e *unwrapped) {
	ctx, cancel := context.WithTimeout(c.v.t.background, unwrapTimeout)
	defer cancel()
	err := c.v.rooted(ctx, func() error {
		return c.v.keepers.run(ctx, func(w *worker) error {
			c.destroyPending(w)
			h, err := c.v.unwrapNow(w, &e.material)
			if err != nil {
				return err
			}
			c.unwraps.Add(1)
			c.fulfil(e, h, w)
			return nil
		})
	})
	if err != nil {
		c.fail(e, err)
	}
	c.release(e)
}

// fulfil says which object a key has become. Should the time for that be over,
// the object is destroyed later.
func (c *unwrappedCache) fulfil(e *unwrapped, h pkcs11.ObjectHandle, w *worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.done {
		c.pending = append(c.pending, &unwrapped{c: c, handle: h, epoch: w.epoch, over: w.over})
		return
	}
	e.handle, e.epoch, e.over, e.done = h, w.epoch, w.over, true
	close(e.ready)
}

func (c *unwrappedCache) fail(e *unwrapped, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
	if !e.done {
		e.err, e.done = err, true
		close(e.ready)
	}
}

// destroyPending destroys what nobody needs any more. An object of a session that
// is no more went with it, and its handle may be another's by now.
func (c *unwrappedCache) destroyPending(w *worker) {
	c.mu.Lock()
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, e := range pending {
		if !e.valid() {
			continue
		}
		if err := w.t.module.ctx.DestroyObject(w.session, e.handle); err != nil && !isHandleGone(err) {
			w.t.log.Warn("an unwrapped key could not be destroyed", "error", err)
		}
	}
}

// drop takes a key out of the cache at once.
func (c *unwrappedCache) drop(id string) {
	c.mu.Lock()
	if e := c.keys[id]; e != nil {
		c.remove(e)
	}
	c.mu.Unlock()
	c.sweep()
}

// flush takes all keys out of the cache.
func (c *unwrappedCache) flush() {
	c.mu.Lock()
	for _, e := range c.keys {
		c.remove(e)
	}
	c.mu.Unlock()
	c.sweep()
}

// sweep destroys what nobody needs any more, without waiting for it.
func (c *unwrappedCache) sweep() {
	c.mu.Lock()
	idle := len(c.pending) == 0
	c.mu.Unlock()
	if idle {
		return
	}
	c.v.t.start(func() {
		ctx, cancel := context.WithTimeout(c.v.t.background, unwrapTimeout)
		defer cancel()
		err := c.v.keepers.run(ctx, func(w *worker) error {
			c.destroyPending(w)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			c.v.t.log.Warn("unwrapped keys could not be destroyed", "error", err)
		}
	})
}

// isOf reports whether the key is the one of m.
func (e *unwrapped) isOf(m *Material) bool {
	return e.material.Spec == m.Spec && e.material.Wrap == m.Wrap && bytes.Equal(e.material.Wrapped, m.Wrapped)
}

// valid reports whether the session of the key still lives, as far as is known.
func (e *unwrapped) valid() bool { return !e.over.Load() && e.epoch == e.c.v.t.sessions.losses.Load() }

// The methods of keyObject.

func (e *unwrapped) object(w *worker) (pkcs11.ObjectHandle, error) {
	if _, err := e.c.v.root.usable(w); err != nil {
		return 0, err
	}
	if !e.valid() {
		return 0, errStale
	}
	return e.handle, nil
}

func (e *unwrapped) release() { e.c.release(e) }

func (e *unwrapped) discard() {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.c.remove(e)
}
