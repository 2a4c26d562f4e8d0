package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

const (
	clusterPatience = 30 * time.Second // for opening a cluster's token
	hangUpPatience  = 10 * time.Second // for closing it
	firstRetry      = 100 * time.Millisecond
	lastRetry       = 30 * time.Second
)

var errNoCluster = errors.New("the cluster is not configured")

// errRefused is of a password that the token refused before.
type errRefused struct{ code types.ConnectionErrorCodeType }

func (e errRefused) Error() string {
	return "the token refused the password before; it is tried again once the key store's password was updated"
}

// reconnect begins to connect the custom key stores that were connected, or about
// to be, when the former process ended. Until that is done they are CONNECTING.
func (e *Engine) reconnect() {
	e.state.mu.RLock()
	stores := e.state.stores.Values()
	e.state.mu.RUnlock()
	for _, cks := range stores {
		if cks.State == types.ConnectionStateTypeConnecting {
			e.dial(cks, "")
		}
	}
}

// dial begins to connect a custom key store, whose state is CONNECTING. The store
// is locked, or the engine is not open yet.
func (e *Engine) dial(cks *customStore, requestID string) {
	ctx, cancel := context.WithCancel(e.background)
	n := newConnection(cancel)
	e.connections.put(cks.ref(), n)
	e.running.Go(func() {
		defer cancel()
		err := e.establish(ctx, n, cks, requestID)
		close(n.attempted)
		e.settle(cks, n, err)
		e.tidy(ctx, n)
	})
}

// establish connects. A store that was connected before the process was restarted
// must not end as FAILED for a trouble that passes: it is tried again.
func (e *Engine) establish(ctx context.Context, n *connection, cks *customStore, requestID string) error {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := e.establishOnce(ctx, n, cks, requestID)
		if err == nil || !cks.resumes || !passes(err) {
			return err
		}
		e.log.Warn("a custom key store could not be connected again yet and is tried again", "store", cks.ID, "after", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// passes reports whether what failed may succeed later without anybody's doing.
func passes(err error) bool {
	var refused errRefused
	return !errors.As(err, &refused) && !errors.Is(err, errNoCluster) &&
		!errors.Is(err, keystore.ErrPINIncorrect) && !errors.Is(err, keystore.ErrLoggedIn)
}

func (e *Engine) establishOnce(ctx context.Context, n *connection, cks *customStore, requestID string) error {
	if cks.Type == types.CustomKeyStoreTypeAwsCloudhsm {
		return e.openCluster(ctx, n, cks)
	}
	proxy, err := e.proxyOf(ctx, cks)
	if err != nil {
		return err
	}
	// AWS KMS keeps a store connected whose proxy fails, so one that was connected
	// is so again without being asked.
	if !cks.resumes {
		if err := e.checkHealth(ctx, cks, proxy, "ConnectCustomKeyStore", requestID); err != nil {
			return err
		}
	}
	n.proxy.Store(proxy)
	return nil
}

// openCluster opens the token of an AWS_CLOUDHSM store by its password.
func (e *Engine) openCluster(ctx context.Context, n *connection, cks *customStore) error {
	cluster, ok := e.clusters[cks.ClusterID]
	switch {
	case cks.Refused != "":
		return errRefused{cks.Refused}
	case !ok:
		return fmt.Errorf("%s: %w", cks.ClusterID, errNoCluster)
	}
	opening, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	token, vault, err := cluster.Open(opening, e.passwordOf(ctx, cks))
	if err != nil {
		return err
	}
	n.token, n.vault = token, vault
	return nil
}

// passwordOf returns what decrypts the password of a store each time that the
// token asks for it, so that it stays nowhere.
func (e *Engine) passwordOf(ctx context.Context, cks *customStore) func() (string, error) {
	ctx = context.WithoutCancel(ctx) // the token may ask long after it was opened
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, hangUpPatience)
		defer cancel()
		password, err := e.openSecret(ctx, cks)
		defer clear(password)
		return string(password), err
	}
}

// settle stores how an attempt to connect ended, unless the store was disconnected
// meanwhile.
func (e *Engine) settle(cks *customStore, n *connection, failure error) {
	unlock, err := e.locks.lock(e.background, cks.lock())
	if err != nil {
		return // the engine is being closed: the next process goes on
	}
	defer unlock()
	if e.background.Err() != nil || e.connections.get(cks.ref()) != n {
		return
	}
	next := cks.clone()
	next.State, next.ErrorCode, next.resumes = types.ConnectionStateTypeConnected, "", false
	if failure != nil {
		next.State, next.ErrorCode = types.ConnectionStateTypeFailed, connectionErrorCode(failure)
		if errors.Is(failure, keystore.ErrPINIncorrect) {
			next.Refused = next.ErrorCode
		}
		e.connections.take(cks.ref())
	}
	if err := e.putStore(e.background, next); err != nil {
		e.log.Error("how connecting a custom key store ended could not be stored", "store", cks.ID, "error", err)
		return
	}
	e.log.Info("connecting a custom key store ended", "store", cks.ID, "state", next.State, "code", next.ErrorCode, "error", failure)
}

// tidy destroys what was left in a token that could not be reached until now.
func (e *Engine) tidy(ctx context.Context, n *connection) {
	if n.token == nil {
		return
	}
	if err := e.finishLeft(ctx); err != nil && ctx.Err() == nil {
		e.log.Error("key material that belongs to no key is still in a token; it is tried again", "error", err)
	}
}

func connectionErrorCode(err error) types.ConnectionErrorCodeType {
	var (
		refused errRefused
		proxy   *proxyFailure
		token   *keystore.TokenError
	)
	switch {
	case errors.As(err, &refused):
		return refused.code
	case errors.As(err, &proxy):
		return proxy.code
	case errors.Is(err, keystore.ErrPINLocked):
		return types.ConnectionErrorCodeTypeUserLockedOut
	case errors.Is(err, keystore.ErrPINIncorrect):
		return types.ConnectionErrorCodeTypeInvalidCredentials
	case errors.Is(err, keystore.ErrLoggedIn):
		return types.ConnectionErrorCodeTypeUserLoggedIn
	case errors.Is(err, errNoCluster), errors.Is(err, keystore.ErrTokenNotFound):
		return types.ConnectionErrorCodeTypeClusterNotFound
	case errors.As(err, &token), errors.Is(err, context.DeadlineExceeded), errors.Is(err, keystore.ErrBusy),
		errors.Is(err, keystore.ErrUnavailable):
		return types.ConnectionErrorCodeTypeNetworkErrors
	}
	return types.ConnectionErrorCodeTypeInternalError
}
