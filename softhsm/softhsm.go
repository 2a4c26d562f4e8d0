// Package softhsm finds SoftHSM2 and makes its tokens, for hyok's embedded
// default and for tests. SoftHSM2 keeps all tokens of a process in one folder,
// which a configuration file names through the environment.
package softhsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

// ConfigVariable is the environment variable that names SoftHSM2's
// configuration file. It must be set before the module is loaded.
const ConfigVariable = "SOFTHSM2_CONF"

// ModuleVariable overrides where Module looks.
const ModuleVariable = "HYOK_SOFTHSM2_MODULE"

// Module returns the path of SoftHSM2's PKCS#11 module.
func Module() (string, error) {
	candidates := []string{
		"/usr/lib/softhsm/libsofthsm2.so", // Debian, Ubuntu
		"/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/lib64/softhsm/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so",
		"/opt/homebrew/lib/softhsm/libsofthsm2.so",
	}
	if path, ok := os.LookupEnv(ModuleVariable); ok {
		candidates = []string{path}
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("SoftHSM2 was not found: install it (Debian: apt-get install softhsm2) or set %s to the path of libsofthsm2.so", ModuleVariable)
}

// Configure writes a SoftHSM2 configuration into dir, unless there is one, and
// makes its folder for tokens. It returns the path of the configuration file.
func Configure(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("SoftHSM2's folder: %w", err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", fmt.Errorf("make SoftHSM2's token folder: %w", err)
	}
	path := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	// An empty one would have SoftHSM2 use the tokens of the whole system.
	if err := atomicfile.Create(path, []byte(text)); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("write SoftHSM2's configuration: %w", err)
	}
	return path, nil
}
