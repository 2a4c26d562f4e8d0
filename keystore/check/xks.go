package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// checkXKS does with external keys what the XKS proxy does.
func (r *runner) checkXKS(ctx context.Context) {
	step := func(id, title string, try func(context.Context) (string, error)) bool {
		return r.step(ctx, XKS, id, title, try)
	}
	if !step("create", "make a key that never leaves the token", r.createKey) ||
		!step("encrypt", "encrypt and decrypt, with additional data, up to 64 KiB", r.encrypt) {
		return
	}
	step("known-key", "AES-GCM as another implementation computes it", r.knownKey)
	step("iv", "IVs differ", r.freshIVs)
	step("tag", "wrong ciphertexts, tags, IVs and additional data are told from a sick token", r.wrongTag)
	step("rotate", "a new version of the key, and the old one still decrypts", r.rotate)
	step("latency", "the time of an encryption", r.latency)
	step("found", "a key that another process makes is found at once", r.foundKey)
	step("disable", "a key that another process disables stops within a second", r.disableKey)
	step("enable", "and works again once it is enabled", r.enableKey)
	step("destroy", "a key that another process destroys stops within a second", r.destroyKey)
	step("sessions", "service goes on after the token has closed all sessions", r.loseSessions)
}

const xksKey = "key"

func (r *runner) createKey(ctx context.Context) (string, error) {
	if err := r.token.GenerateKey(ctx, xksKey, both); err != nil {
		return "", err
	}
	info, err := r.token.Describe(ctx, xksKey)
	if err != nil {
		return "", err
	}
	v := info.Newest()
	if v.Extractable || !v.Sensitive {
		return "", errors.New("the token says that the key may leave it: CKA_SENSITIVE is false or CKA_EXTRACTABLE true, other than was asked for")
	}
	return "", nil
}

func (r *runner) encrypt(ctx context.Context) (string, error) {
	for _, size := range []int{1, 16, 32, 4096, 65536} {
		for _, aad := range [][]byte{nil, []byte("aad"), bytes.Repeat([]byte{7}, 8192)} {
			if _, err := r.roundTrip(ctx, xksKey, bytes.Repeat([]byte{1}, size), aad); err != nil {
				return "", fmt.Errorf("%d bytes with %d of additional data: %w", size, len(aad), err)
			}
		}
	}
	return "", nil
}

func (r *runner) freshIVs(ctx context.Context) (string, error) {
	const times = 256 // more than are drawn from the generator at once
	seen := map[string]bool{}
	for range times {
		s, err := r.seal(ctx, xksKey)
		if err != nil {
			return "", err
		}
		if seen[string(s.IV)] {
			return "", errors.New("an IV came twice")
		}
		seen[string(s.IV)] = true
	}
	return fmt.Sprintf("%d encryptions", times), nil
}

var (
	sample    = []byte("plaintext of a check")
	sampleAAD = []byte("additional data of a check")
)

func (r *runner) seal(ctx context.Context, id string) (keystore.Sealed, error) {
	k, err := r.token.Find(ctx, id)
	if err != nil {
		return keystore.Sealed{}, err
	}
	return k.Encrypt(ctx, k.Newest(), sample, sampleAAD)
}

func (r *runner) unseal(ctx context.Context, id string, version uint32, s keystore.Sealed, aad []byte) ([]byte, error) {
	k, err := r.token.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	return k.Decrypt(ctx, version, s, aad)
}

func (r *runner) wrongTag(ctx context.Context) (string, error) {
	good, err := r.seal(ctx, xksKey)
	if err != nil {
		return "", err
	}
	flipped := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[0] ^= 1
		return b
	}
	for _, bad := range []struct {
		name   string
		sealed keystore.Sealed
		aad    []byte
	}{
		{"tag", keystore.Sealed{IV: good.IV, Ciphertext: good.Ciphertext, Tag: flipped(good.Tag)}, sampleAAD},
		{"ciphertext", keystore.Sealed{IV: good.IV, Ciphertext: flipped(good.Ciphertext), Tag: good.Tag}, sampleAAD},
		{"IV", keystore.Sealed{IV: flipped(good.IV), Ciphertext: good.Ciphertext, Tag: good.Tag}, sampleAAD},
		{"additional data", good, []byte("other")},
	} {
		if _, err := r.unseal(ctx, xksKey, 1, bad.sealed, bad.aad); !errors.Is(err, keystore.ErrInvalidCiphertext) {
			return "", fmt.Errorf("another %s: want %w, got %w", bad.name, keystore.ErrInvalidCiphertext, orNothing(err))
		}
	}
	if got, err := r.unseal(ctx, xksKey, 1, good, sampleAAD); err != nil || !bytes.Equal(got, sample) {
		return "", fmt.Errorf("the right ciphertext afterwards: %w", orNothing(err))
	}
	return "", nil
}

// orNothing returns an error for nil too.
func orNothing(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func (r *runner) rotate(ctx context.Context) (string, error) {
	old, err := r.seal(ctx, xksKey)
	if err != nil {
		return "", err
	}
	n, err := r.token.RotateKey(ctx, xksKey)
	if err != nil {
		return "", err
	}
	if got, err := r.unseal(ctx, xksKey, 1, old, sampleAAD); err != nil || !bytes.Equal(got, sample) {
		return "", fmt.Errorf("decrypt by the old version: %w", orNothing(err))
	}
	fresh, err := r.seal(ctx, xksKey)
	if err != nil {
		return "", err
	}
	if got, err := r.unseal(ctx, xksKey, n, fresh, sampleAAD); err != nil || !bytes.Equal(got, sample) {
		return "", fmt.Errorf("decrypt by the new version: %w", orNothing(err))
	}
	return "", nil
}

func (r *runner) latency(ctx context.Context) (string, error) {
	const times = 200
	took := make([]time.Duration, times)
	for i := range took {
		begin := time.Now()
		if _, err := r.seal(ctx, xksKey); err != nil {
			return "", err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return fmt.Sprintf("median %v, 99 %% within %v", rounded(took[times/2]), rounded(took[times*99/100])), nil
}

// within says how long something took.
func within(d time.Duration) string { return "within " + rounded(max(d, time.Microsecond)).String() }

func rounded(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

// otherKey is the key that another process makes.
const otherKey = "other"

func (r *runner) needOther() error {
	if r.other == nil {
		return errNotChecked(fmt.Sprintf("the token could not be opened by another process: %v", r.why))
	}
	return nil
}

func (r *runner) foundKey(ctx context.Context) (string, error) {
	if err := r.needOther(); err != nil {
		return "", err
	}
	if err := r.other.GenerateKey(ctx, otherKey, both); err != nil {
		return "", err
	}
	begin := time.Now()
	err := eventually(ctx, func() error {
		_, err := r.seal(ctx, otherKey)
		return err
	})
	return within(time.Since(begin)), err
}

// promise is how long a key may work after it was disabled or destroyed.
const promise = time.Second

// patience is how long is waited for it.
const patience = 15 * time.Second

// eventually tries until it succeeds or patience ends.
func eventually(ctx context.Context, try func() error) error {
	begin := time.Now()
	for {
		err := try()
		if err == nil || time.Since(begin) > patience || ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *runner) disableKey(ctx context.Context) (string, error) {
	return r.stops(ctx, func(ctx context.Context) error { return r.other.SetEnabled(ctx, otherKey, false) }, keystore.ErrKeyDisabled, keystore.ErrKeyUsage)
}

func (r *runner) enableKey(ctx context.Context) (string, error) {
	if err := r.needOther(); err != nil {
		return "", err
	}
	if err := r.other.SetEnabled(ctx, otherKey, true); err != nil {
		return "", err
	}
	begin := time.Now()
	err := eventually(ctx, func() error {
		_, err := r.seal(ctx, otherKey)
		return err
	})
	return within(time.Since(begin)), err
}

func (r *runner) destroyKey(ctx context.Context) (string, error) {
	return r.stops(ctx, func(ctx context.Context) error { return r.other.DestroyKey(ctx, otherKey, 0) }, keystore.ErrKeyNotFound)
}

// stops uses a key without a pause while another process ends its use, and measures
// for how long it still works after that. It has to stop with one of the wanted
// errors.
func (r *runner) stops(ctx context.Context, end func(context.Context) error, want ...error) (string, error) {
	if err := r.needOther(); err != nil {
		return "", err
	}
	if _, err := r.seal(ctx, otherKey); err != nil {
		return "", err
	}
	return measureStop(ctx, func() error {
		_, err := r.seal(ctx, otherKey)
		return err
	}, end, want...)
}

// measureStop calls use without a pause while end runs and afterwards, until it
// answers one of the wanted errors.
func measureStop(ctx context.Context, use func() error, end func(context.Context) error, want ...error) (string, error) {
	ended := make(chan error, 1)
	go func() { ended <- end(ctx) }()
	var over time.Time // when end had returned
	var odd error      // the first other error
	for {
		err := use()
		switch {
		case slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }):
			if over.IsZero() {
				if err := <-ended; err != nil {
					return "", err
				}
				over = time.Now()
			}
			return stopped(time.Since(over), odd)
		case err != nil && odd == nil:
			odd = err
		}
		if over.IsZero() {
			select {
			case err := <-ended:
				if err != nil {
					return "", err
				}
				over = time.Now()
			default:
			}
		} else if time.Since(over) > patience {
			return "", fmt.Errorf("%v later the key still works, or answers otherwise: %w", patience, orNothing(err))
		}
	}
}

func stopped(after time.Duration, odd error) (string, error) {
	switch {
	case odd != nil:
		return "", fmt.Errorf("before the key was refused, it answered: %w", odd)
	case after > promise:
		return "", fmt.Errorf("the key worked for %v after the other process had done", rounded(after))
	}
	return within(after), nil
}

// loseSessions closes all sessions of this process, as a token does that restarts.
func (r *runner) loseSessions(ctx context.Context) (string, error) {
	if err := r.token.LoseSessions(); err != nil {
		return "", err
	}
	begin := time.Now()
	if _, err := r.seal(ctx, xksKey); err != nil {
		return "", fmt.Errorf("the first request: %w", err)
	}
	return within(time.Since(begin)), nil
}
