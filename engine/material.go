package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// generate makes key material for k in its token and returns it with the intent
// to remove in the batch that makes it part of a key. done must be called when
// that batch was committed or given up.
func (e *Engine) generate(ctx context.Context, k *key, b *batch) (m material, undo func(), err error) {
	sp, _ := specOf(k.Spec)
	if isSlow(sp.material) {
		made, undo, err := e.materialOf(ctx, pairKind{sp.material, usesOf(k)[0]}, b)
		if err != nil {
			return m, nil, fmt.Errorf("make a key pair: %w", err)
		}
		return material{ID: materialID(k.ID, made), Vault: &made}, undo, nil
	}
	v, err := e.vaultOf(k)
	if err != nil {
		return m, nil, err
	}
	id := uuid.NewString()
	i, resident, err := e.intentFor(ctx, k, id, v, sp.material)
	if err != nil {
		return m, nil, err
	}
	if resident {
		if err := e.intend(ctx, i); err != nil {
			return m, nil, err
		}
		b.dropIntent(i)
	}
	undo = func() { e.undo(ctx, v, i, resident) }
	made, err := e.generateIn(ctx, v, k, id, sp.material)
	if err != nil {
		undo()
		return m, nil, fmt.Errorf("make key material: %w", err)
	}
	e.noteWrap(b, &made)
	return material{ID: materialID(k.ID, made), Vault: &made}, undo, nil
}

func (e *Engine) generateIn(ctx context.Context, v *keystore.Vault, k *key, id string, s keystore.Spec) (keystore.Material, error) {
	if k.StoreID != "" && k.XksKeyID == "" {
		return v.GenerateResident(ctx, id, s) // as an AWS CloudHSM key store is meant: the material is in the customer's token
	}
	return v.Generate(ctx, id, s, usesOf(k)...)
}

// intentFor returns the intent to store before material of k is made, and
// whether it is needed: material that is wrapped leaves nothing in the token.
func (e *Engine) intentFor(ctx context.Context, k *key, id string, v *keystore.Vault, s keystore.Spec) (i intent, needed bool, err error) {
	i = intent{Material: id, Spec: s, Cluster: e.clusterOf(k)}
	if i.Cluster != "" {
		return i, true, nil
	}
	wraps, err := v.Wraps(ctx, s)
	return i, !wraps, err
}

// intendMain stores an intent for material that is to be made in the main token,
// where that is needed; see generate for undo and the batch.
func (e *Engine) intendMain(ctx context.Context, i intent, b *batch) (undo func(), err error) {
	wraps := false // an intent costs less than to find out by an RSA pair
	if !isSlow(i.Spec) {
		if wraps, err = e.vault.Wraps(ctx, i.Spec); err != nil {
			return nil, err
		}
	}
	if !wraps {
		if err := e.intend(ctx, i); err != nil {
			return nil, err
		}
		b.dropIntent(i)
	}
	return func() { e.undo(ctx, e.vault, i, !wraps) }, nil
}

// generateOwn makes key material that is no KMS key's in the main token; see
// generate for what it returns. To store an intent costs less than to find out
// whether it is needed.
func (e *Engine) generateOwn(ctx context.Context, b *batch, id string, s keystore.Spec, uses ...keystore.Use) (made keystore.Material, undo func(), err error) {
	i := intent{Material: id, Spec: s}
	if err := e.intend(ctx, i); err != nil {
		return made, nil, err
	}
	b.dropIntent(i)
	undo = func() { e.undo(ctx, e.vault, i, true) }
	if made, err = e.vault.Generate(ctx, id, s, uses...); err != nil {
		undo()
	}
	e.noteWrap(b, &made)
	return made, undo, err
}

// intend stores an intent.
func (e *Engine) intend(ctx context.Context, i intent) error {
	b := new(batch)
	b.putIntent(i)
	return e.commit(ctx, b)
}

// commitMaterial is commit for a batch that makes new material part of keys. undo
// takes the material away again, unless the batch may be durable: then what the
// store has decides at the next start.
func (e *Engine) commitMaterial(ctx context.Context, b *batch, undo func()) error {
	err := e.commit(ctx, b)
	if err != nil && !errors.Is(err, store.ErrUnknownOutcome) {
		undo()
	}
	return err
}

// undo takes material away again whose key was not committed. If that fails, or
// who asked for the key waits no more, the worker does it.
func (e *Engine) undo(ctx context.Context, v *keystore.Vault, i intent, resident bool) {
	if !resident {
		return
	}
	if ctx.Err() != nil {
		e.leave(i)
		return
	}
	if err := e.finish(context.WithoutCancel(ctx), v, i); err != nil {
		e.log.Error("key material of a key that was not made is still in the token; it is tried again", "material", i.Material, "error", err)
		e.leave(i)
	}
}

// materialID is the KeyMaterialId of material of a key: equal for equal material
// of related keys, and telling nothing of the material.
func materialID(keyID string, m keystore.Material) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "hyok key material\x00%s\x00", keyID)
	_, _ = h.Write(m.Digest)
	return hex.EncodeToString(h.Sum(nil))
}
