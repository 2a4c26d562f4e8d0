package check

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hyok-kms/hyok/keystore"
)

// candidates returns the profiles to try, in this order.
func (r *runner) candidates() []keystore.Profile {
	if r.o.Profile != nil {
		return []keystore.Profile{*r.o.Profile}
	}
	return keystore.Profiles()
}

// choose leaves the token open with the first profile that fits; where none does,
// with the first that may be one of the token's.
func (r *runner) choose(ctx context.Context) error {
	candidates := r.candidates()
	var first *keystore.Profile
	for i, p := range candidates {
		err := r.reopen(ctx, p)
		switch {
		case errors.Is(err, keystore.ErrProfile) && len(candidates) > 1:
			continue // SoftHSM2's, and it is no such token
		case err != nil:
			return err
		case first == nil:
			first = &candidates[i]
		}
		if len(candidates) == 1 || r.fits(ctx) == nil {
			return nil
		}
	}
	return r.reopen(ctx, *first)
}

// reopen opens the token with another profile.
func (r *runner) reopen(ctx context.Context, p keystore.Profile) error {
	if r.token != nil {
		if r.profile.Name == p.Name {
			return nil
		}
		if err := r.closeToken(ctx, r.token); err != nil {
			return err
		}
		r.token = nil
	}
	return r.open(ctx, p)
}

// fits has the token encrypt and decrypt by the present profile.
func (r *runner) fits(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	const id = "profile"
	err := r.token.GenerateKey(ctx, id, both)
	if err == nil {
		_, err = r.roundTrip(ctx, id, []byte("plaintext"), []byte("aad"))
	}
	return errors.Join(err, r.token.DestroyKey(ctx, id, 0))
}

var both = keystore.KeyUsage{Encrypt: true, Decrypt: true}

// roundTrip encrypts and decrypts with the newest version of a key.
func (r *runner) roundTrip(ctx context.Context, id string, plaintext, aad []byte) (keystore.Sealed, error) {
	k, err := r.token.Find(ctx, id)
	if err != nil {
		return keystore.Sealed{}, err
	}
	s, err := k.Encrypt(ctx, k.Newest(), plaintext, aad)
	if err != nil {
		return s, err
	}
	if len(s.Ciphertext) != len(plaintext) || len(s.Tag) != 16 {
		return s, fmt.Errorf("%d bytes became %d and a tag of %d", len(plaintext), len(s.Ciphertext), len(s.Tag))
	}
	got, err := k.Decrypt(ctx, k.Newest(), s, aad)
	if err == nil && !bytes.Equal(got, plaintext) {
		err = errors.New("what was decrypted is not what was encrypted")
	}
	return s, err
}

// knownKey has the token use a key that is known here as well, and compares what it
// computes with another implementation.
func (r *runner) knownKey(ctx context.Context) (string, error) {
	const id = "known"
	material, plaintext, aad := make([]byte, 32), []byte("plaintext"), []byte("aad")
	_, _ = rand.Read(material) // never fails
	if err := r.token.ImportKey(ctx, id, both, material); err != nil {
		return "", err
	}
	sealed, err := r.roundTrip(ctx, id, plaintext, aad)
	if err != nil {
		return "", err
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return "", err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(sealed.IV))
	if err != nil {
		return "", err
	}
	got, err := gcm.Open(nil, sealed.IV, append(bytes.Clone(sealed.Ciphertext), sealed.Tag...), aad)
	if err != nil || !bytes.Equal(got, plaintext) {
		return "", errors.New("what the token encrypted is not AES-GCM under the IV that it told")
	}
	return fmt.Sprintf("IV of %d bytes", len(sealed.IV)), nil
}
