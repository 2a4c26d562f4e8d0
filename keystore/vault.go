package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Vault is key material that a token uses and its owner stores: keys made in the
// token and wrapped there under a root key that never leaves it, so that one
// token serves any number of keys. What the token cannot wrap, or is not to give
// away even wrapped, is resident: a token object.
//
// Wrapped keys are unwrapped into session objects when they are used. A bounded
// number of them is kept. They are in force only while the root key is found in
// the token, at least every 700 ms: whoever destroys it there, or withdraws
// CKA_UNWRAP, has stopped every wrapped key within one second.
//
// The methods of a Vault are safe for concurrent use, and each returns when its
// context ends. Errors that lie in the token are a *TokenError; ErrRootKey says
// that the root key is gone.
type Vault struct {
	t         *Token
	name      string
	keepers   keepers
	root      rootKey
	cache     unwrappedCache
	residents residents
	closed    atomic.Bool
	wrappable wrappable
	tried     atomic.Bool // an AES key that was unwrapped has encrypted and decrypted
}

// Material says where the key material of one key is. It is a value that the
// caller stores; it holds no secret in the clear.
type Material struct {
	// ID names the material in the vault's cache and, if it is resident, in the
	// token: 1 to 64 of a-z0-9 and '-'.
	ID   string
	Spec Spec
	// Wrapped is the key under the vault's root key, key pairs as PKCS #8; empty:
	// the key is resident.
	Wrapped []byte
	// Wrap is how the token wrapped it.
	Wrap KeyWrap `json:",omitzero"`
	// Public is the SubjectPublicKeyInfo of a key pair in DER, else nil.
	Public []byte
	// Digest has 32 bytes, computed from what the token says of the material
	// without giving it away. Equal material of one spec has equal digests, in
	// every token, and other material has others.
	Digest []byte
}

// Resident reports whether the material is a token object.
func (m *Material) Resident() bool { return len(m.Wrapped) == 0 }

// VaultOptions says which vault to open.
type VaultOptions struct {
	// Name scopes the root key and the resident keys: 1 to 32 of a-z0-9 and '-'.
	Name string
	// CacheSize is how many unwrapped keys are kept; 0: 4096. SoftHSM2 takes
	// about 10 kB for each.
	CacheSize int
	// Existing says that the vault was used before, so that a root key that is
	// missing is not made anew: another would open nothing, and hide that the
	// first is gone. What needs it answers ErrRootKey until it is back.
	Existing bool
}

const (
	defaultCacheSize = 4096
	maxVaultName     = 32
	maxMaterialID    = 64
	rootPrefix       = reservedPrefix + "root." // label of a vault's root key, before its name
	residentPrefix   = reservedPrefix + "kms."  // label of a resident key, before name, '.', id
	sealPrefix       = reservedPrefix + "seal." // label of a vault's seal key, before its name
)

// OpenVault opens a vault in the token: it finds the root key, labelled
// hyok.root.NAME, or makes it unless o.Existing is set. Token.Close closes the vault, if Vault.Close has
// not before. Two root keys of one name are ErrKeyAmbiguous.
func (t *Token) OpenVault(ctx context.Context, o VaultOptions) (*Vault, error) {
	if err := checkName("vault name", o.Name, maxVaultName); err != nil {
		return nil, err
	}
	if o.CacheSize <= 0 {
		o.CacheSize = defaultCacheSize
	}
	v := &Vault{t: t, name: o.Name}
	v.keepers.init(t)
	v.root.init(v)
	v.cache.init(v, o.CacheSize)
	v.residents.init(v)
	t.life.mu.Lock()
	if t.life.closed {
		t.life.mu.Unlock()
		return nil, t.closedError()
	}
	t.life.vaults = append(t.life.vaults, v)
	t.life.mu.Unlock()
	openRoot := v.root.open
	if o.Existing {
		openRoot = v.root.reopen
	}
	if err := openRoot(ctx); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// Close ends the use of the vault; operations then answer ErrClosed. Its sessions
// are closed as they become free, which Token.Close waits for.
func (v *Vault) Close() error {
	if v.closed.Swap(true) {
		return nil
	}
	v.t.life.mu.Lock()
	v.t.life.vaults = slices.DeleteFunc(v.t.life.vaults, func(other *Vault) bool { return other == v })
	v.t.life.mu.Unlock()
	v.keepers.end()
	return nil
}

// VaultStats is a snapshot of a vault's inner figures, for metrics.
type VaultStats struct {
	Cached    int           // unwrapped keys kept now
	Hits      uint64        // uses of a wrapped key that was unwrapped already
	Unwraps   uint64        // keys unwrapped
	Evictions uint64        // keys that made room for others
	RootAge   time.Duration // longest time that wrapped keys were used without the root key being looked at
}

// Stats returns the present figures.
func (v *Vault) Stats() VaultStats {
	return VaultStats{
		Cached: v.cache.size(), Hits: v.cache.hits.Load(), Unwraps: v.cache.unwraps.Load(), Evictions: v.cache.evictions.Load(),
		RootAge: time.Duration(v.root.worstAge.Load()),
	}
}

// Token returns the token that the vault is in.
func (v *Vault) Token() *Token { return v.t }

// check returns the shape of material that is to be made or used.
func (v *Vault) check(id string, s Spec) (shape, error) {
	if v.closed.Load() {
		return shape{}, fmt.Errorf("vault %s: %w", v.name, ErrClosed)
	}
	if err := checkName("key material id", id, maxMaterialID); err != nil {
		return shape{}, err
	}
	return s.shape()
}

// label returns the label of a resident key.
func (v *Vault) label(id string) string { return residentPrefix + v.name + "." + id }

// checkName reports whether name has 1 to most of a-z0-9 and '-'.
func checkName(what, name string, most int) error {
	if len(name) == 0 || len(name) > most {
		return fmt.Errorf("%s has %d characters: it must have 1 to %d", what, len(name), most)
	}
	for _, ch := range []byte(name) {
		if (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '-' {
			return fmt.Errorf("%s %s has a character outside a-z, 0-9, '-'", what, printable(name))
		}
	}
	return nil
}
