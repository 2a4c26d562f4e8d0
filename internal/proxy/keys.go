package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
	"github.com/hyok-kms/hyok/xks"
)

// storeKeys serves the keys of one key store from its tokens.
type storeKeys struct{ group *group.Group }

// Find returns the key if a token has it.
func (s *storeKeys) Find(ctx context.Context, id string) (xks.Key, error) {
	k, err := s.group.Find(ctx, id)
	if err != nil {
		return nil, apiError(err)
	}
	return groupKey{k}, nil
}

// Health returns one entry for each token.
func (s *storeKeys) Health() []xks.ExternalKeyManager {
	var fleet []xks.ExternalKeyManager
	for _, m := range s.group.Health() {
		model := "not known yet" // the specification wants one
		if m.Info.Initialized {
			model = fmt.Sprintf("%s %s firmware %s", m.Info.Manufacturer, m.Info.Model, m.Info.Firmware)
		}
		fleet = append(fleet, xks.ExternalKeyManager{
			ID:     m.Name,
			Model:  model,
			Health: healthNames(m.Health.State),
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

// groupKey is a key of a group with the errors of the proxy API.
type groupKey struct{ *group.Key }

func (k groupKey) Describe(ctx context.Context) (xks.KeyDescription, error) {
	usage, disabled, err := k.Permissions(ctx)
	return xks.KeyDescription{Encrypt: usage.Encrypt, Decrypt: usage.Decrypt, Disabled: disabled}, apiError(err)
}

func (k groupKey) Encrypt(ctx context.Context, version uint32, plaintext, aad []byte) (xks.Sealed, error) {
	s, err := k.Key.Encrypt(ctx, version, plaintext, aad)
	return xks.Sealed(s), apiError(err)
}

func (k groupKey) Decrypt(ctx context.Context, version uint32, sealed xks.Sealed, aad []byte) ([]byte, error) {
	plaintext, err := k.Key.Decrypt(ctx, version, keystore.Sealed(sealed), aad)
	if errors.Is(err, group.ErrVersionNotFound) {
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
		{keystore.ErrUnsupported, xks.UnsupportedOperationException, "The external key manager does not support this operation; the log of the proxy tells more."},
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
