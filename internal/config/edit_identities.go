package config

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/internal/atomicfile"
)

// NewIdentity makes an identity, created now: the root of an account of 12 digits,
// with 80 bits of access key id and 240 bits of secret from the operating system's
// generator.
func NewIdentity(account string) Identity {
	var id [10]byte
	var secret [30]byte
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret[:])
	defer clear(secret[:])
	// As long as AWS's, but not to be taken for one of theirs.
	return Identity{
		AccessKeyID:     "HYOK" + base32.StdEncoding.EncodeToString(id[:]),
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret[:]),
		Account:         account,
		Created:         time.Now().UTC().Truncate(time.Second),
	}.withARN()
}

// AddIdentity adds an identity to those that may call the embedded KMS of the
// configuration file at path. It makes their file where there is none yet, and
// returns its path. Errors: ErrNoKMS, ErrExists where the access key id is taken.
func AddIdentity(path string, id Identity) (file string, err error) {
	if err := id.Validate(); err != nil {
		return "", err
	}
	return editIdentities(path, func(all []Identity) ([]Identity, error) {
		if indexOf(all, id.AccessKeyID) >= 0 {
			return nil, fmt.Errorf("identity %s %w", id.AccessKeyID, ErrExists)
		}
		return append(all, id.withARN()), nil
	})
}

// DeleteIdentity removes an identity, and returns it with the path of the file
// that held it. Errors: ErrNoKMS, ErrNotFound.
func DeleteIdentity(path, accessKeyID string) (id Identity, file string, err error) {
	file, err = editIdentities(path, func(all []Identity) ([]Identity, error) {
		i := indexOf(all, accessKeyID)
		if i < 0 {
			return nil, fmt.Errorf("identity %q %w", accessKeyID, ErrNotFound)
		}
		id = all[i]
		return slices.Delete(all, i, i+1), nil
	})
	return id, file, err
}

func indexOf(all []Identity, accessKeyID string) int {
	return slices.IndexFunc(all, func(id Identity) bool { return id.AccessKeyID == accessKeyID })
}

func editIdentities(path string, change func([]Identity) ([]Identity, error)) (file string, err error) {
	err = edit(path, func(e *editing) error {
		if e.config.KMS == nil {
			return fmt.Errorf("%s %w", e.config.Path, ErrNoKMS)
		}
		file = e.config.KMS.IdentitiesFile
		before, errs := loadIdentities(file)
		if err := errors.Join(errs...); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		after, err := change(before)
		if err != nil {
			return err
		}
		data, err := encodeIdentities(after)
		if err != nil {
			return err
		}
		defer clear(data)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return fmt.Errorf("make the folder of the identities: %w", err)
		}
		return atomicfile.Write(file, data)
	})
	return file, err
}
