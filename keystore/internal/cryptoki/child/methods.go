package child

import (
	"bytes"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// GetSlotList is C_GetSlotList.
func (c *Client) GetSlotList(tokenPresent bool) ([]uint, error) {
	q := request{op: opGetSlotList}
	if tokenPresent {
		q.numbers[0] = 1
	}
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	return x.reply.numbers, nil
}

// GetTokenInfo is C_GetTokenInfo.
func (c *Client) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	q := request{op: opGetTokenInfo, numbers: [3]uint{slot}}
	x, err := c.ask(&q)
	if err != nil {
		return pkcs11.TokenInfo{}, err
	}
	defer x.release()
	info, err := x.reply.tokenInfo()
	if err != nil {
		return info, c.distrust()
	}
	return info, nil
}

// GetMechanismList is C_GetMechanismList.
func (c *Client) GetMechanismList(slot uint) ([]uint, error) {
	x, err := c.ask(&request{op: opGetMechanismList, numbers: [3]uint{slot}})
	if err != nil {
		return nil, err
	}
	defer x.release()
	return x.reply.numbers, nil
}

// GetMechanismInfo is C_GetMechanismInfo.
func (c *Client) GetMechanismInfo(slot, mechanism uint) (pkcs11.MechanismInfo, error) {
	n, err := c.numbers(3, request{op: opGetMechanismInfo, numbers: [3]uint{slot, mechanism}})
	if err != nil {
		return pkcs11.MechanismInfo{}, err
	}
	return pkcs11.MechanismInfo{MinKeySize: n[0], MaxKeySize: n[1], Flags: n[2]}, nil
}

// InitToken is C_InitToken.
func (c *Client) InitToken(slot uint, pin, label string) error {
	data := []byte(pin)
	defer clear(data)
	return c.none(request{op: opInitToken, numbers: [3]uint{slot}, data: data, text: []byte(label)})
}

// InitPIN is C_InitPIN.
func (c *Client) InitPIN(s cryptoki.Session, pin string) error {
	data := []byte(pin)
	defer clear(data)
	return c.none(request{op: opInitPIN, numbers: [3]uint{uint(s)}, data: data})
}

// OpenSession is C_OpenSession.
func (c *Client) OpenSession(slot, flags uint) (cryptoki.Session, error) {
	n, err := c.numbers(1, request{op: opOpenSession, numbers: [3]uint{slot, flags}})
	if err != nil {
		return 0, err
	}
	return cryptoki.Session(n[0]), nil
}

// CloseSession is C_CloseSession.
func (c *Client) CloseSession(s cryptoki.Session) error {
	return c.none(request{op: opCloseSession, numbers: [3]uint{uint(s)}})
}

// GetSessionInfo is C_GetSessionInfo.
func (c *Client) GetSessionInfo(s cryptoki.Session) (pkcs11.SessionInfo, error) {
	n, err := c.numbers(4, request{op: opGetSessionInfo, numbers: [3]uint{uint(s)}})
	if err != nil {
		return pkcs11.SessionInfo{}, err
	}
	return pkcs11.SessionInfo{SlotID: n[0], State: n[1], Flags: n[2], DeviceError: n[3]}, nil
}

// Login is C_Login. The PIN does not pass through this process where the child
// can read it.
func (c *Client) Login(s cryptoki.Session, user uint, read cryptoki.PIN, salt []byte) (refused []byte, err error) {
	if c.config.PINSource != "" && user == pkcs11.CKU_USER {
		return c.login(request{op: opLoginByChild, numbers: [3]uint{uint(s), user}, text: salt})
	}
	pin, err := read()
	if err != nil {
		return nil, err
	}
	data := []byte(pin)
	defer clear(data)
	return c.login(request{op: opLogin, numbers: [3]uint{uint(s), user}, data: data, text: salt})
}

// login calls one of the two methods whose reply may be a refusal with its digest.
func (c *Client) login(q request) (refused []byte, err error) {
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	if len(x.reply.numbers) == 0 {
		return nil, nil
	}
	return bytes.Clone(x.reply.out), pkcs11.Error(x.reply.numbers[0])
}

// DigestPIN digests the PIN where Login reads it.
func (c *Client) DigestPIN(read cryptoki.PIN, salt []byte) ([]byte, error) {
	if c.config.PINSource != "" {
		return c.bytes(request{op: opDigestPIN, text: salt})
	}
	return cryptoki.DigestPIN(read, salt)
}

// Logout is C_Logout.
func (c *Client) Logout(s cryptoki.Session) error {
	return c.none(request{op: opLogout, numbers: [3]uint{uint(s)}})
}

// FindObjects is C_FindObjectsInit, C_FindObjects and C_FindObjectsFinal.
func (c *Client) FindObjects(s cryptoki.Session, t cryptoki.Template) ([]cryptoki.Object, error) {
	q := request{op: opFindObjects, numbers: [3]uint{uint(s)}, template: t}
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	found := make([]cryptoki.Object, len(x.reply.numbers))
	for i, n := range x.reply.numbers {
		found[i] = cryptoki.Object(n)
	}
	return found, nil
}

// GetAttributeValue is C_GetAttributeValue.
func (c *Client) GetAttributeValue(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) (cryptoki.Template, error) {
	q := request{op: opGetAttributeValue, numbers: [3]uint{uint(s), uint(o)}, template: t}
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	if len(x.reply.template) != len(t) { // whose values are counted upon
		return nil, c.distrust()
	}
	for _, a := range x.reply.template {
		a.Value = bytes.Clone(a.Value)
	}
	return x.reply.template, nil
}

// SetAttributeValue is C_SetAttributeValue.
func (c *Client) SetAttributeValue(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) error {
	return c.none(request{op: opSetAttributeValue, numbers: [3]uint{uint(s), uint(o)}, template: t})
}

// CreateObject is C_CreateObject.
func (c *Client) CreateObject(s cryptoki.Session, t cryptoki.Template) (cryptoki.Object, error) {
	return c.object(request{op: opCreateObject, numbers: [3]uint{uint(s)}, template: t})
}

// CopyObject is C_CopyObject.
func (c *Client) CopyObject(s cryptoki.Session, o cryptoki.Object, t cryptoki.Template) (cryptoki.Object, error) {
	return c.object(request{op: opCopyObject, numbers: [3]uint{uint(s), uint(o)}, template: t})
}

// DestroyObject is C_DestroyObject.
func (c *Client) DestroyObject(s cryptoki.Session, o cryptoki.Object) error {
	return c.none(request{op: opDestroyObject, numbers: [3]uint{uint(s), uint(o)}})
}

// GenerateKey is C_GenerateKey.
func (c *Client) GenerateKey(s cryptoki.Session, m cryptoki.Mechanism, t cryptoki.Template) (cryptoki.Object, error) {
	return c.object(request{op: opGenerateKey, numbers: [3]uint{uint(s)}, mechanism: m, template: t})
}

// GenerateKeyPair is C_GenerateKeyPair.
func (c *Client) GenerateKeyPair(s cryptoki.Session, m cryptoki.Mechanism, public, private cryptoki.Template) (pub, priv cryptoki.Object, err error) {
	n, err := c.numbers(2, request{op: opGenerateKeyPair, numbers: [3]uint{uint(s)}, mechanism: m, template: public, private: private})
	if err != nil {
		return 0, 0, err
	}
	return cryptoki.Object(n[0]), cryptoki.Object(n[1]), nil
}

// GenerateRandom is C_GenerateRandom.
func (c *Client) GenerateRandom(s cryptoki.Session, n int) ([]byte, error) {
	out, err := c.bytes(request{op: opGenerateRandom, numbers: [3]uint{uint(s), uint(n)}})
	if err == nil && len(out) != n {
		return nil, c.distrust()
	}
	return out, err
}

// WrapKey is C_WrapKey.
func (c *Client) WrapKey(s cryptoki.Session, m cryptoki.Mechanism, wrapping, key cryptoki.Object) ([]byte, error) {
	return c.bytes(request{op: opWrapKey, numbers: [3]uint{uint(s), uint(wrapping), uint(key)}, mechanism: m})
}

// UnwrapKey is C_UnwrapKey.
func (c *Client) UnwrapKey(s cryptoki.Session, m cryptoki.Mechanism, unwrapping cryptoki.Object, wrapped []byte, t cryptoki.Template) (cryptoki.Object, error) {
	return c.object(request{op: opUnwrapKey, numbers: [3]uint{uint(s), uint(unwrapping)}, mechanism: m, data: wrapped, template: t})
}

// DeriveKey is C_DeriveKey.
func (c *Client) DeriveKey(s cryptoki.Session, m cryptoki.Mechanism, base cryptoki.Object, t cryptoki.Template) (cryptoki.Object, error) {
	return c.object(request{op: opDeriveKey, numbers: [3]uint{uint(s), uint(base)}, mechanism: m, template: t})
}

// Encrypt is C_EncryptInit and C_Encrypt.
func (c *Client) Encrypt(s cryptoki.Session, m cryptoki.Mechanism, key cryptoki.Object, in []byte) (out, iv []byte, err error) {
	q := request{op: opEncrypt, numbers: [3]uint{uint(s), uint(key)}, mechanism: m, data: in}
	x, err := c.ask(&q)
	if err != nil {
		return nil, nil, err
	}
	defer x.release()
	return bytes.Clone(x.reply.out), bytes.Clone(x.reply.iv), nil
}

// Decrypt is C_DecryptInit and C_Decrypt.
func (c *Client) Decrypt(s cryptoki.Session, m cryptoki.Mechanism, key cryptoki.Object, in []byte) ([]byte, error) {
	return c.bytes(request{op: opDecrypt, numbers: [3]uint{uint(s), uint(key)}, mechanism: m, data: in})
}

// Sign is C_SignInit and C_Sign.
func (c *Client) Sign(s cryptoki.Session, m cryptoki.Mechanism, key cryptoki.Object, in []byte) ([]byte, error) {
	return c.bytes(request{op: opSign, numbers: [3]uint{uint(s), uint(key)}, mechanism: m, data: in})
}
