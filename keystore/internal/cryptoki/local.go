package cryptoki

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// findBatch is how many handles one C_FindObjects returns at most.
const findBatch = 1000

// local is a module that is loaded into this process.
type local struct{ *pkcs11.Ctx }

// Load loads the module at path into this process; it is not initialized.
func Load(path string) (Module, error) {
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("%s cannot be loaded as a PKCS#11 module", path)
	}
	return local{ctx}, nil
}

// Initialize is that of the library without its options.
func (l local) Initialize() error { return l.Ctx.Initialize() }

func (l local) Login(s Session, user uint, read PIN) error {
	pin, err := read()
	if err != nil {
		return err
	}
	return l.Ctx.Login(s, user, pin)
}

func (l local) FindObjects(s Session, t Template) ([]Object, error) {
	if err := l.FindObjectsInit(s, t); err != nil {
		return nil, &CallError{"C_FindObjectsInit", err}
	}
	var found []Object
	for {
		batch, _, err := l.Ctx.FindObjects(s, findBatch)
		if err != nil {
			return nil, errors.Join(&CallError{"C_FindObjects", err}, callError("C_FindObjectsFinal", l.FindObjectsFinal(s)))
		}
		found = append(found, batch...)
		if len(batch) == 0 {
			return found, callError("C_FindObjectsFinal", l.FindObjectsFinal(s))
		}
	}
}

func (l local) GenerateKey(s Session, m Mechanism, t Template) (Object, error) {
	native, _ := m.native()
	return l.Ctx.GenerateKey(s, native, t)
}

func (l local) GenerateKeyPair(s Session, m Mechanism, public, private Template) (pub, priv Object, err error) {
	native, _ := m.native()
	return l.Ctx.GenerateKeyPair(s, native, public, private)
}

func (l local) WrapKey(s Session, m Mechanism, wrapping, key Object) ([]byte, error) {
	native, _ := m.native()
	return l.Ctx.WrapKey(s, native, wrapping, key)
}

func (l local) UnwrapKey(s Session, m Mechanism, unwrapping Object, wrapped []byte, t Template) (Object, error) {
	if len(wrapped) == 0 { // the library reads its first byte
		return 0, pkcs11.Error(pkcs11.CKR_WRAPPED_KEY_LEN_RANGE)
	}
	native, _ := m.native()
	return l.Ctx.UnwrapKey(s, native, unwrapping, wrapped, t)
}

func (l local) DeriveKey(s Session, m Mechanism, base Object, t Template) (Object, error) {
	native, _ := m.native()
	return l.Ctx.DeriveKey(s, native, base, t)
}

func (l local) Encrypt(s Session, m Mechanism, key Object, in []byte) (out, iv []byte, err error) {
	native, gcm := m.native()
	defer gcm.Free()
	if err := l.EncryptInit(s, native, key); err != nil {
		return nil, nil, &CallError{"C_EncryptInit", err}
	}
	if out, err = l.Ctx.Encrypt(s, in); err != nil {
		return nil, nil, &CallError{"C_Encrypt", err}
	}
	return out, gcm.IV(), nil
}

func (l local) Decrypt(s Session, m Mechanism, key Object, in []byte) ([]byte, error) {
	native, gcm := m.native()
	defer gcm.Free()
	if err := l.DecryptInit(s, native, key); err != nil {
		return nil, &CallError{"C_DecryptInit", err}
	}
	out, err := l.Ctx.Decrypt(s, in)
	return out, callError("C_Decrypt", err)
}

func (l local) Sign(s Session, m Mechanism, key Object, in []byte) ([]byte, error) {
	native, _ := m.native()
	if err := l.SignInit(s, native, key); err != nil {
		return nil, &CallError{"C_SignInit", err}
	}
	out, err := l.Ctx.Sign(s, in)
	return out, callError("C_Sign", err)
}
