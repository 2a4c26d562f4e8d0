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

// Unreadable returns the names of the object files in the folder of a token that may not
// be read, sorted; an error if the folder or what the token itself is in may not.
//
// SoftHSM2 (seen in 2.6.1) takes an object that it cannot read for one that is gone, and
// a token whose folder it cannot read for one that is empty, and never looks again until
// C_Finalize.
func Unreadable(path string) (objects []string, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read the token's folder: %w", err)
	}
	const read = 4 // R_OK of access(2)
	whole := false
	for _, e := range entries {
		name := e.Name()
		itself := name == tokenFile || filepath.Ext(name) == ".db"
		if !itself && filepath.Ext(name) != ".object" {
			continue
		}
		err := syscall.Access(filepath.Join(path, name), read)
		switch {
		case errors.Is(err, os.ErrNotExist): // it goes as we look
		case itself && err != nil:
			return nil, &os.PathError{Op: "read", Path: filepath.Join(path, name), Err: err}
		case itself:
			whole = true
		case err != nil:
			objects = append(objects, name)
		}
	}
	if !whole {
		return nil, &os.PathError{Op: "read", Path: filepath.Join(path, tokenFile), Err: os.ErrNotExist}
	}
	return objects, nil
}
