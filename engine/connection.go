package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// connections are the custom key stores that are connected, or about to be.
type connections struct {
	mu  sync.Mutex
	all map[string]*connection // by storeRef; guarded by mu
}

func (c *connections) put(ref string, n *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]*connection{}
	}
	c.all[ref] = n
}

// get returns the connection of a store, or nil.
func (c *connections) get(ref string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[ref]
}

// ready returns the connection of a store, or nil if it is not connected.
func (c *connections) ready(ref string) *connection {
	n := c.get(ref)
	if n == nil {
		return nil
	}
	select {
	case <-n.attempted:
	default:
		return nil
	}
	if n.vault == nil && n.proxy.Load() == nil {
		return nil // it failed
	}
	return n
}

// take returns the connection of a store, or nil, and forgets it.
func (c *connections) take(ref string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[ref]
	delete(c.all, ref)
	return n
}

// close disconnects from all stores, whose state does not change.
func (c *connections) close(ctx context.Context) error {
	c.mu.Lock()
	all := c.all
	c.all = nil
	c.mu.Unlock()
	var errs []error
	for _, n := range all {
		errs = append(errs, n.hangUp(ctx))
	}
	return errors.Join(errs...)
}

// connection is what a custom key store has from ConnectCustomKeyStore on until
// it is disconnected, or could not be connected.
type connection struct {
	cancel    context.CancelFunc // gives up the attempt to connect
	attempted chan struct{}      // closed when the attempt has ended

	// Written by the attempt, read once it has ended: of an AWS_CLOUDHSM store.
	token *keystore.Token
	vault *keystore.Vault
	// proxy is of an EXTERNAL_KEY_STORE, another when its credential or path is
	// updated.
	proxy atomic.Pointer[xks.Client]

	mu      sync.Mutex
	closing bool           // nobody may enter any more; guarded by mu
	users   sync.WaitGroup // who have entered; Add under mu and while not closing
}

func newConnection(cancel context.CancelFunc) *connection {
	return &connection{cancel: cancel, attempted: make(chan struct{})}
}

// enter keeps the connection open, and so the key store there, until leave is
// called: for what makes a key in it. ok is false if it is being closed.
func (n *connection) enter() (leave func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return nil, false
	}
	n.users.Add(1)
	return n.users.Done, true
}

// hangUp gives up the attempt to connect, or closes what it opened, once nobody
// makes a key any more.
func (n *connection) hangUp(ctx context.Context) error {
	n.cancel()
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	left := make(chan struct{})
	go func() {
		<-n.attempted
		n.users.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
		return fmt.Errorf("a custom key store is still in use: %w", ctx.Err())
	}
	if n.token == nil {
		return nil
	}
	return errors.Join(n.vault.Close(), n.token.Close(ctx))
}

// vaultOf returns the vault that holds the material of a key.
func (e *Engine) vaultOf(k *key) (*keystore.Vault, error) {
	if k.StoreID == "" || k.XksKeyID != "" {
		return e.vault, nil
	}
	n := e.connections.ready(storeRef(k.Account, k.Region, k.StoreID))
	if n == nil {
		return nil, unavailable(k)
	}
	return n.vault, nil
}

// generator returns the token whose generator GenerateRandom uses.
func (c *Client) generator(storeID *string) (*keystore.Token, error) {
	if storeID == nil {
		return c.engine.token, nil
	}
	cks, err := c.findStore(*storeID)
	if err != nil {
		return nil, err
	}
	if cks.isExternal() {
		return nil, unsupported("GenerateRandom is not supported in the external key store %s.", cks.ID)
	}
	n := c.engine.connections.ready(cks.ref())
	if !cks.isConnected() || n == nil {
		return nil, notConnected(cks)
	}
	return n.token, nil
}
