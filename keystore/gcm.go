package keystore

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

const (
	ivSize  = 12
	tagSize = 16
	// ivBatch is how many IVs one C_GenerateRandom fetches.
	ivBatch = 128
	// sealWarning is half of the 2^32 encryptions that SP 800-38D (section 8.3)
	// allows under one key with random 96-bit IVs.
	sealWarning = 1 << 31
)

// Sealed is the output of an AES-GCM encryption.
type Sealed struct {
	IV         []byte // 12 bytes, or 16 from tokens that make such
	Ciphertext []byte // as long as the plaintext
	Tag        []byte // 16 bytes
}

// Token returns the name of the token that holds the key.
func (k *Key) Token() string { return k.token.name }

// ID returns the external key id.
func (k *Key) ID() string { return k.id }

// Newest returns the number of the version that new encryptions use.
func (k *Key) Newest() uint32 { return k.versions[len(k.versions)-1].number }

func (k *Key) version(number uint32) *version {
	for i := len(k.versions) - 1; i >= 0; i-- {
		if k.versions[i].number == number {
			return k.versions[i]
		}
	}
	return nil
}

// Encrypt seals plaintext with AES-256-GCM under one version of the key. The IV
// is fresh, from the token's generator. Errors: ErrKeyNotFound, ErrKeyDisabled,
// ErrKeyUsage, ErrUnsupported, ErrBusy, a *TokenError, or that of ctx.
func (k *Key) Encrypt(ctx context.Context, number uint32, plaintext, aad []byte) (Sealed, error) {
	var out Sealed
	err := k.use(ctx, number, func() operation {
		in, ad := ownCopies(plaintext, aad)
		return operation{
			run: func(w *worker, v *version) error {
				return w.withHandle(v, func(h pkcs11.ObjectHandle) error {
					sealed, err := w.seal(h, in, ad)
					if err == nil {
						out = sealed
					}
					return err
				})
			},
			wipe: func() { clear(in) },
		}
	})
	if err != nil {
		return Sealed{}, err
	}
	k.countSeal(number)
	return out, nil
}

// Decrypt opens what was sealed under one version of the key, by hyok or by
// anybody else. ErrInvalidCiphertext means that the ciphertext, the tag, the IV
// or the additional data is wrong and that the token is well; other errors are
// those of Encrypt.
func (k *Key) Decrypt(ctx context.Context, number uint32, sealed Sealed, aad []byte) ([]byte, error) {
	if len(sealed.Tag) != tagSize || len(sealed.IV) == 0 {
		return nil, fmt.Errorf("key %s: %w: it needs an IV and a tag of %d bytes", k.id, ErrInvalidCiphertext, tagSize)
	}
	var out opened
	text, ad := ownCopies(sealed.Ciphertext, aad)
	iv, tag := ownCopies(sealed.IV, sealed.Tag)
	own := Sealed{IV: iv, Ciphertext: text, Tag: tag}
	err := k.use(ctx, number, func() operation {
		return operation{run: func(w *worker, v *version) error {
			return w.withHandle(v, func(h pkcs11.ObjectHandle) error {
				plaintext, err := w.unseal(h, own, ad)
				if err == nil {
					out.put(plaintext)
				}
				return err
			})
		}}
	})
	if err != nil {
		out.discard() // the call may still come to it
		return nil, err
	}
	return out.take(), nil
}

// ownCopies copies both into one fresh array: a call that outlives its caller
// must not read the caller's memory.
func ownCopies(a, b []byte) (ownA, ownB []byte) {
	buf := make([]byte, 0, len(a)+len(b))
	buf = append(append(buf, a...), b...)
	return buf[:len(a):len(a)], buf[len(a):]
}

// operation is what use runs: run may run more than once, and wipe (nil: nothing
// to wipe) runs once, when run will not run any more.
type operation struct {
	run  func(*worker, *version) error
	wipe func()
}

// use runs an operation on a session with a version of the key. Should its
// handle name nothing any more, another operation is made for the one that has
// taken its place.
func (k *Key) use(ctx context.Context, number uint32, newOperation func() operation) error {
	v, err := k.lookUp(ctx, number)
	if err != nil {
		return err
	}
	const tries = 3
	for n := 1; ; n++ {
		denied, err := k.attempt(ctx, v, newOperation())
		switch {
		case err == nil:
			return nil
		case isHandleGone(err) && n < tries:
			if v, err = k.replacement(ctx, v); err != nil {
				return err
			}
		case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) && denied.mark.disabled:
			return fmt.Errorf("key %s in token %s: %w", k.id, k.token.name, ErrKeyDisabled)
		case isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
			return fmt.Errorf("key %s in token %s: %w", k.id, k.token.name, ErrKeyUsage)
		case isLacking(err):
			return fmt.Errorf("key %s: %w: %w", k.id, ErrUnsupported, err)
		default:
			return fmt.Errorf("key %s: %w", k.id, err)
		}
	}
}

// attempt runs op once. If the token does not permit it, denied is why.
func (k *Key) attempt(ctx context.Context, v *version, op operation) (denied permissions, err error) {
	if op.wipe == nil {
		op.wipe = func() {}
	}
	var read permissions
	err = k.token.doInLane(ctx, func(w *worker) error {
		p, err := w.attempt(k.id, v, op)
		read = p
		return err
	}, op.wipe)
	if isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
		denied = read // the call is over: nobody else writes to it
	}
	return denied, err
}

// A key that another process changes is for a moment half of one: SoftHSM2 writes
// its file anew, and answers CKR_KEY_TYPE_INCONSISTENT to whoever reads it then.
const (
	halfWrittenTries = 5
	halfWrittenPause = 2 * time.Millisecond
)

// attempt runs op and, if the token fails, looks at the key again: it may be
// half written, gone, or its permissions withdrawn, which p then shows.
func (w *worker) attempt(id string, v *version, op operation) (p permissions, err error) {
	if err := w.confirm(id, v); err != nil {
		return p, err
	}
	for try := 1; ; try++ {
		err = op.run(w, v)
		switch {
		case !isUnclear(err):
			return p, err
		case w.t.profile.HalfKeys && isCode(err, pkcs11.CKR_KEY_TYPE_INCONSISTENT) && try < halfWrittenTries:
			time.Sleep(halfWrittenPause)
		default:
			return w.meaning(err, id, v)
		}
	}
}

// lookUp returns a version of the key. One that another process has made since
// is searched for, as an unknown id is.
func (k *Key) lookUp(ctx context.Context, number uint32) (*version, error) {
	if v := k.version(number); v != nil {
		return v, nil
	}
	return k.reload(ctx, number, false)
}

// reload returns a version as a search finds it (see Token.refresh).
func (k *Key) reload(ctx context.Context, number uint32, force bool) (*version, error) {
	again, err := k.token.locate(ctx, k.id, number, force)
	switch {
	case errors.Is(err, ErrKeyNotFound):
		return nil, k.token.versionNotFound(k.id, number)
	case err != nil:
		return nil, err
	case again.ambiguous:
		return nil, fmt.Errorf("key %s in token %s: %w", k.id, k.token.name, ErrKeyAmbiguous)
	}
	return again.version(number), nil
}

// replacement returns the version that has taken the place of one whose handle
// names nothing any more: either the object was deleted, or the token has
// numbered its objects anew, as after a restart.
func (k *Key) replacement(ctx context.Context, gone *version) (*version, error) {
	k.token.forget(k.id, gone)
	return k.reload(ctx, gone.number, true)
}

func (t *Token) versionNotFound(id string, number uint32) error {
	return fmt.Errorf("version %d: %w", number, t.notFound(id))
}

// withHandle runs op with the session copy of v if there is one in force, and
// with the token object otherwise or if the copy turns out to be dead.
func (w *worker) withHandle(v *version, op func(pkcs11.ObjectHandle) error) error {
	v.uses.Add(1)
	if c := v.copy.Load(); c != nil && c.epoch == w.epoch && c.inForce(w.t.clock()) {
		err := op(c.handle)
		if !isHandleGone(err) && !isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
			return err
		}
		// Dead, or of another opinion than the key may be by now.
		v.copy.CompareAndSwap(c, nil)
	}
	return op(v.handle)
}

// countSeal warns once when a version nears the number of random IVs that its
// key can bear.
func (k *Key) countSeal(number uint32) {
	if v := k.version(number); v != nil && v.sealed.Add(1) == sealWarning {
		k.token.log.Warn("this process alone has made 2^31 encryptions under one key version, half of what random IVs allow: rotate the key",
			"key", k.id, "version", number)
	}
}

// seal encrypts with AES-GCM (PKCS#11 v2.40, section 2.12.3).
func (w *worker) seal(h pkcs11.ObjectHandle, plaintext, aad []byte) (Sealed, error) {
	var iv []byte
	switch w.t.profile.IV {
	case IVFromCaller:
		var err error
		if iv, err = w.nextIV(); err != nil {
			return Sealed{}, err
		}
	case IVWrittenBack:
		iv = make([]byte, ivSize)
	case IVAppended:
	}
	return w.sealWith(h, iv, plaintext, aad)
}

func (w *worker) sealWith(h pkcs11.ObjectHandle, iv, plaintext, aad []byte) (Sealed, error) {
	out, used, err := w.t.module.ctx.Encrypt(w.session, aesGCM(iv, aad), h, plaintext)
	if err != nil {
		return Sealed{}, w.fail("C_Encrypt", err)
	}
	if w.t.profile.IV == IVWrittenBack {
		iv = used
	}
	s, err := w.t.profile.split(out, len(plaintext), iv)
	if err != nil {
		return Sealed{}, w.fail("C_Encrypt", err)
	}
	return s, nil
}

func aesGCM(iv, aad []byte) cryptoki.Mechanism {
	return cryptoki.Mechanism{Type: pkcs11.CKM_AES_GCM, GCM: &cryptoki.GCM{IV: iv, AAD: aad}}
}

// split takes the output of C_Encrypt apart.
func (p Profile) split(out []byte, n int, iv []byte) (Sealed, error) {
	if len(out) < n+tagSize {
		return Sealed{}, fmt.Errorf("it returned %d bytes for %d bytes of plaintext: is %q the right profile?", len(out), n, p.Name)
	}
	body, rest := out[:n+tagSize], out[n+tagSize:]
	if p.IV == IVAppended {
		iv, rest = rest, nil
	}
	if len(rest) != 0 || len(iv) == 0 || p.IV != IVFromCaller && (len(iv) != 12 && len(iv) != 16 || isZero(iv)) {
		return Sealed{}, fmt.Errorf("it returned no IV of 12 or 16 bytes where the profile %q expects it", p.Name)
	}
	if p.Tag == TagBefore {
		return Sealed{IV: iv, Tag: body[:tagSize:tagSize], Ciphertext: body[tagSize:]}, nil
	}
	return Sealed{IV: iv, Ciphertext: body[:n:n], Tag: body[n:]}, nil
}

func isZero(b []byte) bool {
	var or byte
	for _, x := range b {
		or |= x
	}
	return or == 0
}

// nextIV returns 96 random bits of the token's generator, fetched in batches.
func (w *worker) nextIV() ([]byte, error) {
	if len(w.ivs) < ivSize {
		random, err := w.t.module.ctx.GenerateRandom(w.session, ivBatch*ivSize)
		if err != nil {
			return nil, w.fail("C_GenerateRandom", err)
		}
		if len(random) != ivBatch*ivSize {
			return nil, w.fail("C_GenerateRandom", fmt.Errorf("it returned %d bytes instead of %d", len(random), ivBatch*ivSize))
		}
		w.ivs = random
	}
	iv := w.ivs[:ivSize:ivSize]
	w.ivs = w.ivs[ivSize:]
	return iv, nil
}

// unseal decrypts with AES-GCM and tells a wrong tag from a sick token.
func (w *worker) unseal(h pkcs11.ObjectHandle, s Sealed, aad []byte) ([]byte, error) {
	plaintext, err := w.unsealOnce(h, s, aad)
	switch {
	case err == nil:
		return plaintext, nil
	case isCode(err, w.t.profile.BadTag...):
		return nil, badCiphertext(err)
	case isCode(err, w.t.profile.Unclear...) && !failedAt(err, "C_DecryptInit"): // which has not seen the ciphertext
		return w.explain(h, s, aad, err)
	}
	return nil, err
}

// failedAt reports whether a function of PKCS#11 is the one that failed.
func failedAt(err error, call string) bool {
	var failure *TokenError
	return errors.As(err, &failure) && failure.Call == call
}

func badCiphertext(err error) error {
	// %v: the return value must no longer count as the token's failure.
	return fmt.Errorf("%w (%v)", ErrInvalidCiphertext, err)
}

func (w *worker) unsealOnce(h pkcs11.ObjectHandle, s Sealed, aad []byte) ([]byte, error) {
	in := make([]byte, 0, len(s.Ciphertext)+tagSize)
	if w.t.profile.Tag == TagBefore {
		in = append(append(in, s.Tag...), s.Ciphertext...)
	} else {
		in = append(append(in, s.Ciphertext...), s.Tag...)
	}
	plaintext, err := w.t.module.ctx.Decrypt(w.session, aesGCM(s.IV, aad), h, in)
	if err != nil {
		return nil, w.fail("C_Decrypt", err)
	}
	if len(plaintext) != len(s.Ciphertext) {
		return nil, w.fail("C_Decrypt", fmt.Errorf("it returned %d bytes for %d bytes of ciphertext", len(plaintext), len(s.Ciphertext)))
	}
	return plaintext, nil
}

// explain finds out what an unclear failure of C_Decrypt meant.
//
// Where the token takes our IVs and the key may encrypt, the token is asked for
// the tag that this ciphertext would have under this key: AES-GCM is a stream
// cipher, so encrypting the ciphertext yields the plaintext and encrypting that
// yields the ciphertext and its true tag. Another tag proves the ciphertext
// wrong; the same one proves the token sick. Otherwise the token has to show
// between two failures with this ciphertext that it opens what it sealed
// itself.
func (w *worker) explain(h pkcs11.ObjectHandle, s Sealed, aad []byte, unclear error) ([]byte, error) {
	if w.t.profile.IV == IVFromCaller {
		tag, err := w.trueTag(h, s, aad)
		switch {
		case err == nil && subtle.ConstantTimeCompare(tag, s.Tag) == 0:
			return nil, badCiphertext(unclear)
		case err == nil:
			return w.unsealOnce(h, s, aad) // the ciphertext is good: a second chance, then it is the token's failure
		case !failedAt(err, "C_EncryptInit"): // else the key does not encrypt, by whatever code
			return nil, unclear
		}
	}
	if err := w.selfTest(); err != nil {
		return nil, unclear
	}
	plaintext, err := w.unsealOnce(h, s, aad)
	if err == nil {
		return plaintext, nil
	}
	if !isCode(err, w.t.profile.Unclear...) || w.selfTest() != nil {
		return nil, err
	}
	return nil, badCiphertext(unclear)
}

// trueTag returns the tag of the ciphertext under the key. The plaintext in
// between is unauthenticated: it is wiped and goes nowhere.
func (w *worker) trueTag(h pkcs11.ObjectHandle, s Sealed, aad []byte) ([]byte, error) {
	plain, err := w.sealWith(h, s.IV, s.Ciphertext, nil)
	if err != nil {
		return nil, err
	}
	defer clear(plain.Ciphertext)
	again, err := w.sealWith(h, s.IV, plain.Ciphertext, aad)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(again.Ciphertext, s.Ciphertext) == 0 {
		return nil, w.fail("C_Encrypt", errors.New("it does not repeat itself"))
	}
	// Once more: a tag that was damaged on its way must not condemn the ciphertext.
	third, err := w.sealWith(h, s.IV, plain.Ciphertext, aad)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(again.Tag, third.Tag) == 0 {
		return nil, w.fail("C_Encrypt", errors.New("it does not repeat itself"))
	}
	return again.Tag, nil
}
