package proxy

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// Check reports what would keep Start from serving a configuration that Load has
// accepted, as far as it shows without opening a token.
func Check(c *config.Config) error {
	var errs []error
	for i := range c.Tokens {
		t := &c.Tokens[i]
		options, err := TokenOptions(c, t, slog.New(slog.DiscardHandler))
		if err == nil {
			err = options.URI.CheckToken()
		}
		if err == nil && (options.URI.NamesPIN() || !isClusterAlone(c, t.Name)) {
			_, err = options.PIN()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tokens.%s: %w", t.Name, err))
		}
	}
	for _, l := range allListeners(c) {
		if l.TLS == nil || l.TLS.KeyURI == "" {
			continue
		}
		u, err := keystore.ParseURI(string(l.TLS.KeyURI))
		if err == nil {
			err = u.Check()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Address, err))
		}
	}
	if len(c.Listeners) == 0 {
		return errors.Join(errs...) // the KMS alone is served
	}
	x := xks.Config{Deadline: c.Limits.Deadline, MaxInFlight: c.Limits.MaxInFlight}
	for i := range c.Stores {
		x.Stores = append(x.Stores, newStore(&c.Stores[i], &storeKeys{}))
	}
	return errors.Join(append(errs, x.Validate())...)
}

// newStore translates what a key store's settings say by themselves.
func newStore(s *config.Store, keys xks.Keys) xks.Store {
	store := xks.Store{Name: s.Name, Prefix: s.Prefix, Keys: keys, Allow: allow(s), Regions: s.Regions, SampleMetadata: s.SampleMetadata}
	for _, credential := range s.Credentials {
		store.Credentials = append(store.Credentials, credential.Credential)
	}
	return store
}
