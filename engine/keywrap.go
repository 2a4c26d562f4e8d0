package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// wrapping is a record that says that there is, or was, material which was wrapped
// otherwise than hyok once wrapped all. A version that does not know such records
// refuses the store, instead of taking the material for damaged.
type wrapping struct {
	Wrap keystore.KeyWrap `json:"w"`
}

// noteWrap puts the record that belongs to new material into the batch of the
// material, unless it is stored.
func (e *Engine) noteWrap(b *batch, m *keystore.Material) {
	if m.Wrap == keystore.WrapPad {
		return
	}
	e.state.mu.RLock()
	stored := e.state.wraps[m.Wrap]
	e.state.mu.RUnlock()
	if !stored {
		w := &wrapping{m.Wrap}
		b.put(kindWrap, string(m.Wrap), w, func(s *state) { s.wraps[w.Wrap] = true })
	}
}

func restoreWrap(r store.Record, s *state) (func(), error) {
	var known error
	put, err := restore(r, func(w *wrapping) { s.wraps[w.Wrap] = true })
	if !keystore.KeyWrap(r.ID).Known() {
		known = fmt.Errorf("the metadata store has key material that was wrapped by %q, which is unknown: was it written by a newer hyok?", r.ID)
	}
	return put, errors.Join(err, known)
}

// checkWraps refuses a token that cannot open what the store has, as another make's
// may be, and warns of one that wraps nothing. That the token fails, or that its root
// key is gone, is for those to tell who need it.
func (e *Engine) checkWraps(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	for _, m := range []*keystore.Material{&e.meta.Secrets, &e.meta.Digests} {
		err := e.vault.Opens(ctx, m)
		if errors.Is(err, keystore.ErrUnsupported) {
			return fmt.Errorf("the token cannot open the key material of this KMS; was its database moved from a token of another make? %w", err)
		} else if errors.Is(err, keystore.ErrWrappedKey) {
			e.log.Error("key material of this KMS does not open under the root key in its token", "material", m.ID, "error", err)
		}
	}
	if err := e.vault.CheckWrapping(ctx); errors.Is(err, keystore.ErrUnsupported) {
		e.log.Warn("the token wraps no keys, so that each key of this KMS is an object in the token", "error", err)
	}
	return nil
}

// usesOf returns what a key's material has to prove to be of use for.
func usesOf(k *key) []keystore.Use {
	sp, _ := specOf(k.Spec)
	if !sp.isPair() {
		return nil
	}
	switch k.Usage {
	case types.KeyUsageTypeEncryptDecrypt:
		return []keystore.Use{keystore.UseDecrypt}
	case types.KeyUsageTypeKeyAgreement:
		return []keystore.Use{keystore.UseAgree}
	}
	return []keystore.Use{keystore.UseSign}
}
