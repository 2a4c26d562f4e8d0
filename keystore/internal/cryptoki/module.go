// Package cryptoki is the little of PKCS#11 v2.40 that hyok uses, as an
// interface, so that a module can be loaded into this process or into another
// one.
//
// An operation that takes several functions of PKCS#11, such as C_EncryptInit and
// C_Encrypt, is one method here: it costs one message where the module is in
// another process, and nobody can leave it half done.
package cryptoki

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// Handles, attributes and return values are those of the library.
type (
	// Session is a CK_SESSION_HANDLE.
	Session = pkcs11.SessionHandle
	// Object is a CK_OBJECT_HANDLE.
	Object = pkcs11.ObjectHandle
	// Template is a list of attributes.
	Template = []*pkcs11.Attribute
)

// PIN reads a PIN when it is needed.
type PIN func() (string, error)

// Module is a PKCS#11 module. Its methods are named after the functions of PKCS#11
// and may be called by many goroutines at once, as the module was initialized with
// CKF_OS_LOCKING_OK; one session serves one call at a time. An error that the
// module answered is a pkcs11.Error, and a *CallError where the method stands for
// several functions.
type Module interface {
	Initialize() error
	// Finalize must not run beside another call.
	Finalize() error
	// Destroy unloads the module, which was finalized. No call may follow.
	Destroy()

	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	// GetMechanismList returns the types that the module lists, in its order.
	GetMechanismList(slot uint) ([]uint, error)
	// GetMechanismInfo tells which sizes a mechanism takes, in the unit of the
	// mechanism.
	GetMechanismInfo(slot, mechanism uint) (pkcs11.MechanismInfo, error)
	InitToken(slot uint, pin, label string) error
	InitPIN(s Session, pin string) error

	OpenSession(slot, flags uint) (Session, error)
	CloseSession(s Session) error
	GetSessionInfo(s Session) (pkcs11.SessionInfo, error)
	// Login logs in with a PIN that is read where the module is, if it can be:
	// an error that is no pkcs11.Error says that it could not be read. Where the
	// token says that it is not the right PIN, and there is a salt, refused is the
	// PIN's digest, see DigestPIN.
	Login(s Session, user uint, pin PIN, salt []byte) (refused []byte, err error)
	// DigestPIN is DigestPIN with the user's PIN, read as Login does.
	DigestPIN(pin PIN, salt []byte) ([]byte, error)
	Logout(s Session) error

	// FindObjects returns all objects that match (C_FindObjectsInit,
	// C_FindObjects, C_FindObjectsFinal).
	FindObjects(s Session, t Template) ([]Object, error)
	GetAttributeValue(s Session, o Object, t Template) (Template, error)
	SetAttributeValue(s Session, o Object, t Template) error
	CreateObject(s Session, t Template) (Object, error)
	CopyObject(s Session, o Object, t Template) (Object, error)
	DestroyObject(s Session, o Object) error

	GenerateKey(s Session, m Mechanism, t Template) (Object, error)
	GenerateKeyPair(s Session, m Mechanism, public, private Template) (pub, priv Object, err error)
	GenerateRandom(s Session, n int) ([]byte, error)
	WrapKey(s Session, m Mechanism, wrapping, key Object) ([]byte, error)
	// UnwrapKey refuses an empty wrapped key by itself.
	UnwrapKey(s Session, m Mechanism, unwrapping Object, wrapped []byte, t Template) (Object, error)
	DeriveKey(s Session, m Mechanism, base Object, t Template) (Object, error)

	// Encrypt is C_EncryptInit and C_Encrypt. iv is what the parameters of
	// AES-GCM held afterwards: some tokens write the IV there that they used.
	Encrypt(s Session, m Mechanism, key Object, in []byte) (out, iv []byte, err error)
	// Decrypt is C_DecryptInit and C_Decrypt.
	Decrypt(s Session, m Mechanism, key Object, in []byte) ([]byte, error)
	// Sign is C_SignInit and C_Sign.
	Sign(s Session, m Mechanism, key Object, in []byte) ([]byte, error)
}

// CallError is what one of the functions answered that a method stands for.
type CallError struct {
	Call string // for example C_EncryptInit
	Err  error
}

func (e *CallError) Error() string { return e.Call + ": " + e.Err.Error() }

// Unwrap returns what the module answered.
func (e *CallError) Unwrap() error { return e.Err }

// callError returns nil for nil.
func callError(call string, err error) error {
	if err == nil {
		return nil
	}
	return &CallError{Call: call, Err: err}
}

// Isolated is a module in a process of its own, which Initialize starts and
// Finalize ends.
type Isolated interface {
	Module
	// Kill ends the process at once, whatever hangs inside. Calls under way, and
	// all until the next Initialize, return a *GoneError.
	Kill()
}

// GoneError says that the process of a module has ended, and why.
type GoneError struct {
	Module string // path
	Reason string // for example "signal: segmentation fault"
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("the process of the module %s has ended (%s)", e.Module, e.Reason)
}
