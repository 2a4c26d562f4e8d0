package keystore

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ThalesGroup/crypto11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// KeyPair is a key pair in a token: its private key signs there. Close gives up
// the token once no signature is under way.
type KeyPair struct {
	crypto.Signer
	context *crypto11.Context
}

// Close closes the key pair's sessions.
func (p *KeyPair) Close() error { return p.context.Close() }

// KeyPairKind is a type and size of key pair that a TLS listener can use.
type KeyPairKind string

// The kinds of key pair that GenerateKeyPair makes.
const (
	ECDSAP256 KeyPairKind = "ecdsa-p256"
	ECDSAP384 KeyPairKind = "ecdsa-p384"
	RSA2048   KeyPairKind = "rsa-2048"
	RSA3072   KeyPairKind = "rsa-3072"
)

// OpenKeyPair opens the key pair that the URI names by object= or id=. Key
// pairs must be opened before any Token of the same module, and closed after it.
func (ms *Modules) OpenKeyPair(u URI, pin func() (string, error)) (*KeyPair, error) {
	if u.Object == "" && len(u.ID) == 0 {
		return nil, fmt.Errorf("%s names no key pair: add object= or id=", u)
	}
	c, err := ms.openCrypto11(u, pin)
	if err != nil {
		return nil, err
	}
	pairs, err := c.FindKeyPairs(u.ID, optional(u.Object))
	switch {
	case err != nil:
		err = fmt.Errorf("look for the key pair %s: %w", u, err)
	case len(pairs) == 0:
		err = fmt.Errorf("%w: no key pair matches %s", ErrKeyNotFound, u)
	case len(pairs) > 1:
		err = fmt.Errorf("%w: %d key pairs match %s: add id= or object= to name one", ErrKeyAmbiguous, len(pairs), u)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &KeyPair{Signer: pairs[0], context: c}, nil
}

// GenerateKeyPair makes a key pair labelled u.Object in the token. Its private
// key is sensitive and not extractable. A pair of that label that is there
// already is an error.
func (ms *Modules) GenerateKeyPair(u URI, pin func() (string, error), kind KeyPairKind) (*KeyPair, error) {
	if u.Object == "" {
		return nil, fmt.Errorf("%s does not say how to label the key pair: add object=", u)
	}
	c, err := ms.openCrypto11(u, pin)
	if err != nil {
		return nil, err
	}
	signer, err := generateKeyPair(c, u, kind)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &KeyPair{Signer: signer, context: c}, nil
}

func generateKeyPair(c *crypto11.Context, u URI, kind KeyPairKind) (crypto.Signer, error) {
	label := []byte(u.Object)
	if old, err := c.FindKeyPairs(nil, label); err != nil {
		return nil, fmt.Errorf("look for a key pair labelled %s: %w", printable(u.Object), err)
	} else if len(old) > 0 {
		return nil, fmt.Errorf("key pair %s: %w", printable(u.Object), ErrKeyExists)
	}
	id := u.ID
	if len(id) == 0 {
		id = make([]byte, 8)
		_, _ = rand.Read(id) // never fails
	}
	switch kind {
	case ECDSAP256:
		return c.GenerateECDSAKeyPairWithLabel(id, label, elliptic.P256())
	case ECDSAP384:
		return c.GenerateECDSAKeyPairWithLabel(id, label, elliptic.P384())
	case RSA2048:
		return c.GenerateRSAKeyPairWithLabel(id, label, 2048)
	case RSA3072:
		return c.GenerateRSAKeyPairWithLabel(id, label, 3072)
	}
	return nil, fmt.Errorf("unknown kind of key pair %s: known are %s, %s, %s and %s", printable(string(kind)), ECDSAP256, ECDSAP384, RSA2048, RSA3072)
}

// openCrypto11 opens the token with crypto11, which initializes the module and
// counts its own uses of it; it does not accept one that is initialized already.
func (ms *Modules) openCrypto11(u URI, pin func() (string, error)) (*crypto11.Context, error) {
	if u.ModulePath == "" {
		return nil, fmt.Errorf("%s names no module: add ?module-path=", u)
	}
	path, err := filepath.EvalSymlinks(u.ModulePath)
	if err != nil {
		return nil, fmt.Errorf("find the PKCS#11 module: %w", err)
	}
	if u.ModuleParameters != "" {
		return nil, fmt.Errorf("%s has module parameters: a key pair cannot be in a module that needs them; put p11-kit-proxy before it", u)
	}
	if err := cryptoki.CheckModule(path); err != nil {
		return nil, err // the library would crash
	}
	secret, err := pin()
	if err != nil {
		return nil, err
	}
	note, err := ms.permitPIN(u, secret)
	if err != nil {
		return nil, fmt.Errorf("open the token of %s: %w", u, err)
	}
	config := &crypto11.Config{Path: path, Pin: secret, MaxSessions: 8}
	switch {
	case u.SlotID != nil:
		slot := int(*u.SlotID)
		config.SlotNumber = &slot
	case u.Serial != "":
		config.TokenSerial = u.Serial
	default:
		config.TokenLabel = u.Token
	}
	c, err := crypto11.Configure(config)
	noteErr := note(err) // that it fails is told with the other
	if why := pinRefusal(err); why != nil {
		return nil, errors.Join(fmt.Errorf("open the token of %s: %w", u, why), noteErr)
	} else if err != nil && ms.loaded(path) {
		return nil, fmt.Errorf("open the token of %s: a key pair in a token must be configured when the process starts: restart it (%w)", u, err)
	} else if err != nil {
		return nil, fmt.Errorf("open the token of %s: %w", u, err)
	}
	return c, nil
}

// permitPIN looks whether the PIN of the token that crypto11 is about to open may be
// tried, and returns what is to be told how the login ended.
func (ms *Modules) permitPIN(u URI, pin string) (note func(error) error, err error) {
	m, err := ms.acquire(context.Background(), u.ModulePath, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ms.release(m)) }()
	m.calls.RLock()
	info, err := m.find(u)
	m.calls.RUnlock()
	if err != nil {
		return nil, err
	}
	tries := pinTries{refusedPINs{ms.RefusedPINs}, info}
	digest := func(salt []byte) ([]byte, error) {
		return cryptoki.DigestPIN(func() (string, error) { return pin, nil }, salt)
	}
	salt, err := tries.permit(digest)
	if err != nil {
		return nil, err
	}
	return func(answer error) error {
		if answer == nil || len(salt) == 0 || !cryptoki.RefusesPIN(answer) {
			return tries.note(nil, nil, answer)
		}
		refused, err := digest(salt)
		if err != nil {
			return err
		}
		return tries.note(salt, refused, answer)
	}, nil
}

func optional(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}
