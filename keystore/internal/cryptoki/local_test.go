package cryptoki_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// opened is a session with a new token.
type opened struct {
	cryptoki.Module
	faulty *tokentest.Faulty
	s      cryptoki.Session
}

func open(t *testing.T) opened {
	t.Helper()
	faulty := tokentest.NewFaulty(t)
	m, err := cryptoki.Load(faulty.Path, "")
	must(t, err)
	must(t, m.Initialize())
	t.Cleanup(func() {
		must(t, m.Finalize())
		m.Destroy()
	})
	slots, err := m.GetSlotList(true)
	must(t, err)
	label := "token-" + rand.Text()[:12]
	must(t, m.InitToken(slots[len(slots)-1], tokentest.PIN, label))
	o := opened{m, faulty, openSession(t, m, label)}
	pin := func() (string, error) { return tokentest.PIN, nil }
	_, err = m.Login(o.s, pkcs11.CKU_SO, pin, nil)
	must(t, err)
	must(t, m.InitPIN(o.s, tokentest.PIN))
	must(t, m.Logout(o.s))
	_, err = m.Login(o.s, pkcs11.CKU_USER, pin, nil)
	must(t, err)
	return o
}

func openSession(t *testing.T, m cryptoki.Module, label string) cryptoki.Session {
	t.Helper()
	slots, err := m.GetSlotList(true)
	must(t, err)
	for _, slot := range slots {
		info, err := m.GetTokenInfo(slot)
		must(t, err)
		if info.Label != label {
			continue
		}
		s, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		must(t, err)
		return s
	}
	t.Fatal("the token is not there")
	return 0
}

func aesKey(t *testing.T, o opened, label string) cryptoki.Object {
	t.Helper()
	var template cryptoki.Template
	for attribute, value := range map[uint]any{
		pkcs11.CKA_TOKEN: false, pkcs11.CKA_VALUE_LEN: 32, pkcs11.CKA_LABEL: label, pkcs11.CKA_ENCRYPT: true, pkcs11.CKA_DECRYPT: true,
		pkcs11.CKA_WRAP: true, pkcs11.CKA_EXTRACTABLE: true,
	} {
		template = append(template, pkcs11.NewAttribute(attribute, value))
	}
	key, err := o.GenerateKey(o.s, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), template)
	must(t, err)
	return key
}

func rsaPair(t *testing.T, o opened) (public, private cryptoki.Object) {
	t.Helper()
	session := pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)
	public, private, err := o.GenerateKeyPair(o.s, cryptoki.Plain(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN),
		cryptoki.Template{session, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true)},
		cryptoki.Template{session, pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)})
	must(t, err)
	return public, private
}

func gcm() cryptoki.Mechanism {
	return cryptoki.Mechanism{Type: pkcs11.CKM_AES_GCM, GCM: &cryptoki.GCM{IV: make([]byte, 12), AAD: []byte("aad")}}
}

func ask(types ...uint) (t cryptoki.Template) {
	for _, attribute := range types {
		t = append(t, pkcs11.NewAttribute(attribute, nil))
	}
	return t
}

// An operation costs one call of each of its functions: none only asks for a length.
func TestOneCallEach(t *testing.T) {
	o := open(t)
	key, wrapping := aesKey(t, o, "k"), aesKey(t, o, "w")
	public, private := rsaPair(t, o)
	oaep := cryptoki.Mechanism{Type: pkcs11.CKM_RSA_PKCS_OAEP, OAEP: &cryptoki.OAEP{Hash: pkcs11.CKM_SHA_1, MGF: pkcs11.CKG_MGF1_SHA1}}
	var sealed, sealedRSA []byte
	for _, c := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"encrypt", func() (err error) { sealed, _, err = o.Encrypt(o.s, gcm(), key, []byte("text")); return err }, []string{"C_EncryptInit", "C_Encrypt"}},
		{"decrypt", func() error { _, err := o.Decrypt(o.s, gcm(), key, sealed); return err }, []string{"C_DecryptInit", "C_Decrypt"}},
		{"encrypt long", func() error { _, _, err := o.Encrypt(o.s, gcm(), key, make([]byte, 1<<20)); return err }, []string{"C_EncryptInit", "C_Encrypt"}},
		{"encrypt blocks", func() error {
			_, _, err := o.Encrypt(o.s, cryptoki.Plain(pkcs11.CKM_AES_ECB), key, make([]byte, 1<<14))
			return err
		}, []string{"C_EncryptInit", "C_Encrypt"}},
		{"encrypt by RSA", func() (err error) { sealedRSA, _, err = o.Encrypt(o.s, oaep, public, []byte("t")); return err }, []string{"C_EncryptInit", "C_Encrypt"}},
		{"decrypt by RSA", func() error { _, err := o.Decrypt(o.s, oaep, private, sealedRSA); return err }, []string{"C_DecryptInit", "C_Decrypt"}},
		{"sign", func() error {
			_, err := o.Sign(o.s, cryptoki.Plain(pkcs11.CKM_SHA256_RSA_PKCS), private, []byte("text"))
			return err
		}, []string{"C_SignInit", "C_Sign"}},
		{"wrap", func() error {
			_, err := o.WrapKey(o.s, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD), wrapping, key)
			return err
		}, []string{"C_WrapKey"}},
		{"random", func() error { _, err := o.GenerateRandom(o.s, 100); return err }, []string{"C_GenerateRandom"}},
		{"attributes", func() error {
			_, err := o.GetAttributeValue(o.s, key, ask(pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_ENCRYPT))
			return err
		}, []string{"C_GetAttributeValue"}},
	} {
		before := map[string]int{}
		for _, function := range c.want {
			before[function] = o.faulty.Count(t, function)
		}
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, function := range c.want {
			if n := o.faulty.Count(t, function) - before[function]; n != 1 {
				t.Errorf("%s: %d calls of %s", c.name, n, function)
			}
		}
	}
}

// What the object does not have, or the token does not tell, is nil; all else is told.
func TestUntoldAttributes(t *testing.T) {
	o := open(t)
	key := aesKey(t, o, "k")
	wanted := ask(pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_ENCRYPT, pkcs11.CKA_VALUE_LEN)
	for _, behaviour := range []string{
		"", // SoftHSM2 has it, empty
		"untold 0x102 CKR_ATTRIBUTE_TYPE_INVALID", "untold 0x102 CKR_ATTRIBUTE_SENSITIVE",
		"untold abruptly 0x102 CKR_ATTRIBUTE_TYPE_INVALID", "untold abruptly 0x102 CKR_ATTRIBUTE_SENSITIVE",
	} {
		o.faulty.Set(t, behaviour)
		got, err := o.GetAttributeValue(o.s, key, wanted)
		if err != nil || len(got) != 4 {
			t.Errorf("%s: %v, %v", behaviour, got, err)
			continue
		}
		if string(got[0].Value) != "k" || len(got[2].Value) != 1 || len(got[3].Value) != 8 {
			t.Errorf("%s: %v %v %v", behaviour, got[0], got[2], got[3])
		}
		if id := got[1]; id.Type != pkcs11.CKA_ID || (id.Value == nil) != (behaviour != "") {
			t.Errorf("%s: CKA_ID is %#v", behaviour, id)
		}
	}
	o.faulty.Set(t, "untold 0x102 CKR_DEVICE_ERROR")
	if _, err := o.GetAttributeValue(o.s, key, wanted); !errors.Is(err, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)) {
		t.Errorf("an attribute by which the token fails: %v", err)
	}
}

// No number that a module answers is believed.
func TestClaims(t *testing.T) {
	o := open(t)
	key, wrapping := aesKey(t, o, "k"), aesKey(t, o, "w")
	sealed, _, err := o.Encrypt(o.s, gcm(), key, []byte("text"))
	must(t, err)
	slots, err := o.GetSlotList(true)
	must(t, err)
	for function, do := range map[string]func() error{
		"C_GetSlotList": func() error { _, err := o.GetSlotList(true); return err },
		"C_FindObjects": func() error { _, err := o.FindObjects(o.s, nil); return err },
		"C_GetMechanismList": func() error {
			_, err := o.GetMechanismList(slots[0])
			return err
		},
		"C_GetAttributeValue": func() error {
			_, err := o.GetAttributeValue(o.s, key, ask(pkcs11.CKA_LABEL, pkcs11.CKA_ENCRYPT))
			return err
		},
		"C_Encrypt": func() error { _, _, err := o.Encrypt(o.s, gcm(), key, []byte("text")); return err },
		"C_Decrypt": func() error { _, err := o.Decrypt(o.s, gcm(), key, sealed); return err },
		"C_WrapKey": func() error {
			_, err := o.WrapKey(o.s, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD), wrapping, key)
			return err
		},
	} {
		for _, n := range []uint64{1 << 62, 1<<64 - 2, 1 << 40, 100_000} {
			o.faulty.Set(t, fmt.Sprintf("claim %s %d", function, n))
			err := do()
			if err == nil || !strings.Contains(err.Error(), "there is room for") {
				t.Errorf("%s answers %d: %v", function, n, err)
			}
			o.faulty.Set(t)
			if err := do(); err != nil {
				t.Errorf("%s, well again: %v", function, err)
			}
		}
	}
}

// A file that is no module is refused with the reason.
func TestNoModule(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.so")
	must(t, os.WriteFile(text, []byte(strings.Repeat("no library\n", 100)), 0o600))
	faulty := tokentest.NewFaulty(t)
	faulty.Set(t, "no-functions CKR_GENERAL_ERROR")
	for path, want := range map[string]string{
		text:           "ELF",
		t.TempDir():    "directory",
		"/nothing.so":  "No such file",
		"libm.so.6":    "it has no C_GetFunctionList",
		faulty.Path:    "its C_GetFunctionList answers 0x5",
		"/dev/null":    "too short",
		"/proc/self/x": "No such file",
	} {
		m, err := cryptoki.Load(path, "")
		if err == nil || m != nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if err := cryptoki.CheckModule(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(t, cryptoki.CheckModule(tokentest.Module(t)))
}

func TestParameters(t *testing.T) {
	faulty := tokentest.NewFaulty(t)
	faulty.Set(t, "parameters configdir='/x'%20flags=readOnly")
	for parameters, accepted := range map[string]bool{"": false, "configdir='/y'": false, "configdir='/x' flags=readOnly": true} {
		m, err := cryptoki.Load(faulty.Path, parameters)
		must(t, err)
		if err := m.Initialize(); (err == nil) != accepted {
			t.Errorf("%q: %v", parameters, err)
		} else if accepted {
			must(t, m.Finalize())
		}
		m.Destroy()
	}
}
