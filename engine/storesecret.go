package engine

import (
	"context"
	"fmt"
)

// A custom key store's password or secret access key is stored as AES-GCM made
// of it in the main token: IV, text and tag as in an inner layer (see blob). It
// is bound to the store, so that one store's secret is of no use in another's
// record.

func (e *Engine) sealSecret(ctx context.Context, cks *customStore, secret []byte) ([]byte, error) {
	sealed, err := e.vault.Encrypt(ctx, &e.meta.Secrets, secret, secretBinding(cks))
	if err != nil {
		return nil, fmt.Errorf("encrypt the secret of key store %s: %w", cks.ID, err)
	}
	return appendSealed(nil, sealed), nil
}

// openSecret returns the secret of a store, which the caller wipes.
func (e *Engine) openSecret(ctx context.Context, cks *customStore) ([]byte, error) {
	sealed, ok := parseSealed(cks.Secret)
	if !ok {
		return nil, fmt.Errorf("the stored secret of key store %s is damaged", cks.ID)
	}
	secret, err := e.vault.Decrypt(ctx, &e.meta.Secrets, sealed, secretBinding(cks))
	if err != nil {
		// Not %w: nobody shall take it for an error of the cluster's token.
		return nil, fmt.Errorf("decrypt the secret of key store %s: %v", cks.ID, err)
	}
	return secret, nil
}

func secretBinding(cks *customStore) []byte {
	return []byte("hyok custom key store secret\x00" + cks.ref())
}
