package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// refusedPINsFile remembers, in the folder of the configuration, which PINs tokens
// have refused.
const refusedPINsFile = "refused-pins.json"

// NewModules returns the modules for the tokens of the configuration in a folder.
func NewModules(dir string) *keystore.Modules {
	return &keystore.Modules{Command: keystore.ModuleProcess(), RefusedPINs: filepath.Join(dir, refusedPINsFile)}
}

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

// KeepTokens protects the tokens of SoftHSM2, see [softhsm.KeepTokens]. It must
// come after SetEnvironment and before any token is opened.
func KeepTokens(log *slog.Logger) {
	restored, err := softhsm.KeepTokens()
	for _, folder := range restored {
		log.Warn("a process was killed while it logged in to this SoftHSM2 token and left its file empty; it was restored from hyok's copy", "folder", folder)
	}
	if err != nil {
		log.Warn("a SoftHSM2 token is not protected from a kill during a login", "error", err)
	}
}

// TokenURI returns the URI of a configured token, with its module's parameters.
func TokenURI(t *config.Token) (keystore.URI, error) {
	u, err := keystore.ParseURI(string(t.URI))
	switch {
	case err != nil:
	case t.ModuleParameters != "" && u.ModuleParameters != "":
		err = errors.New("module_parameters and module-parameters in the URI: leave one of them out")
	case t.ModuleParameters != "":
		u.ModuleParameters = t.ModuleParameters
	}
	if err != nil {
		return u, fmt.Errorf("token %s: %w", t.Name, err)
	}
	return u, nil
}

// TokenOptions returns the options that open a configured token.
func TokenOptions(c *config.Config, t *config.Token, log *slog.Logger) (keystore.Options, error) {
	u, err := TokenURI(t)
	if err != nil {
		return keystore.Options{}, err
	}
	profile, err := keystore.ProfileByName(t.Profile)
	if err != nil {
		return keystore.Options{}, fmt.Errorf("token %s: %w", t.Name, err)
	}
	return keystore.Options{
		Name:          t.Name,
		URI:           u,
		PIN:           func() (string, error) { return u.PIN(c.Dir(), t.AllowPINValue) },
		PINFrom:       &keystore.PINFromURI{Dir: c.Dir()},
		Isolated:      t.Isolated,
		Profile:       profile,
		Sessions:      t.Sessions,
		Logger:        log,
		ProbeInterval: c.Health.Interval,
	}, nil
}

// xksTokens returns the tokens that the XKS proxy opens: all but those that are
// configured for the embedded KMS alone.
func xksTokens(c *config.Config) []config.Token {
	var tokens []config.Token
	for _, t := range c.Tokens {
		inStore := slices.ContainsFunc(c.Stores, func(s config.Store) bool { return slices.Contains(s.Tokens, t.Name) })
		if inStore || c.KMS == nil || c.KMS.Token != t.Name && !isCluster(c, t.Name) {
			tokens = append(tokens, t)
		}
	}
	return tokens
}

// isCluster reports whether custom key stores can stand on a token.
func isCluster(c *config.Config, token string) bool {
	return c.KMS != nil && slices.ContainsFunc(c.KMS.Clusters, func(cluster config.Cluster) bool { return cluster.Token == token })
}

// isClusterAlone reports whether nobody but custom key stores, which bring the
// PIN, uses a token.
func isClusterAlone(c *config.Config, token string) bool {
	return isCluster(c, token) && c.KMS.Token != token &&
		!slices.ContainsFunc(xksTokens(c), func(t config.Token) bool { return t.Name == token })
}
