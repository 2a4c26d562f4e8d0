package xks

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"sync"
)

// memKeys is a Keys in memory. Its maps and hooks are set before use.
type memKeys struct {
	keys   map[string]*memKey
	health []ExternalKeyManager
}

func newMemKeys(ids ...string) *memKeys {
	m := &memKeys{
		keys:   map[string]*memKey{},
		health: []ExternalKeyManager{{ID: "token-a", Model: "SoftHSM v2", Health: HealthActive}},
	}
	for _, id := range ids {
		m.keys[id] = newMemKey(1)
	}
	return m
}

func (m *memKeys) Find(_ context.Context, id string) (Key, error) {
	key, ok := m.keys[id]
	if !ok {
		return nil, &Error{Name: KeyNotFoundException, Message: "no such key"}
	}
	return key, nil
}

func (m *memKeys) Health() []ExternalKeyManager { return m.health }

// memKey is a key with versions 1 to len(ciphers).
type memKey struct {
	ciphers     []cipher.Block
	description KeyDescription
	// before, if not nil, runs before each operation and may fail it.
	before func(ctx context.Context, operation string) error
	// after, if not nil, sees what an operation is about to return.
	after func(operation string, sealed *Sealed, plaintext *[]byte)

	mu   sync.Mutex
	aads [][]byte // given to Encrypt and Decrypt in this order; guarded by mu; only with record
	// record makes aads grow.
	record bool
}

func newMemKey(versions int) *memKey {
	key := &memKey{description: KeyDescription{Encrypt: true, Decrypt: true}}
	for range versions {
		key.rotate()
	}
	return key
}

func (k *memKey) rotate() {
	material := make([]byte, 32)
	_, _ = rand.Read(material)
	block, err := aes.NewCipher(material)
	if err != nil {
		panic(err)
	}
	k.ciphers = append(k.ciphers, block)
}

func (k *memKey) Token() string  { return "token-a" }
func (k *memKey) Newest() uint32 { return uint32(len(k.ciphers)) }

func (k *memKey) check(ctx context.Context, operation string, permitted bool, aad []byte) error {
	if k.record {
		k.mu.Lock()
		k.aads = append(k.aads, append([]byte(nil), aad...))
		k.mu.Unlock()
	}
	if k.before != nil {
		if err := k.before(ctx, operation); err != nil {
			return err
		}
	}
	if k.description.Disabled {
		return &Error{Name: InvalidStateException, Message: "the key is disabled"}
	}
	if !permitted {
		return &Error{Name: InvalidKeyUsageException, Message: "the key may not do this"}
	}
	return nil
}

func (k *memKey) Describe(ctx context.Context) (KeyDescription, error) {
	if k.before != nil {
		if err := k.before(ctx, "describe"); err != nil {
			return KeyDescription{}, err
		}
	}
	return k.description, nil
}

func (k *memKey) aead(version uint32, ivSize int) (cipher.AEAD, error) {
	if version < 1 || version > k.Newest() {
		return nil, &Error{Name: InvalidCiphertextException, Message: "no such version"}
	}
	return cipher.NewGCMWithNonceSize(k.ciphers[version-1], ivSize)
}

func (k *memKey) Encrypt(ctx context.Context, version uint32, plaintext, aad []byte) (Sealed, error) {
	if err := k.check(ctx, "encrypt", k.description.Encrypt, aad); err != nil {
		return Sealed{}, err
	}
	return k.seal(version, plaintext, aad, IVSize)
}

func (k *memKey) seal(version uint32, plaintext, aad []byte, ivSize int) (Sealed, error) {
	gcm, err := k.aead(version, ivSize)
	if err != nil {
		return Sealed{}, err
	}
	buf := make([]byte, ivSize, ivSize+len(plaintext)+TagSize)
	_, _ = rand.Read(buf)
	out := gcm.Seal(buf[ivSize:], buf, plaintext, aad)
	sealed := Sealed{IV: buf, Ciphertext: out[:len(plaintext)], Tag: out[len(plaintext):]}
	if k.after != nil {
		k.after("encrypt", &sealed, nil)
	}
	return sealed, nil
}

func (k *memKey) Decrypt(ctx context.Context, version uint32, sealed Sealed, aad []byte) ([]byte, error) {
	if err := k.check(ctx, "decrypt", k.description.Decrypt, aad); err != nil {
		return nil, err
	}
	gcm, err := k.aead(version, len(sealed.IV))
	if err != nil {
		return nil, err
	}
	both := make([]byte, 0, len(sealed.Ciphertext)+TagSize)
	both = append(append(both, sealed.Ciphertext...), sealed.Tag...)
	plaintext, err := gcm.Open(nil, sealed.IV, both, aad)
	if err != nil {
		return nil, &Error{Name: InvalidCiphertextException, Message: "the ciphertext or its AAD is not what was sealed"}
	}
	if k.after != nil {
		k.after("decrypt", &sealed, &plaintext)
	}
	return plaintext, nil
}
