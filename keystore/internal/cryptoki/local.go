package cryptoki

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// local is a module that is loaded into this process.
type local struct {
	*pkcs11.Ctx
	functions  *functions     // of Ctx
	parameters unsafe.Pointer // C string for C_Initialize, or nil: modules may keep it until they are unloaded
}

// Load loads the module at path into this process; it is not initialized. parameters
// is the text that C_Initialize will be given in its reserved argument, if it is not
// empty.
func Load(path, parameters string) (Module, error) {
	return loadChecked(path, func() (Module, error) {
		ctx := pkcs11.New(path)
		if ctx == nil {
			return nil, fmt.Errorf("%s cannot be loaded as a PKCS#11 module", path)
		}
		f, err := functionsOf(ctx)
		if err != nil {
			ctx.Destroy()
			return nil, fmt.Errorf("%s cannot be loaded as a PKCS#11 module: %w", path, err)
		}
		return &local{Ctx: ctx, functions: f, parameters: reserved(parameters)}, nil
	})
}

// Initialize is C_Initialize with CKF_OS_LOCKING_OK.
func (l *local) Initialize() error { return initialize(l.functions, l.parameters) }

// Destroy unloads the module.
func (l *local) Destroy() {
	l.Ctx.Destroy()
	free(l.parameters)
}

func (l *local) GetSlotList(tokenPresent bool) ([]uint, error) {
	return slotList(l.functions, tokenPresent)
}

func (l *local) Login(s Session, user uint, read PIN, salt []byte) (refused []byte, err error) {
	pin, err := read()
	if err != nil {
		return nil, err
	}
	if err = l.Ctx.Login(s, user, pin); len(salt) > 0 && RefusesPIN(err) {
		// That it cannot be made, for an error of ours, must not hide the refusal.
		refused, _ = digestPIN(pin, salt)
	}
	return refused, err
}

func (l *local) DigestPIN(read PIN, salt []byte) ([]byte, error) { return DigestPIN(read, salt) }

func (l *local) GetMechanismList(slot uint) ([]uint, error) {
	return mechanismList(l.functions, slot)
}

func (l *local) GetMechanismInfo(slot, mechanism uint) (pkcs11.MechanismInfo, error) {
	return l.Ctx.GetMechanismInfo(slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)})
}

func (l *local) FindObjects(s Session, t Template) ([]Object, error) {
	if err := l.FindObjectsInit(s, t); err != nil {
		return nil, &CallError{"C_FindObjectsInit", err}
	}
	found, err := findObjects(l.functions, s)
	final := callError("C_FindObjectsFinal", l.FindObjectsFinal(s))
	if err != nil {
		return nil, errors.Join(&CallError{"C_FindObjects", err}, final)
	}
	return found, final
}

func (l *local) GetAttributeValue(s Session, o Object, t Template) (Template, error) {
	return getAttributes(l.functions, s, o, t)
}

func (l *local) GenerateKey(s Session, m Mechanism, t Template) (Object, error) {
	return l.Ctx.GenerateKey(s, m.native(), t)
}

func (l *local) GenerateKeyPair(s Session, m Mechanism, public, private Template) (pub, priv Object, err error) {
	return l.Ctx.GenerateKeyPair(s, m.native(), public, private)
}

func (l *local) GenerateRandom(s Session, n int) ([]byte, error) {
	return generateRandom(l.functions, s, n)
}

func (l *local) WrapKey(s Session, m Mechanism, wrapping, key Object) ([]byte, error) {
	return wrapKey(l.functions, s, &m, wrapping, key)
}

func (l *local) UnwrapKey(s Session, m Mechanism, unwrapping Object, wrapped []byte, t Template) (Object, error) {
	if len(wrapped) == 0 { // the library reads its first byte
		return 0, pkcs11.Error(pkcs11.CKR_WRAPPED_KEY_LEN_RANGE)
	}
	return l.Ctx.UnwrapKey(s, m.native(), unwrapping, wrapped, t)
}

func (l *local) DeriveKey(s Session, m Mechanism, base Object, t Template) (Object, error) {
	return l.Ctx.DeriveKey(s, m.native(), base, t)
}

func (l *local) Encrypt(s Session, m Mechanism, key Object, in []byte) (out, iv []byte, err error) {
	switch {
	case m.GCM != nil:
		room := len(in) + gcmTag
		if len(m.GCM.IV) == 0 {
			room += appendedIV
		}
		return compute(l.functions, encrypting, s, &m, key, in, make([]byte, room))
	case len(in) > usualRoom:
		return compute(l.functions, encrypting, s, &m, key, in, make([]byte, len(in)))
	}
	out, err = computeUsual(l.functions, encrypting, s, &m, key, in)
	return out, nil, err
}

func (l *local) Decrypt(s Session, m Mechanism, key Object, in []byte) ([]byte, error) {
	if m.GCM == nil && len(in) <= usualRoom {
		return computeUsual(l.functions, decrypting, s, &m, key, in)
	}
	out, _, err := compute(l.functions, decrypting, s, &m, key, in, make([]byte, len(in)))
	return out, err
}

func (l *local) Sign(s Session, m Mechanism, key Object, in []byte) ([]byte, error) {
	return computeUsual(l.functions, signing, s, &m, key, in)
}
