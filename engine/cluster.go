package engine

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/hyok-kms/hyok/keystore"
)

// Cluster is a token that a custom key store of type AWS_CLOUDHSM can stand on.
// [NewCluster] makes one.
type Cluster struct {
	// TrustAnchor is the certificate, in PEM form, that CreateCustomKeyStore
	// must name; empty: any.
	TrustAnchor string
	// Open opens the token with the PIN that pin returns, the key store's
	// password, and a vault in it. The token asks pin at every login, also later.
	// Open lets nobody in whose PIN is not proven, even where this process is
	// logged in to the token already and the token would take any.
	// Errors: keystore.ErrPINIncorrect, after which Open is not called again
	// until the password was updated, with keystore.ErrPINLocked if it is so;
	// keystore.ErrLoggedIn if the PIN cannot be proven; keystore.ErrTokenNotFound;
	// or any other.
	Open func(ctx context.Context, pin func() (string, error)) (*keystore.Token, *keystore.Vault, error)
}

// NewCluster returns the cluster that the token of o is. o.PIN is the PIN that
// this process itself logs in to the token with, nil if it does not: where it is
// logged in already, a password is compared with it, since the token can no more
// tell a wrong one.
func NewCluster(ms *keystore.Modules, o keystore.Options, vault keystore.VaultOptions, trustAnchor string) Cluster {
	own := o.PIN
	open := func(ctx context.Context, pin func() (string, error)) (*keystore.Token, *keystore.Vault, error) {
		o := o
		o.PIN, o.PINFrom, o.ProvePIN = pin, nil, true
		token, err := keystore.Open(ctx, ms, o)
		if own != nil && errors.Is(err, keystore.ErrLoggedIn) {
			if err := samePIN(own, pin); err != nil {
				return nil, nil, fmt.Errorf("token %s: %w", o.Name, err)
			}
			o.ProvePIN = false
			token, err = keystore.Open(ctx, ms, o)
		}
		if err != nil {
			return nil, nil, err
		}
		v, err := token.OpenVault(ctx, vault)
		if err != nil {
			return nil, nil, errors.Join(err, token.Close(ctx))
		}
		return token, v, nil
	}
	return Cluster{TrustAnchor: trustAnchor, Open: open}
}

// samePIN returns keystore.ErrPINIncorrect unless both return the same.
func samePIN(own, given func() (string, error)) error {
	want, err := own()
	if err != nil {
		return err
	}
	pin, err := given()
	if err != nil {
		return err
	}
	// Hashes, so that not even the length shows.
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(pin))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return fmt.Errorf("%w: it is not the one that this process is logged in with", keystore.ErrPINIncorrect)
	}
	return nil
}
