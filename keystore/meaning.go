package keystore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Tokens have codes of their own for a key that is disabled (CKR_GENERAL_ERROR of
// kryoptic, CKR_KEY_TYPE_INCONSISTENT of NSS, for CKR_KEY_FUNCTION_NOT_PERMITTED) and
// for a handle that names nothing any more (CKR_GENERAL_ERROR of kryoptic and of
// SoftHSM2's db store). So what a failure with a key means is decided by its
// attributes and, where those cannot be read, by a search for it.

// goneTimeout bounds how long the search for an object that cannot be read waits for
// changes of the token, whose callers wait too.
const goneTimeout = 100 * time.Millisecond

// usageOf returns the attribute that permits what a function does with a key.
func usageOf(call string) (attribute uint, ok bool) {
	switch call {
	case "C_EncryptInit", "C_Encrypt":
		return pkcs11.CKA_ENCRYPT, true
	case "C_DecryptInit", "C_Decrypt":
		return pkcs11.CKA_DECRYPT, true
	case "C_SignInit", "C_Sign":
		return pkcs11.CKA_SIGN, true
	case "C_DeriveKey":
		return pkcs11.CKA_DERIVE, true
	}
	return 0, false
}

// isUnclear reports whether err, which the token answered to an operation with a key,
// may be about that key.
func isUnclear(err error) bool {
	var failure *TokenError
	return errors.As(err, &failure) && !isHandleGone(err) && !isSessionLost(err)
}

// isTold reports whether a token that is asked for an attribute answered err, and not
// that the object or the session is gone.
func isTold(err error) bool { return isAnswer(err) && !isHandleGone(err) && !isSessionLost(err) }

// handleGone is what a token should have answered of an object that is gone.
func (w *worker) handleGone() error {
	return w.fail("C_GetAttributeValue", pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID))
}

// withheld returns what a token should have answered to a function that it does not
// permit with a key.
func (w *worker) withheld(err error) error {
	var failure *TokenError
	if isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) || !errors.As(err, &failure) {
		return err
	}
	return w.fail(failure.Call, pkcs11.Error(pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED))
}

// meaning returns what an unclear failure means of an operation with a version, whose
// permissions it reads.
func (w *worker) meaning(err error, id string, v *version) (permissions, error) {
	p, readErr := w.permissions(v.handle)
	switch {
	case isHandleGone(readErr) || isSessionLost(readErr):
		return p, readErr
	case isTold(readErr) && !isDeviceFailure(readErr) && !w.t.index.has(id, v), w.isGone(id, v.handle, readErr):
		return p, w.handleGone()
	case readErr != nil && isCode(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return p, readErr // why it is denied decides what the caller is told
	case readErr == nil && p.withholds(err):
		return p, w.withheld(err)
	}
	return p, err
}

// withholds reports whether p is why a function failed.
func (p permissions) withholds(err error) bool {
	var failure *TokenError
	if !errors.As(err, &failure) {
		return false
	}
	switch attribute, _ := usageOf(failure.Call); attribute {
	case pkcs11.CKA_ENCRYPT:
		return p.noEncrypt
	case pkcs11.CKA_DECRYPT:
		return p.noDecrypt
	}
	return false
}

// isGone reports whether an object, which could not be read because of err, is not
// found by a search for its label. It is no search for each who asks: while searches
// are not due, the object counts as there.
func (w *worker) isGone(label string, h pkcs11.ObjectHandle, err error) bool {
	if !isTold(err) || isDeviceFailure(err) || !w.t.index.look() {
		return false
	}
	ctx, cancel := context.WithTimeout(w.t.background, goneTimeout)
	defer cancel()
	if w.t.enterSearch(ctx) != nil {
		return false
	}
	defer w.t.leaveSearch()
	found, err := w.findKeys(label)
	return err == nil && !slices.Contains(found, h)
}

// objectMeaning returns what an unclear failure means of an operation with an object
// of a vault. What cannot be read is not used again: it is found or made anew.
func (w *worker) objectMeaning(err error, h pkcs11.ObjectHandle) error {
	if !isUnclear(err) || !w.breaks(err) && !isCode(err, pkcs11.CKR_KEY_TYPE_INCONSISTENT) {
		return err
	}
	var failure *TokenError
	errors.As(err, &failure)
	attribute, ok := usageOf(failure.Call)
	if !ok {
		attribute = pkcs11.CKA_CLASS
	}
	values, readErr := w.t.attributes(w.session, h, attribute)
	switch {
	case isHandleGone(readErr) || isSessionLost(readErr):
		return readErr
	case isTold(readErr):
		return w.handleGone()
	case readErr == nil && ok && isFalse(values[0]):
		return w.withheld(err)
	}
	return err
}
