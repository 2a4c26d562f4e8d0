package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Folder returns the folder of the token with a serial number; empty: the process's
// SoftHSM2 configuration has none, or none that can be told by its name.
func Folder(serial string) (string, error) {
	folder, err := tokenFolder()
	if err != nil || folder == "" || serial == "" {
		return "", err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", fmt.Errorf("read SoftHSM2's token folder: %w", err)
	}
	for _, e := range entries {
		if ofToken(e.Name(), serial) {
			return filepath.Join(folder, e.Name()), nil
		}
	}
	return "", nil
}

// ofToken reports whether the name of a folder is that of the token: it is a UUID, whose
// last 16 digits are the serial number.
func ofToken(name, serial string) bool {
	return strings.HasSuffix(strings.ReplaceAll(name, "-", ""), serial)
}

// CheckFolder returns why SoftHSM2 cannot read what is in the folder of a token.
//
// SoftHSM2 (seen in 2.6.1) takes an object that it cannot read for one that is gone, and
// a token whose folder it cannot read for one that is empty, and never looks again until
// C_Finalize. So that is of use only once there is nothing to be said here.
func CheckFolder(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read the token's folder: %w", err)
	}
	const read = 4 // R_OK of access(2)
	whole := false
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".object") && !strings.HasSuffix(e.Name(), ".db") {
			continue
		}
		whole = whole || e.Name() == tokenFile || strings.HasSuffix(e.Name(), ".db")
		file := filepath.Join(path, e.Name())
		if err := syscall.Access(file, read); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read an object of the token: %w", &os.PathError{Op: "access", Path: file, Err: err})
		}
	}
	if !whole {
		return fmt.Errorf("read the token's folder: %s: %w", filepath.Join(path, tokenFile), os.ErrNotExist)
	}
	return nil
}
