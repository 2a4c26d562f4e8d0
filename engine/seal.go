package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// Whoever can write to the database could have wrapped key material used as that
// of another key or account, put a public key of theirs in the place of a key's,
// point an alias elsewhere, enable what was disabled. So every record is sealed:
//
//	data  n bytes: JSON
//	mac   32 bytes: HMAC-SHA-256 of kind, id and data
//
// under a secret that the token gives to who can log in to it. A record that was
// changed, moved or made by anybody else is refused when it is loaded. What a seal
// cannot tell is that a record is missing, or is an older one of the same name:
// that is for who guards the database and its backups.

// errSeal is of a record that was not sealed here.
var errSeal = errors.New("its seal is broken: it was not written by hyok, or not with this token; restore the database from a backup that belongs to the token")

// sealer seals records. It never changes once the engine has loaded the metadata.
type sealer struct {
	secret []byte // nil: the token has none yet, and so the database no record
}

const sealPurpose = "engine records 1"

// openSealer gets the secret that records are sealed under, if there is one.
func (e *Engine) openSealer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	secret, err := e.vault.SealSecret(ctx, sealPurpose, false)
	if err != nil && !errors.Is(err, keystore.ErrKeyNotFound) {
		return fmt.Errorf("get the secret that metadata is sealed under: %w", err)
	}
	e.sealer.secret = secret
	return nil
}

// makeSealer has the secret made for a new database. It is not made for one with
// records: those are sealed under one that is lost, or in another token.
func (e *Engine) makeSealer(ctx context.Context) error {
	if e.sealer.secret != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	var err error
	if e.sealer.secret, err = e.vault.SealSecret(ctx, sealPurpose, true); err != nil {
		return fmt.Errorf("make the secret that metadata is sealed under: %w", err)
	}
	return nil
}

// seal seals the records of changes.
func (s *sealer) seal(changes []store.Change) {
	for i := range changes {
		if c := &changes[i]; !c.Delete {
			c.Data = append(c.Data, s.mac(&c.Record, c.Data)...)
		}
	}
}

// open returns the data of a sealed record.
func (s *sealer) open(r *store.Record) ([]byte, error) {
	if s.secret == nil {
		return nil, fmt.Errorf("read the %s %s: the token has no key to check it with: is it the token that the database belongs to?", r.Kind, r.ID)
	}
	n := len(r.Data) - sha256.Size
	if n < 0 || !hmac.Equal(s.mac(r, r.Data[:n:n]), r.Data[n:]) {
		return nil, fmt.Errorf("read the %s %s: %w", r.Kind, r.ID, errSeal)
	}
	return r.Data[:n:n], nil
}

// mac computes the seal of data as that of a record.
func (s *sealer) mac(r *store.Record, data []byte) []byte {
	h := hmac.New(sha256.New, s.secret)
	var length [4]byte
	for _, name := range []string{r.Kind, r.ID} {
		binary.BigEndian.PutUint32(length[:], uint32(len(name)))
		_, _ = h.Write(length[:]) // a hash never fails
		_, _ = h.Write([]byte(name))
	}
	_, _ = h.Write(data)
	return h.Sum(nil)
}
