package tokentest_test

import (
	"slices"
	"testing"

	"github.com/miekg/pkcs11"
)

const ckmAESKeyWrapKWP = 0x210b

func (c *client) lists(t *testing.T, mechanism uint) bool {
	t.Helper()
	list, err := c.GetMechanismList(c.slot)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(m *pkcs11.Mechanism) bool { return m.Mechanism == mechanism })
}

// A hidden mechanism is not listed and does nothing, one that is listed besides
// does nothing either.
func TestMechanisms(t *testing.T) {
	c, m := start(t, "hide 0x1082 0x1087", "list 0x80000001")
	for mechanism, want := range map[uint]bool{0x1081: true, 0x1082: false, 0x1087: false, 0x80000001: true} {
		if got := c.lists(t, mechanism); got != want {
			t.Errorf("0x%x is listed: %v", mechanism, got)
		}
	}
	_, err := c.encrypt("p")
	expect(t, "a hidden mechanism", err, pkcs11.CKR_MECHANISM_INVALID)
	_, err = c.GetMechanismInfo(c.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, nil)})
	expect(t, "what it is", err, pkcs11.CKR_MECHANISM_INVALID)
	m.Set(t)
	_, err = c.encrypt("p")
	expect(t, "one that is hidden no more", err, pkcs11.CKR_OK)
}

// keyToWrap makes an AES key that wraps itself and others.
func (c *client) keyToWrap(t *testing.T) pkcs11.ObjectHandle {
	t.Helper()
	key, err := c.GenerateKey(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *client) unwrapAES(mechanism uint, by pkcs11.ObjectHandle, wrapped []byte, extra ...*pkcs11.Attribute) error {
	_, err := c.UnwrapKey(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, by, wrapped, append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
	}, extra...))
	return err
}

// The two key wraps with padding are not the same in every token.
func TestWraps(t *testing.T) {
	c, _ := start(t, "wrap kwp", "wrap pad-differs")
	if !c.lists(t, ckmAESKeyWrapKWP) {
		t.Error("CKM_AES_KEY_WRAP_KWP is not listed")
	}
	key := c.keyToWrap(t)
	wrapped := map[uint][]byte{}
	for mechanism, size := range map[uint]int{ckmAESKeyWrapKWP: 40, pkcs11.CKM_AES_KEY_WRAP_PAD: 48} {
		out, err := c.WrapKey(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, key, key)
		if err != nil || len(out) != size {
			t.Fatalf("by 0x%x: %d bytes, %v", mechanism, len(out), err)
		}
		wrapped[mechanism] = out
		expect(t, "its own", c.unwrapAES(mechanism, key, out), pkcs11.CKR_OK)
	}
	expect(t, "by the other", c.unwrapAES(pkcs11.CKM_AES_KEY_WRAP_PAD, key, wrapped[ckmAESKeyWrapKWP]), pkcs11.CKR_WRAPPED_KEY_INVALID)
	if err := c.unwrapAES(ckmAESKeyWrapKWP, key, wrapped[pkcs11.CKM_AES_KEY_WRAP_PAD]); err == nil {
		t.Error("the longer one is unwrapped as the shorter")
	}
}

func TestUnwrapRefused(t *testing.T) {
	c, m := start(t)
	key := c.keyToWrap(t)
	wrapped, err := c.WrapKey(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, key, key)
	if err != nil {
		t.Fatal(err)
	}
	own := pkcs11.NewAttribute(0xd5a0db00, []byte{4})
	for behaviour, codes := range map[string][2]uint{
		"unwrap-refused 0x1f CKR_TEMPLATE_INCOMPLETE":                   {pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCOMPLETE},
		"unwrap-refused 0x1f CKR_TEMPLATE_INCOMPLETE unless 0xd5a0db00": {pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_OK},
		"unwrap-refused 0x3 CKR_TEMPLATE_INCOMPLETE unless 0xd5a0db00":  {pkcs11.CKR_OK, pkcs11.CKR_OK},
	} {
		m.Set(t, behaviour)
		expect(t, behaviour, c.unwrapAES(pkcs11.CKM_AES_KEY_WRAP_PAD, key, wrapped), codes[0])
		expect(t, behaviour+", with the attribute", c.unwrapAES(pkcs11.CKM_AES_KEY_WRAP_PAD, key, wrapped, own), codes[1])
	}
}
