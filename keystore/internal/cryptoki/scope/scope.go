// Package scope confines the use of a PKCS#11 module to objects of the caller's own,
// so that a token which holds other keys can be tried without touching them.
package scope

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// module shows of a token nothing but the objects whose labels begin with prefix,
// and shows their labels without it. Token objects that are made through it get the
// prefix. Objects of a session have no label in general, and are left as they are.
type module struct {
	cryptoki.Module
	prefix []byte

	mu      sync.Mutex
	foreign map[cryptoki.Object]bool // token objects that were found outside; guarded by mu
}

// isolated is a module in a process of its own.
type isolated struct {
	*module
	kill func()
}

// Kill implements cryptoki.Isolated.
func (m isolated) Kill() { m.kill() }

// Confine confines a module to objects whose labels begin with prefix. If it is a
// cryptoki.Isolated, so is what is returned.
func Confine(m cryptoki.Module, prefix string) cryptoki.Module {
	confined := &module{Module: m, prefix: []byte(prefix), foreign: map[cryptoki.Object]bool{}}
	if i, ok := m.(cryptoki.Isolated); ok {
		return isolated{confined, i.Kill}
	}
	return confined
}

// Initialize implements cryptoki.Module.
func (m *module) Initialize() error {
	m.forget()
	return m.Module.Initialize()
}

// OpenSession implements cryptoki.Module. Sessions are opened after a loss, and then
// handles may name other objects than before.
func (m *module) OpenSession(slot, flags uint) (cryptoki.Session, error) {
	m.forget()
	return m.Module.OpenSession(slot, flags)
}

// CloseAllSessions is C_CloseAllSessions, where the module has it.
func (m *module) CloseAllSessions(slot uint) error {
	closer, ok := m.Module.(interface{ CloseAllSessions(slot uint) error })
	if !ok {
		return pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
	}
	return closer.CloseAllSessions(slot)
}

func (m *module) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.foreign)
}

// FindObjects implements cryptoki.Module.
func (m *module) FindObjects(s cryptoki.Session, t cryptoki.Template) ([]cryptoki.Object, error) {
	if i := indexOf(t, pkcs11.CKA_LABEL); i >= 0 {
		return m.Module.FindObjects(s, m.labelled(t))
	}
	found, err := m.Module.FindObjects(s, t)
	if err != nil {
		return nil, err
	}
	var own []cryptoki.Object
	for _, o := range found {
		inside, err := m.isOwn(s, o)
		if err != nil {
			return nil, err
		}
		if inside {
			own = append(own, o)
		}
	}
	return own, nil
}

// isOwn reports whether the label of an object has the prefix. One whose label
// cannot be read has not.
func (m *module) isOwn(s cryptoki.Session, o cryptoki.Object) (bool, error) {
	m.mu.Lock()
	known := m.foreign[o]
	m.mu.Unlock()
	if known {
		return false, nil
	}
	label, err := m.label(s, o)
	if isUnreadable(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if bytes.HasPrefix(label, m.prefix) {
		return true, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign[o] = true
	return false, nil
}

func (m *module) label(s cryptoki.Session, o cryptoki.Object) ([]byte, error) {
	attrs, err := m.Module.GetAttributeValue(s, o, cryptoki.Template{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
	if err != nil || len(attrs) == 0 {
		return nil, err
	}
	return attrs[0].Value, nil
}

// isUnreadable reports whether err says that an object has no label, does not tell
// it, or is gone.
func isUnreadable(err error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains([]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE,
		pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_GENERAL_ERROR}, uint(code))
}

// GetAttributeValue implements cryptoki.Module.
func (m *module) GetAttributeValue(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) (cryptoki.Template, error) {
	attrs, err := m.Module.GetAttributeValue(s, o, t)
	for _, a := range attrs {
		if a.Type == pkcs11.CKA_LABEL {
			a.Value = bytes.TrimPrefix(a.Value, m.prefix)
		}
	}
	return attrs, err
}

// SetAttributeValue implements cryptoki.Module.
func (m *module) SetAttributeValue(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) error {
	if err := m.expectOwn(s, o); err != nil {
		return err
	}
	return m.Module.SetAttributeValue(s, o, m.labelled(t))
}

// DestroyObject implements cryptoki.Module.
func (m *module) DestroyObject(s cryptoki.Session, o cryptoki.Object) error {
	if err := m.expectOwn(s, o); err != nil {
		return err
	}
	return m.Module.DestroyObject(s, o)
}

// expectOwn answers CKR_OBJECT_HANDLE_INVALID of a token object outside. A handle
// that the token has given to another object meanwhile must not change that.
func (m *module) expectOwn(s cryptoki.Session, o cryptoki.Object) error {
	attrs, err := m.Module.GetAttributeValue(s, o, cryptoki.Template{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, nil)})
	if err != nil {
		return err
	}
	if len(attrs) == 1 && bytes.Equal(attrs[0].Value, []byte{0}) {
		return nil
	}
	label, err := m.label(s, o)
	if err == nil && !bytes.HasPrefix(label, m.prefix) {
		err = pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID)
	}
	return err
}

// CreateObject implements cryptoki.Module.
func (m *module) CreateObject(s cryptoki.Session, t cryptoki.Template) (cryptoki.Object, error) {
	o, err := m.Module.CreateObject(s, m.labelled(t))
	return m.made(o), err
}

// CopyObject implements cryptoki.Module. A copy has the label of its original unless
// t gives another.
func (m *module) CopyObject(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) (cryptoki.Object, error) {
	copied, err := m.Module.CopyObject(s, o, m.relabelled(t))
	return m.made(copied), err
}

// GenerateKey implements cryptoki.Module.
func (m *module) GenerateKey(s cryptoki.Session, mechanism cryptoki.Mechanism, t cryptoki.Template) (cryptoki.Object, error) {
	o, err := m.Module.GenerateKey(s, mechanism, m.labelled(t))
	return m.made(o), err
}

// GenerateKeyPair implements cryptoki.Module.
func (m *module) GenerateKeyPair(s cryptoki.Session, mechanism cryptoki.Mechanism, public, private cryptoki.Template) (pub, priv cryptoki.Object, err error) {
	pub, priv, err = m.Module.GenerateKeyPair(s, mechanism, m.labelled(public), m.labelled(private))
	return m.made(pub), m.made(priv), err
}

// UnwrapKey implements cryptoki.Module.
func (m *module) UnwrapKey(s cryptoki.Session, mechanism cryptoki.Mechanism, unwrapping cryptoki.Object, wrapped []byte, t cryptoki.Template) (cryptoki.Object, error) {
	o, err := m.Module.UnwrapKey(s, mechanism, unwrapping, wrapped, m.labelled(t))
	return m.made(o), err
}

// DeriveKey implements cryptoki.Module.
func (m *module) DeriveKey(s cryptoki.Session, mechanism cryptoki.Mechanism, base cryptoki.Object, t cryptoki.Template) (cryptoki.Object, error) {
	o, err := m.Module.DeriveKey(s, mechanism, base, m.labelled(t))
	return m.made(o), err
}

// made notes that a handle names an object inside now.
func (m *module) made(o cryptoki.Object) cryptoki.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.foreign, o)
	return o
}

// labelled is relabelled for what makes an object: a token object without a label
// gets the prefix as its label.
func (m *module) labelled(t cryptoki.Template) cryptoki.Template {
	i := indexOf(t, pkcs11.CKA_TOKEN)
	if indexOf(t, pkcs11.CKA_LABEL) < 0 && i >= 0 && bytes.Equal(t[i].Value, []byte{1}) {
		return append(slices.Clone(t), pkcs11.NewAttribute(pkcs11.CKA_LABEL, m.prefix))
	}
	return m.relabelled(t)
}

// relabelled returns a template with the prefix before its label, if it has one.
func (m *module) relabelled(t cryptoki.Template) cryptoki.Template {
	i := indexOf(t, pkcs11.CKA_LABEL)
	if i < 0 {
		return t
	}
	t = slices.Clone(t)
	t[i] = pkcs11.NewAttribute(pkcs11.CKA_LABEL, slices.Concat(m.prefix, t[i].Value))
	return t
}

func indexOf(t cryptoki.Template, attribute uint) int {
	return slices.IndexFunc(t, func(a *pkcs11.Attribute) bool { return a.Type == attribute })
}
