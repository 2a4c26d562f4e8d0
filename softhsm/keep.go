package softhsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

const (
	tokenFile  = "token.object"
	copySuffix = ".hyok" // of the copy of a token's file
)

// KeepTokens protects the tokens of the process's SoftHSM2 configuration from
// being lost when a process is killed as it logs in, and returns the folders of
// those that it has put right.
//
// At each login SoftHSM2 (seen in 2.6.1) empties the file of the token itself,
// token.object, and writes it anew. Killed in between, it leaves an empty file: the
// token then counts as not initialized, and all of its keys are lost, since that
// file has what they are encrypted under. So KeepTokens copies each such file
// beside itself, and puts the copy in the place of one that is not whole. SoftHSM2
// takes no notice of the copy.
//
// It must be called before the process loads the module, whose locks on these
// files it would give up. Of a token that cannot be looked at the error tells; the
// others are protected all the same.
func KeepTokens() (restored []string, err error) {
	folder, err := tokenFolder()
	if err != nil || folder == "" {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*", tokenFile))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, path := range files {
		lost, err := keep(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("protect the SoftHSM2 token in %s: %w", filepath.Dir(path), err))
		} else if lost {
			restored = append(restored, filepath.Dir(path))
		}
	}
	return restored, errors.Join(errs...)
}

// tokenFolder returns the folder that the configuration names; empty: there is no
// configuration that may be read, or it names none.
func tokenFolder() (string, error) {
	path := configPath()
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return "", nil // SoftHSM2 is not used, or will say so itself
	} else if err != nil {
		return "", fmt.Errorf("read SoftHSM2's configuration: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "=")
		if ok && strings.TrimSpace(name) == "directories.tokendir" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", lines.Err()
}

// configPath returns where SoftHSM2 looks for its configuration; empty: nowhere.
func configPath() string {
	if path := os.Getenv(ConfigVariable); path != "" {
		return path
	}
	candidates := []string{"/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"} // Debian's, SoftHSM2's own
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append([]string{filepath.Join(home, ".config", "softhsm2", "softhsm2.conf")}, candidates...)
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// keep copies the file of a token, or restores it from its copy.
func keep(path string) (restored bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }() // gives up the lock
	if err := lock(f); err != nil {                      // what is not whole then will never be
		return false, err
	}
	now, err := io.ReadAll(f)
	if err != nil {
		return false, err
	}
	kept, err := os.ReadFile(path + copySuffix)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	switch {
	case isWhole(now) && bytes.Equal(now, kept):
		return false, nil
	case isWhole(now):
		return false, atomicfile.Write(path+copySuffix, now)
	case !isWhole(kept) && isEmpty(filepath.Dir(path)):
		return false, nil // a process was killed as it made the token
	case !isWhole(kept):
		return false, fmt.Errorf("%s is damaged and there is no copy: put the last backup in its place", tokenFile)
	}
	if _, err := f.WriteAt(kept, 0); err != nil {
		return false, err
	}
	return true, errors.Join(f.Truncate(int64(len(kept))), f.Sync())
}

// isEmpty reports whether the folder of a token has no object but that of the token
// itself, so that nothing is lost with it.
func isEmpty(folder string) bool {
	objects, err := filepath.Glob(filepath.Join(folder, "*.object"))
	return err == nil && len(objects) <= 1
}

// isWhole reports whether data is a whole object file of SoftHSM2: a generation
// number and attributes, each of a type, a kind and a value, all numbers with eight
// bytes, big-endian.
func isWhole(data []byte) bool {
	const (
		number     = 8
		kindBool   = 1
		kindNumber = 2
		kindBytes  = 3
	)
	if len(data) <= number {
		return false
	}
	for rest := data[number:]; len(rest) > 0; {
		if len(rest) < 2*number {
			return false
		}
		kind, size := binary.BigEndian.Uint64(rest[number:]), uint64(number)
		rest = rest[2*number:]
		switch kind {
		case kindBool:
			size = 1
		case kindNumber:
		case kindBytes:
			if len(rest) < number {
				return false
			}
			size, rest = binary.BigEndian.Uint64(rest), rest[number:]
		default:
			return false
		}
		if uint64(len(rest)) < size {
			return false
		}
		rest = rest[size:]
	}
	return true
}
