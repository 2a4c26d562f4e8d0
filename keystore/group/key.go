package group

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/hyok-kms/hyok/keystore"
)

// Key is a key of a group, for one request.
type Key struct {
	g      *Group
	id     string
	single *keystore.Key // of a group of one; nil otherwise
	state  *keyState     // of a group of several; nil otherwise
	by     atomic.Pointer[member]
}

// ID returns the external key id.
func (k *Key) ID() string { return k.id }

// Token returns the name of the token that did the last operation, before one that
// of the first token that has the key.
func (k *Key) Token() string {
	if k.single != nil {
		return k.single.Token()
	}
	if m := k.by.Load(); m != nil {
		return m.token.Name()
	}
	for _, m := range k.g.members {
		if known, _ := m.token.Known(k.id); known != nil {
			return m.token.Name()
		}
	}
	return ""
}

// Newest returns the number of the version that new encryptions use: the newest
// that every member has that can be asked and has the key at all. So a version
// that was made in one member is used once it was copied to the others; what is
// encrypted does not depend on one member then.
func (k *Key) Newest() uint32 {
	if k.single != nil {
		return k.single.Newest()
	}
	keys := k.g.holders(k.id)
	for limit := uint32(math.MaxUint32); ; {
		n := limit
		for _, held := range keys {
			n = min(n, held.NewestUpTo(n))
		}
		switch {
		case n == 0:
			return newestOfAny(keys) // they have none in common
		case n < limit:
			limit = n
		case k.g.destroyedAway(k.state, n):
			limit = n - 1
		default:
			return n // every one has it
		}
	}
}

// destroyedAway reports whether a version was destroyed in a member that has others
// of the key and cannot be asked now: the group refuses it, but not those.
func (g *Group) destroyedAway(s *keyState, number uint32) bool {
	s.mu.Lock()
	v := s.versions[number]
	s.mu.Unlock()
	if v == nil {
		return false
	}
	for i, m := range g.members {
		k, _ := m.token.Known(s.id)
		if l := v.members[i].look.Load(); l != nil && l.gone && !m.usable() && k != nil && !has(k, number) {
			return true
		}
	}
	return false
}

// holders returns the key in each member that can be asked and has it, or in each
// that has it if none of them can be asked.
func (g *Group) holders(id string) []*keystore.Key {
	var usable, all []*keystore.Key
	for _, m := range g.members {
		k, _ := m.token.Known(id)
		if k == nil {
			continue
		}
		all = append(all, k)
		if m.usable() {
			usable = append(usable, k)
		}
	}
	if len(usable) > 0 {
		return usable
	}
	return all
}

func newestOfAny(keys []*keystore.Key) uint32 {
	n := uint32(0)
	for _, k := range keys {
		n = max(n, k.Newest())
	}
	return n
}

// Encrypt is [keystore.Key.Encrypt] by a member that has the version. Further
// errors: ErrVersionNotFound; [keystore.ErrUnavailable] if no such member can be
// asked.
func (k *Key) Encrypt(ctx context.Context, number uint32, plaintext, aad []byte) (keystore.Sealed, error) {
	if k.single != nil {
		return k.single.Encrypt(ctx, number, plaintext, aad)
	}
	return do(ctx, k, number, toEncrypt, func(ctx context.Context, held *keystore.Key) (keystore.Sealed, error) {
		return held.Encrypt(ctx, number, plaintext, aad)
	}, func(keystore.Sealed) {})
}

// Decrypt is [keystore.Key.Decrypt] by a member that has the version. Further errors
// are those of Encrypt.
func (k *Key) Decrypt(ctx context.Context, number uint32, sealed keystore.Sealed, aad []byte) ([]byte, error) {
	if k.single != nil {
		plaintext, err := k.single.Decrypt(ctx, number, sealed, aad)
		if errors.Is(err, keystore.ErrKeyNotFound) && k.g.single.Has(k.id) {
			err = fmt.Errorf("%w: %w", ErrVersionNotFound, err)
		}
		return plaintext, err
	}
	return do(ctx, k, number, toDecrypt, func(ctx context.Context, held *keystore.Key) ([]byte, error) {
		return held.Decrypt(ctx, number, sealed, aad)
	}, wipe)
}

func wipe(plaintext []byte) { clear(plaintext) }

// Permissions asks all members that can be asked what they permit with the newest
// version of the key and whether it is disabled. The strictest answer counts.
func (k *Key) Permissions(ctx context.Context) (usage keystore.KeyUsage, disabled bool, err error) {
	if k.single != nil {
		return k.single.Permissions(ctx)
	}
	r, err := k.g.request(ctx, k, k.Newest())
	if err != nil {
		return usage, false, err
	}
	waits := k.g.look(r, 0)
	answered := k.g.await(ctx, waits)
	for _, w := range waits {
		if answered > 0 {
			break
		}
		select { // nobody else can tell
		case <-w.flight.done:
			if w.flight.answered() {
				answered++
			}
		case <-ctx.Done():
		}
	}
	if err := k.g.verdict(r.version, toDescribe); err != nil {
		return usage, false, err
	}
	if answered == 0 {
		return usage, false, k.g.noAnswer(ctx, k.id, waits)
	}
	usage = keystore.KeyUsage{Encrypt: true, Decrypt: true}
	for i := range r.version.members {
		if l := r.version.members[i].look.Load(); l != nil {
			usage.Encrypt, usage.Decrypt = usage.Encrypt && l.usage.Encrypt, usage.Decrypt && l.usage.Decrypt
			disabled = disabled || l.disabled
		}
	}
	for _, l := range r.version.absent {
		usage.Encrypt, usage.Decrypt = usage.Encrypt && l.usage.Encrypt, usage.Decrypt && l.usage.Decrypt
		disabled = disabled || l.disabled
	}
	return usage, disabled, nil
}

// noAnswer says why no member has told what it permits.
func (g *Group) noAnswer(ctx context.Context, id string, waits []awaited) error {
	for _, w := range waits {
		if w.flight.over() && w.flight.err != nil {
			return w.flight.err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("key store %s, key %s: no token has said in time what it permits: %w", g.name, id, err)
	}
	return g.unavailable(id)
}
