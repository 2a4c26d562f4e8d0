package keystore

import "context"

// Forget takes all unwrapped keys out of the vault's cache and destroys them, as if
// their session had ended.
func (v *Vault) Forget(ctx context.Context) error {
	v.cache.mu.Lock()
	for _, e := range v.cache.keys {
		v.cache.remove(e)
	}
	v.cache.mu.Unlock()
	return v.t.do(ctx, func(w *worker) error {
		v.cache.destroyPending(w)
		return nil
	})
}
