package cryptoki

import "github.com/miekg/pkcs11"

// The methods of Module that only ask the child.

func (m *remote) GetSlotList(tokenPresent bool) ([]uint, error) {
	var present uint64
	if tokenPresent {
		present = 1
	}
	a, err := m.call(request{op: opGetSlotList, a: present})
	slots := make([]uint, len(a.list))
	for i, n := range a.list {
		slots[i] = uint(n)
	}
	return slots, err
}

func (m *remote) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	a, err := m.call(request{op: opGetTokenInfo, a: uint64(slot)})
	return a.token, err
}

func (m *remote) InitToken(slot uint, pin, label string) error {
	_, err := m.call(request{op: opInitToken, a: uint64(slot), text: pin, more: label})
	return err
}

func (m *remote) InitPIN(s Session, pin string) error {
	_, err := m.call(request{op: opInitPIN, session: s, text: pin})
	return err
}

func (m *remote) OpenSession(slot, flags uint) (Session, error) {
	a, err := m.call(request{op: opOpenSession, a: uint64(slot), b: uint64(flags)})
	return Session(a.a), err
}

func (m *remote) CloseSession(s Session) error {
	_, err := m.call(request{op: opCloseSession, session: s})
	return err
}

// GetSessionInfo tells the state alone.
func (m *remote) GetSessionInfo(s Session) (pkcs11.SessionInfo, error) {
	a, err := m.call(request{op: opGetSessionInfo, session: s})
	return pkcs11.SessionInfo{State: uint(a.a)}, err
}

func (m *remote) Login(s Session, user uint, read PIN) error {
	r := request{op: opLogin, session: s, a: uint64(user)}
	if m.child.PINSource == "" || user != pkcs11.CKU_USER {
		pin, err := read()
		if err != nil {
			return err
		}
		r.text, r.b = pin, 1
	}
	_, err := m.call(r)
	return err
}

func (m *remote) Logout(s Session) error {
	_, err := m.call(request{op: opLogout, session: s})
	return err
}

func (m *remote) FindObjects(s Session, t Template) ([]Object, error) {
	a, err := m.call(request{op: opFindObjects, session: s, one: t})
	if err != nil {
		return nil, err
	}
	found := make([]Object, len(a.list))
	for i, n := range a.list {
		found[i] = Object(n)
	}
	return found, nil
}

func (m *remote) GetAttributeValue(s Session, o Object, t Template) (Template, error) {
	a, err := m.call(request{op: opGetAttributeValue, session: s, a: uint64(o), one: t})
	return a.template, err
}

func (m *remote) SetAttributeValue(s Session, o Object, t Template) error {
	_, err := m.call(request{op: opSetAttributeValue, session: s, a: uint64(o), one: t})
	return err
}

// object calls a method that returns an object.
func (m *remote) object(r request) (Object, error) {
	a, err := m.call(r)
	return Object(a.a), err
}

func (m *remote) CreateObject(s Session, t Template) (Object, error) {
	return m.object(request{op: opCreateObject, session: s, one: t})
}

func (m *remote) CopyObject(s Session, o Object, t Template) (Object, error) {
	return m.object(request{op: opCopyObject, session: s, a: uint64(o), one: t})
}

func (m *remote) DestroyObject(s Session, o Object) error {
	_, err := m.call(request{op: opDestroyObject, session: s, a: uint64(o)})
	return err
}

func (m *remote) GenerateKey(s Session, mechanism Mechanism, t Template) (Object, error) {
	return m.object(request{op: opGenerateKey, session: s, mechanism: mechanism, one: t})
}

func (m *remote) GenerateKeyPair(s Session, mechanism Mechanism, public, private Template) (pub, priv Object, err error) {
	a, err := m.call(request{op: opGenerateKeyPair, session: s, mechanism: mechanism, one: public, two: private})
	return Object(a.a), Object(a.b), err
}

func (m *remote) GenerateRandom(s Session, n int) ([]byte, error) {
	a, err := m.call(request{op: opGenerateRandom, session: s, a: uint64(n)})
	return a.data, err
}

func (m *remote) WrapKey(s Session, mechanism Mechanism, wrapping, key Object) ([]byte, error) {
	a, err := m.call(request{op: opWrapKey, session: s, mechanism: mechanism, a: uint64(wrapping), b: uint64(key)})
	return a.data, err
}

func (m *remote) UnwrapKey(s Session, mechanism Mechanism, unwrapping Object, wrapped []byte, t Template) (Object, error) {
	return m.object(request{op: opUnwrapKey, session: s, mechanism: mechanism, a: uint64(unwrapping), data: wrapped, one: t})
}

func (m *remote) DeriveKey(s Session, mechanism Mechanism, base Object, t Template) (Object, error) {
	return m.object(request{op: opDeriveKey, session: s, mechanism: mechanism, a: uint64(base), one: t})
}

func (m *remote) Encrypt(s Session, mechanism Mechanism, key Object, in []byte) (out, iv []byte, err error) {
	a, err := m.call(request{op: opEncrypt, session: s, mechanism: mechanism, a: uint64(key), data: in})
	return a.data, a.iv, err
}

func (m *remote) Decrypt(s Session, mechanism Mechanism, key Object, in []byte) ([]byte, error) {
	a, err := m.call(request{op: opDecrypt, session: s, mechanism: mechanism, a: uint64(key), data: in})
	return a.data, err
}

func (m *remote) Sign(s Session, mechanism Mechanism, key Object, in []byte) ([]byte, error) {
	a, err := m.call(request{op: opSign, session: s, mechanism: mechanism, a: uint64(key), data: in})
	return a.data, err
}
