package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// createKeyInStore makes a key in a custom key store.
func (c *Client) createKeyInStore(ctx context.Context, k *key) (*kms.CreateKeyOutput, error) {
	cks, err := c.findStore(k.StoreID)
	if err != nil {
		return nil, err
	}
	if cks.isExternal() != (k.Origin == types.OriginTypeExternalKeyStore) {
		return nil, unsupported("A KMS key with Origin %s cannot be created in a custom key store of type %s.", k.Origin, cks.Type)
	}
	n := c.engine.connections.ready(cks.ref())
	if !cks.isConnected() || n == nil {
		return nil, notConnected(cks)
	}
	leave, ok := n.enter()
	if !ok {
		return nil, notConnected(cks)
	}
	defer leave()
	if cks.isExternal() {
		return c.createExternalKey(ctx, cks, n, k)
	}
	out, err := c.createKeyHere(ctx, k)
	var gone *types.KMSInvalidStateException
	if errors.Is(err, keystore.ErrClosed) || errors.As(err, &gone) {
		return nil, notConnected(cks) // it was disconnected meanwhile
	}
	return out, err
}

// createExternalKey makes a key over an external key, which no other key of the
// store may have.
func (c *Client) createExternalKey(ctx context.Context, cks *customStore, n *connection, k *key) (*kms.CreateKeyOutput, error) {
	unlock, err := c.engine.locks.lock(ctx, "xks/"+xksKeyRef(k))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if c.engine.state.hasExternalKey(k, c.engine.now()) {
		return nil, &types.XksKeyAlreadyInUseException{Message: message("The external key %s is already associated with a KMS key in the external key store %s.",
			[]any{quote(k.XksKeyID), cks.ID})}
	}
	if err := c.checkExternalKey(ctx, cks, n, k.XksKeyID); err != nil {
		return nil, err
	}
	return c.createKeyHere(ctx, k)
}

// hasExternalKey reports whether a key of the store of k has its external key.
func (s *state) hasExternalKey(k *key, now time.Time) bool {
	s.mu.RLock()
	ref, used := s.xksKeys[xksKeyRef(k)]
	s.mu.RUnlock()
	return used && s.key(ref, now) != nil
}

// checkExternalKey asks the proxy whether an external key can stand behind a KMS
// key ("GetKeyMetadata", "KMS Considerations").
func (c *Client) checkExternalKey(ctx context.Context, cks *customStore, n *connection, id string) error {
	proxy := n.proxy.Load()
	m := c.requestMetadata(ctx, "CreateKey")
	found, err := ask(ctx, c.engine, cks, m, func(ctx context.Context) (*xks.MetadataResponse, error) {
		return proxy.GetKeyMetadata(ctx, id, m)
	})
	if err != nil {
		return creating(err)
	}
	var wrong *string
	switch {
	case found.KeySpec != xks.KeySpecAES256:
		wrong = message("The key spec of the external key must be AES_256. The key spec of specified external key is %s.", []any{bounded(found.KeySpec)})
	case found.KeyStatus != xks.KeyEnabled:
		wrong = message("The status of the external key must be ENABLED. The status of specified external key is %s.", []any{found.KeyStatus})
	case !slices.Contains(found.KeyUsage, xks.UsageEncrypt) || !slices.Contains(found.KeyUsage, xks.UsageDecrypt):
		wrong = message("The key usage of the external key must include ENCRYPT and DECRYPT. The key use of specified external key is %s.",
			[]any{bounded(strings.Join(found.KeyUsage, ", "))})
	default:
		return nil
	}
	return xksKeyInvalid(wrong)
}

// bounded keeps what a proxy says from filling a message.
func bounded(s string) string {
	if s == "" {
		return "empty"
	}
	return s[:min(len(s), 100)]
}

// notConnected is the answer of operations that need a custom key store that is
// connected.
func notConnected(cks *customStore) error {
	if cks.isExternal() {
		m := notConnectedProxy
		return storeInvalidState(&m)
	}
	return storeInvalidState(message("The custom key store %s is not connected: its connection state is %s. Connect it and try the request again.",
		[]any{cks.ID, cks.State}))
}
