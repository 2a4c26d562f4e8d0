package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// storeKeys serves the keys of one key store from its tokens.
type storeKeys struct {
	tokens []*keystore.Token // in the order of the configuration
}

// Find returns the key from the first token that has it. Only an id that no
// token is known to have is searched for, since that takes time.
func (s *storeKeys) Find(ctx context.Context, id string) (xks.Key, error) {
	if i := slices.IndexFunc(s.tokens, func(t *keystore.Token) bool { return t.Has(id) }); i >= 0 {
		k, err := s.tokens[i].Find(ctx, id)
		return tokenKey{k, s.tokens[i]}, apiError(err)
	}
	var failure error
	for _, t := range s.tokens {
		k, err := t.Find(ctx, id)
		if err == nil {
			return tokenKey{k, t}, nil
		}
		// That a token could not be asked is the better answer: the key may be there.
		if failure == nil || errors.Is(failure, keystore.ErrKeyNotFound) {
			failure = err
		}
	}
	return nil, apiError(failure)
}

// Health returns one entry for each token.
func (s *storeKeys) Health() []xks.ExternalKeyManager {
	fleet := make([]xks.ExternalKeyManager, 0, len(s.tokens))
	for _, t := range s.tokens {
		info := t.Info()
		fleet = append(fleet, xks.ExternalKeyManager{
			ID:     t.Name(),
			Model:  fmt.Sprintf("%s %s firmware %s", info.Manufacturer, info.Model, info.Firmware),
			Health: healthNames(t.Health().State),
		})
	}
	return fleet
}

func healthNames(s keystore.HealthState) string {
	switch s {
	case keystore.Active:
		return xks.HealthActive
	case keystore.Degraded:
		return xks.HealthDegraded
	}
	return xks.HealthUnavailable
}

// tokenKey is a key of a token with the errors of the proxy API.
type tokenKey struct {
	*keystore.Key
	token *keystore.Token
}

func (k tokenKey) Describe(ctx context.Context) (xks.KeyDescription, error) {
	usage, disabled, err := k.Permissions(ctx)
	return xks.KeyDescription{Encrypt: usage.Encrypt, Decrypt: usage.Decrypt, Disabled: disabled}, apiError(err)
}

func (k tokenKey) Encrypt(ctx context.Context, version uint32, plaintext, aad []byte) (xks.Sealed, error) {
	s, err := k.Key.Encrypt(ctx, version, plaintext, aad)
	return xks.Sealed(s), apiError(err)
}

func (k tokenKey) Decrypt(ctx context.Context, version uint32, sealed xks.Sealed, aad []byte) ([]byte, error) {
	plaintext, err := k.Key.Decrypt(ctx, version, keystore.Sealed(sealed), aad)
	if errors.Is(err, keystore.ErrKeyNotFound) && k.token.Has(k.ID()) {
		return nil, &xks.Error{
			Name:    xks.InvalidCiphertextException,
			Message: "The ciphertext names a version of the external key that does not exist or was destroyed.",
			Cause:   err,
		}
	}
	return plaintext, apiError(err)
}

// apiError gives an error of the keystore its name in the proxy API.
func apiError(err error) error {
	if err == nil {
		return nil
	}
	e := &xks.Error{Name: xks.InternalException, Message: "The external key manager failed; the log of the proxy tells more.", Cause: err}
	for _, known := range []struct {
		is      error
		name    xks.ErrorName
		message string
	}{
		{keystore.ErrInvalidCiphertext, xks.InvalidCiphertextException, "The ciphertext, initialization vector, additional authenticated data or authentication tag is invalid."},
		{keystore.ErrKeyNotFound, xks.KeyNotFoundException, "The external key is not in the external key manager."},
		{keystore.ErrKeyDisabled, xks.InvalidStateException, "The external key is disabled."},
		{keystore.ErrKeyAmbiguous, xks.InvalidStateException, "More than one key in the external key manager has this id; its administrator must remove all but one."},
		{keystore.ErrKeyUsage, xks.InvalidKeyUsageException, "The external key manager does not permit this operation with the key."},
		{keystore.ErrUnavailable, xks.DependencyTimeoutException, "The external key manager failed or hung and is not asked now; whether it is back is tried several times a second."},
		{context.DeadlineExceeded, xks.DependencyTimeoutException, "The external key manager did not answer in time."},
		{context.Canceled, xks.DependencyTimeoutException, "The request was given up before the external key manager answered."},
		{keystore.ErrBusy, xks.ThrottlingException, "All sessions with the external key manager are busy."},
	} {
		if errors.Is(err, known.is) {
			e.Name, e.Message = known.name, known.message
			break
		}
	}
	return e
}
