package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// A PIN that is tried too often locks the token. So the token's flags are looked at
// before each login, a PIN that was refused is remembered (see refusedPINs), and
// nothing is tried again by itself that could be the last try.

// loginState keeps concurrent logins and wrong PINs from multiplying.
type loginState struct {
	mu      sync.Mutex            // held while somebody logs in, by a call that may hang
	refused atomic.Pointer[error] // why the PIN is not tried again before RetryPIN; nil: it may be
	prove   bool                  // the PIN is still to be proven, see Options.ProvePIN; guarded by mu
}

func (t *Token) ensureLogin(s pkcs11.SessionHandle) error {
	if !t.info.loginRequired() {
		return nil
	}
	t.login.mu.Lock()
	defer t.login.mu.Unlock()
	// The session knows better than any flag of ours: another user of the
	// module in this process may have logged in or out.
	si, err := t.module.ctx.GetSessionInfo(s)
	if err != nil {
		return t.callError("C_GetSessionInfo", err)
	}
	if si.State == pkcs11.CKS_RO_USER_FUNCTIONS || si.State == pkcs11.CKS_RW_USER_FUNCTIONS {
		return t.acceptLogin()
	}
	if why := t.login.refused.Load(); why != nil {
		return fmt.Errorf("token %s: it was refused before and is not tried again: %w", t.name, *why)
	}
	if t.background.Err() != nil {
		return t.closedError() // what hung before must not try the PIN when nobody waits for it any more
	}
	return t.logIn(s)
}

// logIn tries the PIN, unless the token says that it had better not be. login.mu is
// held.
func (t *Token) logIn(s pkcs11.SessionHandle) error {
	slot := uint(t.place.slot.Load())
	ti, err := t.module.ctx.GetTokenInfo(slot)
	if err != nil {
		return t.callError("C_GetTokenInfo", err)
	}
	tries := pinTries{refusedPINs{t.modules.RefusedPINs}, tokenInfo(slot, ti)}
	salt, err := tries.permit(func(salt []byte) ([]byte, error) { return t.module.ctx.DigestPIN(t.pin, salt) })
	if errors.Is(err, ErrPINIncorrect) {
		return t.refusedPIN(err)
	} else if err != nil {
		return t.callError("C_Login", err)
	}
	digest, err := t.module.ctx.Login(s, pkcs11.CKU_USER, t.pin, salt)
	if isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return t.acceptLogin()
	}
	if noteErr := tries.note(salt, digest, err); noteErr != nil {
		t.log.Warn("what the token said of the PIN cannot be remembered", "error", noteErr)
	}
	switch why := pinRefusal(err); {
	case err == nil:
		t.login.prove = false
		return nil
	case why != nil:
		return t.refusedPIN(why)
	}
	// Also that the PIN could not be read: without it the token cannot serve.
	return t.callError("C_Login", err)
}

// refusedPIN has the PIN not be tried again before RetryPIN, unless the token's own
// flags keep it from being tried: these are looked at each time, and may be cleared.
func (t *Token) refusedPIN(why error) error {
	var flagged *flaggedPIN
	if !errors.As(why, &flagged) {
		t.login.refused.Store(&why)
	}
	return fmt.Errorf("token %s: %w", t.name, why)
}

// RetryPIN permits another login after the token refused the PIN: it has been
// corrected, or so somebody says who knows that tokens lock themselves.
func (t *Token) RetryPIN() { t.login.refused.Store(nil) }

// acceptLogin accepts a login that somebody else in this process made, unless the
// PIN is still to be proven. login.mu is held.
func (t *Token) acceptLogin() error {
	if t.login.prove {
		return fmt.Errorf("token %s: %w", t.name, ErrLoggedIn)
	}
	return nil
}

// pinRefusal returns what C_Login's answer says of the PIN, nil if nothing.
func pinRefusal(err error) error {
	switch {
	case isCode(err, pkcs11.CKR_PIN_LOCKED):
		return fmt.Errorf("%w (%w)", ErrPINLocked, err)
	case isCode(err, pkcs11.CKR_PIN_EXPIRED):
		return fmt.Errorf("%w: set a new one by another tool (C_SetPIN), then reload (SIGHUP) (%w)", ErrPINExpired, err)
	case isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		return fmt.Errorf("%w (%w)", ErrPINIncorrect, err)
	}
	return nil
}

// flaggedPIN is a PIN that was not tried for what the token's flags say.
type flaggedPIN struct {
	flag string // for example CKF_USER_PIN_LOCKED
	err  error
	todo string
}

func (e *flaggedPIN) Error() string {
	return fmt.Sprintf("%v (%s), so that it was not tried: %s", e.err, e.flag, e.todo)
}

func (e *flaggedPIN) Unwrap() error { return e.err }

// pinTries are the logins to one token.
type pinTries struct {
	refusedPINs
	token TokenInfo // as it is now
}

// permit returns an error if the user's PIN must not be tried now, else the salt for
// the digest of one that is refused, if there is anywhere to remember it. digest makes
// a slow digest of the PIN; that is asked for only after a refusal.
func (p pinTries) permit(digest func(salt []byte) ([]byte, error)) (salt []byte, err error) {
	const byOthers = "log in once with the right PIN by another tool, such as pkcs11-tool --login --list-objects, or have the security officer set it anew"
	switch {
	case p.token.flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return nil, &flaggedPIN{"CKF_USER_PIN_LOCKED", ErrPINLocked, "have the security officer set it anew"}
	case p.token.flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return nil, &flaggedPIN{"CKF_USER_PIN_FINAL_TRY", ErrPINLastTry, byOthers}
	}
	known, err := p.of(p.token)
	switch doubtful := p.token.flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0; {
	case err != nil && doubtful:
		return nil, fmt.Errorf("the token has refused a PIN (CKF_USER_PIN_COUNT_LOW), and whether it was this one is not known: %w", err)
	case err != nil, !doubtful, len(known.Digests) == 0:
		return known.Salt, nil // what cannot be read is written anew
	}
	tried, err := digest(known.Salt)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(known.Digests, func(refused []byte) bool { return bytes.Equal(refused, tried) }) {
		return nil, fmt.Errorf("%w (CKF_USER_PIN_COUNT_LOW): correct it, then reload (SIGHUP); if it is right by now, %s", ErrPINUnchanged, byOthers)
	}
	return known.Salt, nil
}

// note remembers how a login ended: refused is the digest of a PIN that the token
// does not take; once it takes one, what it refused before means nothing any more.
func (p pinTries) note(salt, refused []byte, err error) error {
	switch {
	case err == nil:
		return p.forget(p.token)
	case len(refused) > 0:
		return p.add(p.token, salt, refused)
	}
	return nil
}

// permitOfficer returns an error if the security officer's PIN must not be tried. An
// empty token has none; SoftHSM2 calls it locked.
func (i TokenInfo) permitOfficer() error {
	switch {
	case !i.Initialized:
		return nil
	case i.flags&pkcs11.CKF_SO_PIN_LOCKED != 0:
		return &flaggedPIN{"CKF_SO_PIN_LOCKED", ErrPINLocked, "the vendor's tools may reset the token"}
	case i.flags&pkcs11.CKF_SO_PIN_FINAL_TRY != 0:
		return &flaggedPIN{"CKF_SO_PIN_FINAL_TRY", ErrPINLastTry, "log in once as security officer by another tool"}
	}
	return nil
}

// checkPINLength reports whether a PIN has a length that the token takes. Lengths that
// contradict each other say nothing.
func (i TokenInfo) checkPINLength(what, pin string) error {
	most := i.maxPIN
	if most == pkcs11.CK_UNAVAILABLE_INFORMATION || most == 0 || most < i.minPIN {
		return nil
	}
	if n := uint(len(pin)); n < i.minPIN || n > most {
		return fmt.Errorf("the %s has %d bytes, and the token takes PINs of %d to %d: nothing was changed", what, n, i.minPIN, most)
	}
	return nil
}
