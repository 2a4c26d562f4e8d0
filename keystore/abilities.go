package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Ability is what a token was seen to do, or not to do, with keys that were made for
// the trial.
type Ability struct {
	Spec Spec
	Use  Use // 0: what a secret key is for
	// Wrapped is true where the key was used after it was wrapped and unwrapped, else
	// it has to be an object of the token.
	Wrapped bool
	// Here is true where a part of the work is done outside the token: the padding of
	// RSAES-OAEP.
	Here bool
	// As names a spec that stands for this one, which takes long to make: this one is
	// only within the sizes that the token tells.
	As  Spec
	Err error // nil: the token does it
}

// ImportAbility is what a token was seen to do with key material that comes encrypted.
type ImportAbility struct {
	Algorithm ImportAlgorithm
	Inside    bool  // a secret key is never outside of the token
	Err       error // nil: the token does it
}

// Abilities is what a token can do for hyok.
type Abilities struct {
	External error // of external keys, nil: AES-GCM works
	KeyWrap  error // nil: keys are wrapped by Wrap
	Wrap     KeyWrap
	Keys     []Ability // in the order of the specs
	Imports  []ImportAbility
}

// Abilities tries what the token does, by objects of a session that are destroyed
// again. What a token lists is only where to begin. The error is that of a token which
// fails.
func (t *Token) Abilities(ctx context.Context) (Abilities, error) {
	var a Abilities
	steps := []func(*worker, *Abilities) error{(*worker).tryExternal, (*worker).tryWrapping}
	for _, spec := range []Spec{
		SpecAES256, SpecRSA2048, SpecRSA3072, SpecRSA4096, SpecP256, SpecP384, SpecP521, SpecSecp256k1, SpecEd25519,
		SpecHMAC224, SpecHMAC256, SpecHMAC384, SpecHMAC512,
	} {
		steps = append(steps, func(w *worker, a *Abilities) error { return w.trySpec(a, spec) })
	}
	for _, step := range append(steps, (*worker).tryImports) {
		out := a
		err := t.do(ctx, func(w *worker) error {
			own := a
			err := step(w, &own)
			if err == nil {
				out = own
			}
			return err
		})
		if err != nil {
			return Abilities{}, err // the call may still write to out
		}
		a = out
	}
	return a, nil
}

// judged returns a verdict: a token that fails is an error, one that refuses is not.
func judged(err error) (verdict, failure error) {
	if isSick(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return err, nil
}

// discard destroys session objects of a trial.
func (w *worker) discard(handles ...pkcs11.ObjectHandle) {
	for _, h := range handles {
		if err := w.t.module.ctx.DestroyObject(w.session, h); err != nil && !isHandleGone(err) {
			w.t.log.Warn("a key of a trial could not be destroyed; it ends with its session", "error", err)
		}
	}
}

func (w *worker) tryExternal(a *Abilities) (err error) {
	h, err := w.generate(aesTemplate(probeLabel, newMark(1), KeyUsage{Encrypt: true, Decrypt: true}, false, false))
	if err == nil {
		defer w.discard(h)
		err = w.roundTrip(h)
	}
	a.External, err = judged(err)
	return err
}

// sessionRoot makes a key as the root key of a vault, which lives as the session.
func (w *worker) sessionRoot() (pkcs11.ObjectHandle, error) {
	template := append(shape{family: familyAES}.identity(), storage{}.attributes()...)
	template = append(template, only(pkcs11.CKA_WRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)...)
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, aes256KeyLength))
	h, err := w.t.module.ctx.GenerateKey(w.session, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), template)
	return h, w.fail("C_GenerateKey", err)
}

// tryWrapping finds the key wrap.
func (w *worker) tryWrapping(a *Abilities) error {
	s := shape{family: familyAES, bytes: aes256KeyLength}
	p, err := w.generateSpec(s, storage{extractable: true})
	if err == nil {
		defer w.discard(p.handle)
		var h pkcs11.ObjectHandle
		if h, a.Wrap, err = w.wrapAndUnwrap(SpecAES256, s, p); err == nil {
			w.discard(h)
		}
	}
	a.KeyWrap, err = judged(err)
	return err
}

// wrapAndUnwrap wraps a key under one that is made for this, and returns what it is
// when it is unwrapped.
func (w *worker) wrapAndUnwrap(spec Spec, s shape, p product) (pkcs11.ObjectHandle, KeyWrap, error) {
	root, err := w.sessionRoot()
	if err != nil {
		return 0, "", err
	}
	defer w.discard(root)
	listed, err := w.keyWraps(WrapKWP)
	if err == nil && len(listed) == 0 {
		err = w.t.noKeyWrap()
	}
	if err != nil {
		return 0, "", err
	}
	var refused error
	for _, way := range listed {
		m := &Material{Spec: spec, Public: p.public, Wrap: way}
		m.Wrapped, err = w.t.module.ctx.WrapKey(w.session, way.mechanism(), root, p.handle)
		if err = w.fail("C_WrapKey", err); err == nil {
			var h pkcs11.ObjectHandle
			if h, err = w.unwrapBy(way, root, m, s); err == nil {
				return h, way, nil
			}
		}
		refused = errors.Join(refused, fmt.Errorf("%s: %w", way.Mechanism(), err))
	}
	return 0, "", refused
}

// trySpec makes a key and has it do all that it can be for.
func (w *worker) trySpec(a *Abilities, spec Spec) error {
	if spec == SpecRSA3072 || spec == SpecRSA4096 {
		return w.tryLargeRSA(a, spec)
	}
	s, err := spec.shape()
	if err != nil {
		return err
	}
	p, err := w.generateSpec(s, storage{extractable: true})
	if isTemplateRefused(err) {
		p, err = w.generateSpec(s, storage{})
	}
	if err == nil {
		defer w.discard(p.handle)
	}
	verdict, err := judged(err)
	if err != nil {
		return err
	}
	h, wrapped := p.handle, false
	if verdict == nil && s.family != familyEdwards {
		if unwrapped, _, err := w.wrapAndUnwrap(spec, s, p); err == nil {
			defer w.discard(unwrapped)
			h, wrapped = unwrapped, true
		} else if _, err = judged(err); err != nil {
			return err
		}
	}
	uses := s.uses()
	if s.secret() {
		uses = []Use{0}
	}
	for _, u := range uses {
		one := Ability{Spec: spec, Use: u, Wrapped: wrapped, Err: verdict}
		if verdict == nil {
			if one.Err, err = judged(w.tryUse(&one, s, p.public, h)); err != nil {
				return err
			}
		}
		a.Keys = append(a.Keys, one)
	}
	return nil
}

// tryUse has a key do one thing.
func (w *worker) tryUse(one *Ability, s shape, public []byte, h pkcs11.ObjectHandle) error {
	if !s.secret() {
		err := w.provePair(s, public, one.Use, h)
		if err == nil && one.Use == UseDecrypt {
			key, keyErr := decodeRSA(public)
			if keyErr != nil {
				return keyErr
			}
			way, _ := w.oaepWay(h, key, crypto.SHA256) // it is known by now
			one.Here = way == oaepHere
		}
		return err
	}
	if _, err := w.digest(s, one.Spec, product{handle: h}); err != nil || s.family != familyAES {
		return err
	}
	return w.roundTrip(h)
}

// tryLargeRSA has the trials of SpecRSA2048 stand for a spec that takes long to make,
// if its size is one that the token tells.
func (w *worker) tryLargeRSA(a *Abilities, spec Spec) error {
	s, err := spec.shape()
	if err != nil {
		return err
	}
	info, err := w.t.module.ctx.GetMechanismInfo(uint(w.t.place.slot.Load()), pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN)
	if err == nil && info.MaxKeySize != 0 && info.MaxKeySize < uint(8*s.bytes) {
		err = fmt.Errorf("%w: its RSA keys have at most %d bits", ErrUnsupported, info.MaxKeySize)
	}
	verdict, err := judged(err)
	if err != nil {
		return err
	}
	for _, one := range a.Keys {
		if one.Spec == SpecRSA2048 {
			one.Spec, one.As = spec, SpecRSA2048
			if verdict != nil {
				one.Err = verdict
			}
			a.Keys = append(a.Keys, one)
		}
	}
	return nil
}

// tryImports has the token unwrap and decrypt what was encrypted for this.
func (w *worker) tryImports(a *Abilities) error {
	s, err := SpecRSA2048.shape()
	if err != nil {
		return err
	}
	p, err := w.generateSpec(s, storage{})
	if err == nil {
		defer w.discard(p.handle)
	}
	verdict, err := judged(err)
	if err != nil {
		return err
	}
	for _, algorithm := range []ImportAlgorithm{ImportOAEPSHA1, ImportOAEPSHA256, ImportKeyWrapSHA1, ImportKeyWrapSHA256} {
		one := ImportAbility{Algorithm: algorithm, Err: verdict}
		if verdict == nil {
			if one.Err, err = judged(w.tryImport(&one, p)); err != nil {
				return err
			}
		}
		a.Imports = append(a.Imports, one)
	}
	return nil
}

func (w *worker) tryImport(one *ImportAbility, p product) error {
	hash, twoSteps, err := one.Algorithm.parts()
	if err != nil {
		return err
	}
	t := transport{hash: hash, twoSteps: twoSteps}
	if t.public, err = decodeRSA(p.public); err != nil {
		return err
	}
	if one.Inside, err = w.unwrapsOAEP(p.handle, t.public, hash); err != nil {
		return err
	}
	if twoSteps && one.Inside {
		way, err := w.unwrapsKWP(t, p.handle)
		if err != nil {
			return err
		}
		one.Inside = way != nil
	}
	_, err = w.oaepWay(p.handle, t.public, hash)
	return err
}
