package engine

import (
	"context"
	"sync"

	"github.com/hyok-kms/hyok/keystore"
)

// Cluster is a token that a custom key store of type AWS_CLOUDHSM can stand on.
type Cluster struct {
	// TrustAnchor is the certificate, in PEM form, that CreateCustomKeyStore
	// must name; empty: any.
	TrustAnchor string
	// Open opens the token with the PIN that pin returns, and a vault in it.
	// Errors: keystore.ErrPINIncorrect, or any other.
	Open func(ctx context.Context, pin func() (string, error)) (*keystore.Token, *keystore.Vault, error)
}

// connections are the custom key stores that are connected.
type connections struct {
	mu sync.Mutex
}

func (c *connections) close(context.Context) error { return nil }

// reconnect connects the custom key stores that were connected when the former
// process ended.
func (e *Engine) reconnect(context.Context) {}

// vaultOf returns the vault that holds the material of a key.
func (e *Engine) vaultOf(*key) (*keystore.Vault, error) { return e.vault, nil }
