package engine

import (
	"log/slog"
	"sync/atomic"
)

// Random IVs of 96 bits bear 2^32 encryptions under one key material (SP
// 800-38D, section 8.3). AWS KMS derives a key for each and has no such limit, so
// that users do not look for one: it is counted here, across restarts, and whoever
// reads the log is told to rotate in time.
const (
	mostEncryptions     = 1 << 32
	firstWarning        = mostEncryptions / 2
	stepBetweenWarnings = mostEncryptions / 4
)

// encryptions counts those under one key material.
type encryptions struct {
	material string // KeyMaterialId
	n        atomic.Uint64
}

// countEncryption counts one under a key material and returns how many there were.
// Counting begins anew with another material: what is still encrypted under the
// former one at the time of a rotation is of no weight.
func (u *usage) countEncryption(material string) uint64 {
	for {
		e := u.encryptions.Load()
		if e != nil && e.material == material {
			return e.n.Add(1)
		}
		u.encryptions.CompareAndSwap(e, &encryptions{material: material})
	}
}

// withCount returns a copy of the last use with the present count, to be stored.
func (u *usage) withCount(last *lastUsage) *lastUsage {
	counted := *last
	if e := u.encryptions.Load(); e != nil {
		counted.Material, counted.Encryptions = e.material, e.n.Load()
	}
	return &counted
}

// restore takes over what was stored.
func (u *usage) restore(last *lastUsage) {
	u.last.Store(last)
	u.stored.Store(last)
	if last.Material != "" {
		e := &encryptions{material: last.Material}
		e.n.Store(last.Encryptions)
		u.encryptions.Store(e)
	}
}

// noteEncryption counts an encryption under a key's material, and warns now and
// then once it is time to rotate it.
func (e *Engine) noteEncryption(k *key, material string) {
	n := k.used.countEncryption(material)
	if n < firstWarning || n%stepBetweenWarnings != 0 {
		return
	}
	level := slog.LevelWarn
	if n >= mostEncryptions {
		level = slog.LevelError
	}
	e.log.Log(e.background, level, "a key material nears, or is beyond, the 2^32 encryptions that random IVs bear: rotate the key",
		"key", k.arn(), "material", material, "encryptions", n)
}
