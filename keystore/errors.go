package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Errors by which callers decide. They come wrapped with the key or token that
// they are about.
var (
	// ErrKeyNotFound: no key with this id, or this version of it, is in the token.
	ErrKeyNotFound = errors.New("key not found")
	// ErrKeyExists: a key with this id is in the token already.
	ErrKeyExists = errors.New("key exists already")
	// ErrKeyDisabled: the key carries hyok's mark of being disabled.
	ErrKeyDisabled = errors.New("key is disabled")
	// ErrKeyUsage: the token does not permit this operation with the key
	// (CKA_ENCRYPT or CKA_DECRYPT is false).
	ErrKeyUsage = errors.New("key usage not permitted")
	// ErrKeyAmbiguous: two keys in the token claim to be the same version of
	// the same id; neither is picked.
	ErrKeyAmbiguous = errors.New("key is ambiguous")
	// ErrInvalidCiphertext: authentication of the ciphertext failed, or key material
	// that is to be imported is not encrypted as it should be. The token is known to
	// be well when this is answered.
	ErrInvalidCiphertext = errors.New("ciphertext does not authenticate")
	// ErrBusy: no session became free in time, or a search and a change of the
	// token that exclude each other did not end in time.
	ErrBusy = errors.New("no session is free")
	// ErrUnavailable: the token failed or hung so often that it is not asked
	// now; whether it is back is tried several times a second.
	ErrUnavailable = errors.New("token is not available")
	// ErrPINIncorrect: the token refused the PIN. It is not tried again, since
	// tokens lock themselves after a few wrong PINs.
	ErrPINIncorrect = errors.New("PIN is incorrect")
	// ErrPINLocked: the token has locked the PIN after too many wrong ones.
	ErrPINLocked error = pinTrouble("PIN is locked")
	// ErrPINExpired: the token wants another PIN to be set.
	ErrPINExpired error = pinTrouble("PIN has expired")
	// ErrPINLastTry: the token would lock the PIN if the next one were wrong.
	ErrPINLastTry error = pinTrouble("the next wrong PIN would lock the token")
	// ErrPINUnchanged: the token has refused the very same PIN before.
	ErrPINUnchanged error = pinTrouble("PIN is the one that the token has refused before")
	// ErrLoggedIn: somebody else in this process is logged in to the token, so
	// that nothing proves the PIN (see Options.ProvePIN).
	ErrLoggedIn = errors.New("this process is logged in to the token already")
	// ErrTokenNotFound: no token in the module matches the URI.
	ErrTokenNotFound = errors.New("token not found")
	// ErrProfile: the token is of another make than the profile that was given.
	ErrProfile = errors.New("profile of another token")
	// ErrClosed: the token was closed.
	ErrClosed = errors.New("token is closed")
	// ErrUnsupported: the token cannot do what was asked.
	ErrUnsupported = errors.New("not supported by the token")
	// ErrNotReplicable: the key may not leave its token in the way that was asked
	// for.
	ErrNotReplicable = errors.New("key is not replicable")
	// ErrKeysDiffer: two tokens have different keys as the same version of the same
	// id.
	ErrKeysDiffer = errors.New("keys differ")
	// ErrRootKey: the root key of a vault is gone from the token, or the token
	// does not permit its use any more, so that nothing wrapped under it opens.
	ErrRootKey = errors.New("root key is not usable")
	// ErrWrappedKey: a wrapped key does not open under the root key: it is damaged,
	// or was wrapped under another one. The token is known to be well.
	ErrWrappedKey = errors.New("wrapped key does not open")
	// ErrInvalidMaterial: what was to be imported is malformed or contradicts
	// itself. The token is known to be well.
	ErrInvalidMaterial = errors.New("invalid key material")
	// ErrMaterialSpec: the key material is of another kind or length than the
	// operation needs.
	ErrMaterialSpec = errors.New("key material of another kind")
	// ErrInvalidPublicKey: a public key is malformed or not on the curve of the
	// private key that it is to be used with.
	ErrInvalidPublicKey = errors.New("invalid public key")
)

// pinTrouble is why a PIN is of no use, or not tried. To errors.Is each one is
// ErrPINIncorrect, too: nobody is to try again.
type pinTrouble string

func (p pinTrouble) Error() string { return string(p) }

// Is reports whether target is ErrPINIncorrect.
func (p pinTrouble) Is(target error) bool { return target == ErrPINIncorrect }

// TokenError is a PKCS#11 call that failed for a reason that lies in the token,
// its module or the way to it, not in the caller's input.
type TokenError struct {
	Token string // configured name
	Call  string // PKCS#11 function, for example C_Encrypt
	Err   error  // what the module answered: a pkcs11.Error
}

func (e *TokenError) Error() string {
	return fmt.Sprintf("token %s: %s: %v", e.Token, e.Call, e.Err)
}

// Unwrap returns what the module answered.
func (e *TokenError) Unwrap() error { return e.Err }

// MayPass reports whether what Open failed with may pass by itself: the token, its
// module or the way to it fails, hangs or is not there. A refused PIN does not.
func MayPass(err error) bool {
	return !errors.Is(err, ErrPINIncorrect) &&
		(isAnswer(err) || isModuleGone(err) || errors.Is(err, ErrTokenNotFound) || errors.Is(err, context.DeadlineExceeded) ||
			errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBusy))
}

// isCode reports whether err is one of the given PKCS#11 return values.
func isCode(err error, codes ...uint) bool {
	var p pkcs11.Error
	if !errors.As(err, &p) {
		return false
	}
	for _, c := range codes {
		if uint(p) == c {
			return true
		}
	}
	return false
}

// isAnswer reports whether err is what a module answered.
func isAnswer(err error) bool {
	var p pkcs11.Error
	return errors.As(err, &p)
}

// isHandleGone reports whether err says that an object handle names nothing
// any more.
func isHandleGone(err error) bool {
	return isCode(err, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID)
}

// isStranger reports whether err may say that a handle, got before a loss of all
// sessions, is that of another object now, which may be one that the token cannot
// read: SoftHSM2 answers CKR_GENERAL_ERROR of an object in another token.
func isStranger(err error) bool { return isAnswer(err) && !isSessionLost(err) }

// isDeviceFailure reports whether err is plainly about the token as a whole.
func isDeviceFailure(err error) bool {
	return isCode(err, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT,
		pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_SESSION_COUNT)
}

// isSessionLost reports whether err says that the session, or its login, is no
// more, as after a restart of the token; with it all others went, or are not to be
// trusted.
func isSessionLost(err error) bool {
	return isModuleGone(err) || isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SLOT_ID_INVALID)
}
