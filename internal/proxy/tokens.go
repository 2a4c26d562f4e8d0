package proxy

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// SetEnvironment gives the process the environment that modules read when they
// are loaded. It must come before any token is opened.
func SetEnvironment(c *config.Config) error {
	if c.SoftHSM2Conf == "" {
		return nil
	}
	if err := os.Setenv(softhsm.ConfigVariable, c.SoftHSM2Conf); err != nil {
		return fmt.Errorf("set %s: %w", softhsm.ConfigVariable, err)
	}
	return nil
}

// TokenOptions returns the options that open a configured token.
func TokenOptions(c *config.Config, t *config.Token, log *slog.Logger) (keystore.Options, error) {
	u, err := keystore.ParseURI(string(t.URI))
	if err != nil {
		return keystore.Options{}, fmt.Errorf("token %s: %w", t.Name, err)
	}
	profile, err := keystore.ProfileByName(t.Profile)
	if err != nil {
		return keystore.Options{}, fmt.Errorf("token %s: %w", t.Name, err)
	}
	return keystore.Options{
		Name:          t.Name,
		URI:           u,
		PIN:           func() (string, error) { return u.PIN(c.Dir(), t.AllowPINValue) },
		Profile:       profile,
		Sessions:      t.Sessions,
		Logger:        log,
		ProbeInterval: c.Health.Interval,
	}, nil
}
