package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// connectCustomKeyStore begins to connect a key store. How that ends shows as its
// connection state.
func (c *Client) connectCustomKeyStore(ctx context.Context, in *kms.ConnectCustomKeyStoreInput) (*kms.ConnectCustomKeyStoreOutput, error) {
	cks, unlock, err := c.lockStore(ctx, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	switch cks.State {
	case types.ConnectionStateTypeConnected, types.ConnectionStateTypeConnecting:
		return &kms.ConnectCustomKeyStoreOutput{}, nil
	case types.ConnectionStateTypeDisconnected:
	case types.ConnectionStateTypeFailed:
		return nil, wrongState(cks, "A custom key store whose connection failed must be disconnected before it is connected again")
	default:
		return nil, wrongState(cks, "A custom key store can be connected only once it is disconnected")
	}
	next := cks.clone()
	next.State, next.ErrorCode = types.ConnectionStateTypeConnecting, ""
	if err := c.engine.putStore(ctx, next); err != nil {
		return nil, err
	}
	c.engine.dial(next, requestIDOf(ctx))
	return &kms.ConnectCustomKeyStoreOutput{}, nil
}

// lockStore returns the caller's custom key store of an id as it is while nobody
// else can change it.
func (c *Client) lockStore(ctx context.Context, id *string) (*customStore, func(), error) {
	cks, err := c.findStore(aws.ToString(id))
	if err != nil {
		return nil, nil, err
	}
	unlock, err := c.engine.locks.lock(ctx, cks.lock())
	if err != nil {
		return nil, nil, err
	}
	if cks, err = c.findStore(cks.ID); err != nil {
		unlock()
		return nil, nil, err
	}
	return cks, unlock, nil
}

// disconnectCustomKeyStore makes the keys of a store unavailable at once and
// returns when what it held open is closed, or the caller has waited enough.
func (c *Client) disconnectCustomKeyStore(ctx context.Context, in *kms.DisconnectCustomKeyStoreInput) (*kms.DisconnectCustomKeyStoreOutput, error) {
	cks, unlock, err := c.lockStore(ctx, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	switch cks.State {
	case types.ConnectionStateTypeDisconnected, types.ConnectionStateTypeDisconnecting:
		return nil, wrongState(cks, "A custom key store can be disconnected only while it is not")
	}
	next := cks.clone()
	next.State, next.ErrorCode, next.resumes = types.ConnectionStateTypeDisconnecting, "", false
	if err := c.engine.putStore(ctx, next); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	n := c.engine.connections.take(cks.ref())
	c.engine.running.Go(func() { done <- c.engine.hangUp(next, n) })
	select {
	case err := <-done:
		return &kms.DisconnectCustomKeyStoreOutput{}, err
	case <-ctx.Done():
		return &kms.DisconnectCustomKeyStoreOutput{}, nil // it goes on
	}
}

// hangUp closes what a key store held open; then it is disconnected. Nobody else
// changes a store while it is DISCONNECTING.
func (e *Engine) hangUp(cks *customStore, n *connection) error {
	ctx := context.WithoutCancel(e.background)
	if n != nil {
		closing, cancel := context.WithTimeout(ctx, hangUpPatience)
		defer cancel()
		if err := n.hangUp(closing); err != nil {
			e.log.Error("a custom key store was disconnected, but what it held open could not be closed", "store", cks.ID, "error", err)
		}
	}
	next := cks.clone()
	next.State = types.ConnectionStateTypeDisconnected
	return e.putStore(ctx, next)
}

func (c *Client) deleteCustomKeyStore(ctx context.Context, in *kms.DeleteCustomKeyStoreInput) (*kms.DeleteCustomKeyStoreOutput, error) {
	cks, unlock, err := c.lockStore(ctx, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if cks.State != types.ConnectionStateTypeDisconnected {
		return nil, wrongState(cks, "A custom key store can be deleted only while it is disconnected")
	}
	if c.engine.state.hasKeys(cks) {
		return nil, &types.CustomKeyStoreHasCMKsException{Message: message(
			"Custom key store %s contains KMS keys. Schedule their deletion, and delete the key store once they are deleted.", []any{cks.ID})}
	}
	b := new(batch)
	b.dropStore(cks)
	return &kms.DeleteCustomKeyStoreOutput{}, c.engine.commit(ctx, b)
}

// hasKeys reports whether a custom key store has a key, if only one that is
// pending deletion.
func (s *state) hasKeys(cks *customStore) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.storeKeys[cks.ref()] > 0
}
