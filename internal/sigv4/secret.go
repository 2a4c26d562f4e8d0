package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// cachedKeys is how many signing keys a secret keeps: one in use, one for the
// change of the day, and room for callers in other Regions.
const cachedKeys = 4

// redacted stands for a secret in every output.
const redacted = "[secret access key]"

// Scope is the credential scope of a signature, without its constant end.
type Scope struct {
	Date    string // YYYYMMDD in UTC
	Region  string
	Service string
}

// Secret is a secret access key with the signing keys last derived from it. It
// is safe for concurrent use and must not be copied. No way of formatting it
// reveals anything.
type Secret struct {
	seed []byte // never written after NewSecret

	// keys points to an immutable list, newest first, of at most cachedKeys.
	keys atomic.Pointer[[]*signingKey]
}

// NewSecret makes a Secret of a secret access key.
func NewSecret(secretAccessKey string) *Secret {
	return &Secret{seed: []byte("AWS4" + secretAccessKey)}
}

// Format writes a placeholder for every verb.
func (*Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns a placeholder.
func (*Secret) String() string { return redacted }

// GoString returns a placeholder.
func (*Secret) GoString() string { return redacted }

// LogValue returns a placeholder.
func (*Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder.
func (*Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// key returns the signing key for a scope, from the cache if it is there.
//
// A key enters the cache whether or not the signature then turns out right: if
// it depended on that, the time would tell an existing access key id from an
// unknown one. The price is that a stranger can make us derive keys, which
// costs about what verifying does.
func (s *Secret) key(scope Scope) *signingKey {
	cached := s.keys.Load()
	if cached != nil {
		for _, k := range *cached {
			if k.scope == scope {
				return k
			}
		}
	}
	k := s.derive(scope)
	list := []*signingKey{k}
	if cached != nil {
		list = append(list, (*cached)[:min(len(*cached), cachedKeys-1)]...)
	}
	// Whoever loses the race derives again next time.
	s.keys.CompareAndSwap(cached, &list)
	return k
}

func (s *Secret) derive(scope Scope) *signingKey {
	// The cached key outlives the request whose header the scope is cut from.
	scope = cloneScope(scope)
	key := s.seed
	for _, part := range []string{scope.Date, scope.Region, scope.Service, terminator} {
		mac := hmac.New(sha256.New, key)
		_, _ = io.WriteString(mac, part) // a hash never fails
		key = mac.Sum(nil)
	}
	return &signingKey{scope: scope, key: key}
}

// signingKey is the key of one scope with idle workspaces for its use.
type signingKey struct {
	scope Scope
	key   []byte
	idle  sync.Pool // of *workspace
}

// workspace is what computing one signature needs, kept because an HMAC that is
// reset, unlike a new one, has the state of its key ready, and needs no memory.
type workspace struct {
	mac hash.Hash
	buf []byte
}

// maxIdleBuffer bounds the memory that an idle workspace holds, in bytes.
const maxIdleBuffer = 8 << 10

func (k *signingKey) workspace() *workspace {
	if w, ok := k.idle.Get().(*workspace); ok {
		w.mac.Reset()
		return w
	}
	return &workspace{mac: hmac.New(sha256.New, k.key), buf: make([]byte, 0, 1<<10)}
}

func (k *signingKey) release(w *workspace) {
	if cap(w.buf) <= maxIdleBuffer {
		k.idle.Put(w)
	}
}

func cloneScope(s Scope) Scope {
	return Scope{strings.Clone(s.Date), strings.Clone(s.Region), strings.Clone(s.Service)}
}
