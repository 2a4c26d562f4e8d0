package keystore

import "context"

// What a group of tokens has to know of each of them at every request, without a
// call of the module and without a search.

// Known returns the key with this id as the index has it now, nil if it is not
// there. A key may be new or gone without the index knowing yet. The error is
// ErrKeyAmbiguous or nil.
func (t *Token) Known(id string) (*Key, error) {
	k, ok := t.index.load()[id]
	switch {
	case !ok || isReserved(id):
		return nil, nil
	case k.ambiguous:
		return nil, t.ambiguous(id)
	}
	return k, nil
}

// KnownIDs returns the ids of the external keys in the index, in no order.
func (t *Token) KnownIDs() []string {
	keys := t.index.load()
	ids := make([]string, 0, len(keys))
	for id := range keys {
		if !isReserved(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Losses returns how often the token has lost all its sessions, as far as
// noticed. What was found out about its keys before holds no longer after one:
// another token may have taken its place.
func (t *Token) Losses() uint64 { return t.sessions.losses.Load() }

// NewestUpTo returns the newest version whose number is at most limit, 0 if there
// is none.
func (k *Key) NewestUpTo(limit uint32) uint32 {
	for i := len(k.versions) - 1; i >= 0; i-- {
		if k.versions[i].number <= limit {
			return k.versions[i].number
		}
	}
	return 0
}

// Object names the token object of a version of a key. Two are equal only if the
// object was the same all the time in between.
type Object struct{ version *version }

// Object returns what the index names a version by; the zero Object if it is not
// in the index.
func (k *Key) Object(number uint32) Object { return Object{k.version(number)} }

// VersionPermissions is Permissions for one version of the key. That the version
// is not there any more is ErrKeyNotFound.
func (k *Key) VersionPermissions(ctx context.Context, number uint32) (usage KeyUsage, disabled bool, err error) {
	var p permissions
	err = k.use(ctx, number, func() operation {
		// The token object itself: a copy does not know what happened since.
		return operation{run: func(w *worker, v *version) error {
			read, err := w.permissions(v.handle)
			if err == nil {
				p = read
			}
			return err
		}}
	})
	if err != nil {
		return KeyUsage{}, false, err // the call may still write to p
	}
	return KeyUsage{Encrypt: p.encrypt, Decrypt: p.decrypt}, p.mark.disabled, nil
}
