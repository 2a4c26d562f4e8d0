package keystore

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// challenge is a text that one token has sealed and the other has to open.
type challenge struct {
	text, aad []byte
	sealed    Sealed
	digest    string // see Replicated.Digest
}

// copy copies one version.
func (r *replication) copy(ctx context.Context, k kek, c candidate) (Replicated, error) {
	wrapped, err := step(ctx, r.source, func(w *worker) ([]byte, error) { return r.wrap(w, k, c) })
	if err != nil {
		return Replicated{}, err
	}
	ch, err := r.challenge(ctx, c)
	if err != nil {
		return Replicated{}, err
	}
	_, err = step(ctx, r.target, func(w *worker) (struct{}, error) { return struct{}{}, r.unwrap(w, k, c, ch, wrapped) })
	return Replicated{Version: c.info.Number, Made: true, Disabled: c.info.Disabled, Digest: ch.digest}, err
}

// compare proves that the target's object h is the same key.
func (r *replication) compare(ctx context.Context, c candidate, h pkcs11.ObjectHandle) (Replicated, error) {
	ch, err := r.challenge(ctx, c)
	if err != nil {
		return Replicated{}, err
	}
	p, err := step(ctx, r.target, func(w *worker) (permissions, error) {
		p, err := w.permissions(h)
		if err != nil {
			return p, err
		}
		return p, w.proving(h, p, func(h pkcs11.ObjectHandle) error { return w.answer(h, ch) })
	})
	if errors.Is(err, ErrInvalidCiphertext) {
		err = fmt.Errorf("%w: %s in the tokens %s and %s", ErrKeysDiffer, r.name(c.info.Number), r.source.t.name, r.target.t.name)
	}
	return Replicated{Version: c.info.Number, Disabled: p.mark.disabled, Digest: ch.digest}, err
}

// wrap wraps a version in the source.
func (r *replication) wrap(w *worker, k kek, c candidate) ([]byte, error) {
	const wrappedLength = aes256KeyLength + 8 // RFC 5649
	wrapped, err := w.wrapKWP(k.source, c.handle)
	switch {
	case isCode(err, pkcs11.CKR_KEY_UNEXTRACTABLE):
		return nil, r.unextractable(c.info.Number)
	case err != nil:
		return nil, w.forbidden("C_WrapKey", "wrap the key by AES key wrap with padding", err)
	case len(wrapped) != wrappedLength:
		return nil, fmt.Errorf("token %s: %w: the key is wrapped in %d bytes, so it is none of 256 bits", w.t.name, ErrMaterialSpec, len(wrapped))
	}
	return wrapped, nil
}

// wrapKWP wraps by the first key wrap that the token lists and does. Should it not
// be that of RFC 5649, its length shows.
func (w *worker) wrapKWP(by, key pkcs11.ObjectHandle) (wrapped []byte, err error) {
	listed, err := w.keyWraps(WrapKWP)
	if err != nil {
		return nil, err
	}
	if len(listed) == 0 {
		return nil, w.t.noKeyWrap()
	}
	for _, way := range listed {
		if wrapped, err = w.t.module.ctx.WrapKey(w.session, way.mechanism(), by, key); !isLacking(err) {
			break
		}
	}
	return wrapped, err
}

// unwrapKWP unwraps by the first key wrap that the token lists and does.
func (w *worker) unwrapKWP(by pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (h pkcs11.ObjectHandle, err error) {
	listed, err := w.keyWraps(WrapKWP)
	if err != nil {
		return 0, err
	}
	if len(listed) == 0 {
		return 0, w.t.noKeyWrap()
	}
	for _, way := range listed {
		if h, err = w.t.module.ctx.UnwrapKey(w.session, way.mechanism(), by, wrapped, template); !isLacking(err) {
			break
		}
	}
	return h, err
}

// challenge has the source seal a random text under a version.
func (r *replication) challenge(ctx context.Context, c candidate) (challenge, error) {
	ch := challenge{text: make([]byte, 32), aad: []byte("hyok key replicate " + r.id)}
	_, _ = rand.Read(ch.text) // never fails
	return step(ctx, r.source, func(w *worker) (challenge, error) {
		own := ch
		err := w.proving(c.handle, c.permissions, func(h pkcs11.ObjectHandle) (err error) {
			if own.sealed, err = w.seal(h, own.text, own.aad); err == nil {
				own.digest, err = w.fingerprint(h)
			}
			return err
		})
		return own, err
	})
}

// answer checks that an object opens what the other token sealed.
func (w *worker) answer(h pkcs11.ObjectHandle, ch challenge) error {
	text, err := w.unseal(h, ch.sealed, ch.aad)
	if err != nil {
		return err
	}
	digest, err := w.fingerprint(h)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(text, ch.text) != 1 || ch.digest != "" && digest != "" && digest != ch.digest {
		return fmt.Errorf("token %s: %w: it opens to another text", w.t.name, ErrInvalidCiphertext)
	}
	return nil
}

// fingerprint returns Replicated.Digest of an object.
func (w *worker) fingerprint(h pkcs11.ObjectHandle) (string, error) {
	digest, err := w.digest(shape{family: familyAES, bytes: aes256KeyLength}, SpecAES256, product{handle: h})
	if isCode(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return "", nil
	}
	return hex.EncodeToString(digest), err
}

// proving runs a proof with an object that may encrypt and decrypt: h itself, or
// where that is disabled a copy that lives for the proof alone.
func (w *worker) proving(h pkcs11.ObjectHandle, p permissions, proof func(pkcs11.ObjectHandle) error) error {
	if p.encrypt && p.decrypt {
		return proof(h)
	}
	ctx := w.t.module.ctx
	twin, err := ctx.CopyObject(w.session, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
	})
	if err != nil {
		return w.forbidden("C_CopyObject", "prove a key that may not both encrypt and decrypt now: enable it, replicate it and disable it again", err)
	}
	return errors.Join(proof(twin), w.fail("C_DestroyObject", ctx.DestroyObject(w.session, twin)))
}

// unwrap makes the key in the target, if it answers the challenge.
func (r *replication) unwrap(w *worker, k kek, c candidate, ch challenge, wrapped []byte) error {
	m := replicaMark(c.permissions)
	usage := KeyUsage{Encrypt: c.permissions.encrypt, Decrypt: c.permissions.decrypt, Replicable: r.o.Replicable}
	template := aesTemplate(r.id, m, usage, true, w.t.profile.SessionCopies)
	check := func(h pkcs11.ObjectHandle) error {
		if err := w.answer(h, ch); err != nil {
			return fmt.Errorf("the copy in token %s does not prove to be the same key and was destroyed: %w", w.t.name, err)
		}
		return nil
	}
	produce := func(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
		h, err := w.unwrapKWP(k.target, wrapped, template)
		return h, r.notUnwrapped(w, err)
	}
	var h pkcs11.ObjectHandle
	var err error
	if w.t.profile.HalfKeys {
		h, err = w.makeWhole(template, check, produce)
	} else {
		h, err = w.makeProven(template, check, produce)
	}
	if err != nil {
		return err
	}
	return r.expectOne(w, c.info.Number, h)
}

// makeProven has produce make a session object, and the token key only if check
// approves of that.
func (w *worker) makeProven(template []*pkcs11.Attribute, check func(pkcs11.ObjectHandle) error, produce func([]*pkcs11.Attribute) (pkcs11.ObjectHandle, error)) (pkcs11.ObjectHandle, error) {
	trial, err := produce(shape{family: familyAES}.template(storage{}))
	if err != nil {
		return 0, err
	}
	err = errors.Join(check(trial), w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, trial)))
	if err != nil {
		return 0, err
	}
	return produce(template)
}

// notUnwrapped says what the target's refusal to unwrap a version means.
func (r *replication) notUnwrapped(w *worker, err error) error {
	if err == nil {
		return nil
	}
	if err := w.forbidden("C_UnwrapKey", "unwrap the key by AES key wrap with padding", err); errors.Is(err, ErrUnsupported) {
		return err
	}
	err = w.refused("C_UnwrapKey", err, ErrInvalidMaterial)
	if errors.Is(err, ErrInvalidMaterial) && r.o.WrappingKey != "" {
		err = fmt.Errorf("the keys labelled %s in the tokens %s and %s are not the same key: %w", printable(r.o.WrappingKey), r.source.t.name, r.target.t.name, err)
	}
	return err
}

// replicaMark returns the mark of a copy: the source's own, so that both tokens
// name the key alike. A key of other software becomes hyok's in the target, where
// its length is known from the mark alone.
func replicaMark(p permissions) mark {
	if p.marked && !p.mark.adopted {
		return p.mark
	}
	m := newMark(1)
	m.disabled, m.encrypt, m.decrypt = p.mark.disabled, p.mark.encrypt, p.mark.decrypt
	return m
}

// expectOne takes our copy away where another process has made one meanwhile.
func (r *replication) expectOne(w *worker, number uint32, ours pkcs11.ObjectHandle) error {
	found, err := w.versions(r.id)
	if err != nil {
		return fmt.Errorf("look whether another process made the same: %w", err)
	}
	twins := slices.DeleteFunc(found, func(o numbered) bool { return o.number != number })
	if len(twins) == 1 && twins[0].handle == ours {
		return nil
	}
	return errors.Join(
		fmt.Errorf("token %s: %w: another process made it at the same time; look at it and try again", w.t.name, ErrKeyExists),
		w.fail("C_DestroyObject", w.t.module.ctx.DestroyObject(w.session, ours)))
}
