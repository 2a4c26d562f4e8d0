package child_test

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Each method answers in another process what it does in this one, and its errors
// are the same.
func TestMethods(t *testing.T) {
	local, err := cryptoki.Load(tokentest.Module(t), "")
	must(t, err)
	must(t, local.Initialize())
	label := newToken(t, local)
	must(t, errors.Join(local.Finalize(), local.Initialize())) // the token gets its slot
	here := exercise(t, local, slotOf(t, local, label))
	must(t, local.Finalize())
	local.Destroy()

	remote := started(t, config(tokentest.Module(t), commandServe))
	there := exercise(t, remote, slotOf(t, remote, label))
	for _, name := range slices.Sorted(maps.Keys(here)) {
		if !reflect.DeepEqual(here[name], there[name]) {
			t.Errorf("%s: %v in this process, %v in another one", name, here[name], there[name])
		}
	}
	if len(here) != len(there) {
		t.Errorf("%d and %d results", len(here), len(there))
	}
	must(t, remote.Finalize())
}

// exercise calls every method but those that newToken calls, also so that it fails,
// and returns by name what came out and is the same each time.
func exercise(t *testing.T, m cryptoki.Module, slot uint) map[string]any {
	t.Helper()
	results := map[string]any{}
	note := func(name string, values ...any) {
		results[name] = fmt.Sprintf("%#v", values)
	}
	failed := func(name string, err error) {
		var code pkcs11.Error
		var part *cryptoki.CallError
		if !errors.As(err, &code) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.As(err, &part) {
			name += " in " + part.Call
		}
		note(name, code)
	}
	slots, err := m.GetSlotList(false)
	must(t, err)
	note("slots", slots)
	info, err := m.GetTokenInfo(slot)
	must(t, err)
	info.SessionCount, info.RwSessionCount, info.UTCTime = 0, 0, "" // these change
	note("token", info)
	_, err = m.GetTokenInfo(slot + 1000)
	failed("no token", err)
	mechanisms, err := m.GetMechanismList(slot)
	must(t, err)
	note("mechanisms", mechanisms)
	sizes, err := m.GetMechanismInfo(slot, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN)
	must(t, err)
	note("sizes", sizes)
	_, err = m.GetMechanismList(slot + 1000)
	failed("no mechanisms", err)
	_, err = m.GetMechanismInfo(slot, 0xffffffff)
	failed("no mechanism", err)

	s := open(t, m, slot)
	wrong := func() (string, error) { return "wrong", nil }
	failed("PIN", logIn(m, s, pkcs11.CKU_USER, wrong))
	refused, err := m.Login(s, pkcs11.CKU_USER, wrong, []byte("salt"))
	failed("PIN with a digest", err)
	digest, err := m.DigestPIN(wrong, []byte("salt"))
	must(t, err)
	note("digests", [][]byte{refused, digest})
	unreadable := errors.New("no PIN here")
	if err := logIn(m, s, pkcs11.CKU_USER, func() (string, error) { return "", unreadable }); !errors.Is(err, unreadable) {
		t.Errorf("unreadable PIN: %v", err)
	}
	must(t, logIn(m, s, pkcs11.CKU_USER, readPIN))
	state, err := m.GetSessionInfo(s)
	must(t, err)
	note("session", state)
	exerciseObjects(t, m, s, note, failed)
	exerciseKeys(t, m, s, note, failed)
	must(t, m.Logout(s))
	must(t, m.CloseSession(s))
	failed("closed", m.CloseSession(s))
	_, err = m.GenerateRandom(s, 16)
	failed("random", err)
	failed("initialized", m.Initialize())
	return results
}

func exerciseObjects(t *testing.T, m cryptoki.Module, s cryptoki.Session, note func(string, ...any), failed func(string, error)) {
	t.Helper()
	data, err := m.CreateObject(s, cryptoki.Template{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_PRIVATE, false),
		attribute(pkcs11.CKA_LABEL, "made"), attribute(pkcs11.CKA_VALUE, bytes.Repeat([]byte("x"), 100_000)),
	})
	must(t, err)
	must(t, m.SetAttributeValue(s, data, cryptoki.Template{attribute(pkcs11.CKA_LABEL, "data")}))
	copied, err := m.CopyObject(s, data, cryptoki.Template{attribute(pkcs11.CKA_TOKEN, false)})
	must(t, err)
	must(t, m.SetAttributeValue(s, copied, cryptoki.Template{attribute(pkcs11.CKA_LABEL, "copy")}))
	ask := cryptoki.Template{attribute(pkcs11.CKA_LABEL, nil), attribute(pkcs11.CKA_VALUE, nil), attribute(pkcs11.CKA_APPLICATION, nil), attribute(pkcs11.CKA_OBJECT_ID, nil)}
	for _, o := range []cryptoki.Object{data, copied} {
		values, err := m.GetAttributeValue(s, o, ask)
		must(t, err)
		for _, a := range values {
			note(fmt.Sprint("attribute ", a.Type, " of ", o == data), a.Value)
		}
		found, err := m.FindObjects(s, cryptoki.Template{attribute(pkcs11.CKA_LABEL, values[0].Value)})
		must(t, err)
		if len(found) != 1 || found[0] != o {
			t.Errorf("found %v, not %v", found, o)
		}
		must(t, m.DestroyObject(s, o))
	}
	found, err := m.FindObjects(s, cryptoki.Template{attribute(pkcs11.CKA_LABEL, "data")})
	if err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
	_, err = m.GetAttributeValue(s, data, ask)
	failed("destroyed", err)
	_, err = m.CreateObject(s, nil)
	failed("no object", err)
	random, err := m.GenerateRandom(s, 33)
	if err != nil || len(random) != 33 {
		t.Errorf("%d random bytes, %v", len(random), err)
	}
}

func exerciseKeys(t *testing.T, m cryptoki.Module, s cryptoki.Session, note func(string, ...any), failed func(string, error)) {
	t.Helper()
	key := aesKey(t, m, s)
	sealed, iv, err := m.Encrypt(s, gcm(), key, []byte("plaintext"))
	must(t, err)
	note("iv", iv)
	text, err := m.Decrypt(s, gcm(), key, sealed)
	must(t, err)
	note("decrypted", string(text))
	none, _, err := m.Encrypt(s, gcm(), key, nil)
	must(t, err)
	empty, err := m.Decrypt(s, gcm(), key, none)
	note("of nothing", len(none), empty, err)
	sealed[0] ^= 1
	_, err = m.Decrypt(s, gcm(), key, sealed)
	failed("damaged", err)
	_, _, err = m.Encrypt(s, gcm(), key+1000, nil)
	failed("no key", err)

	wrapped, err := m.WrapKey(s, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD), key, aesKey(t, m, s))
	must(t, err)
	note("wrapped", len(wrapped))
	secret := cryptoki.Template{attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attribute(pkcs11.CKA_TOKEN, false)}
	_, err = m.UnwrapKey(s, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD), key, wrapped, secret)
	must(t, err)
	_, err = m.UnwrapKey(s, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP_PAD), key, nil, secret)
	failed("nothing to unwrap", err)

	public, private := rsaPair(t, m, s)
	oaep := cryptoki.Mechanism{Type: pkcs11.CKM_RSA_PKCS_OAEP, OAEP: &cryptoki.OAEP{Hash: pkcs11.CKM_SHA_1, MGF: pkcs11.CKG_MGF1_SHA1}}
	sealed, _, err = m.Encrypt(s, oaep, public, []byte("by RSA"))
	must(t, err)
	text, err = m.Decrypt(s, oaep, private, sealed)
	must(t, err)
	note("by RSA", string(text))
	pss := cryptoki.Mechanism{Type: pkcs11.CKM_SHA256_RSA_PKCS_PSS, PSS: &cryptoki.PSS{Hash: pkcs11.CKM_SHA256, MGF: pkcs11.CKG_MGF1_SHA256, Salt: 32}}
	signature, err := m.Sign(s, pss, private, []byte("message"))
	must(t, err)
	note("signature", len(signature))
	_, err = m.Sign(s, pss, public, []byte("message"))
	failed("signed by a public key", err)

	public, private = curvePair(t, m, s)
	values, err := m.GetAttributeValue(s, public, cryptoki.Template{attribute(pkcs11.CKA_EC_POINT, nil)})
	must(t, err)
	var point []byte
	_, err = asn1.Unmarshal(values[0].Value, &point)
	must(t, err)
	ecdh := cryptoki.Mechanism{Type: pkcs11.CKM_ECDH1_DERIVE, ECDH: &cryptoki.ECDH{Public: point}}
	_, err = m.DeriveKey(s, ecdh, private, append(secret, attribute(pkcs11.CKA_VALUE_LEN, 32)))
	must(t, err)
}

func rsaPair(t *testing.T, m cryptoki.Module, s cryptoki.Session) (public, private cryptoki.Object) {
	t.Helper()
	public, private, err := m.GenerateKeyPair(s, cryptoki.Plain(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN),
		cryptoki.Template{
			attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_ENCRYPT, true), attribute(pkcs11.CKA_VERIFY, true),
			attribute(pkcs11.CKA_MODULUS_BITS, 2048), attribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		},
		cryptoki.Template{attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_DECRYPT, true), attribute(pkcs11.CKA_SIGN, true)})
	must(t, err)
	return public, private
}

func curvePair(t *testing.T, m cryptoki.Module, s cryptoki.Session) (public, private cryptoki.Object) {
	t.Helper()
	p256, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
	must(t, err)
	public, private, err = m.GenerateKeyPair(s, cryptoki.Plain(pkcs11.CKM_EC_KEY_PAIR_GEN),
		cryptoki.Template{attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_EC_PARAMS, p256)},
		cryptoki.Template{attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_DERIVE, true)})
	must(t, err)
	return public, private
}

// A search may find more than a buffer holds.
func TestManyObjects(t *testing.T) {
	m := started(t, config(tokentest.Module(t), commandServe))
	s := login(t, m, slotOf(t, m, newToken(t, m)))
	const many = 5000
	made := map[cryptoki.Object]bool{}
	for range many {
		o, err := m.CreateObject(s, cryptoki.Template{
			attribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_LABEL, "many"),
		})
		must(t, err)
		made[o] = true
	}
	found, err := m.FindObjects(s, cryptoki.Template{attribute(pkcs11.CKA_LABEL, "many")})
	must(t, err)
	for _, o := range found {
		delete(made, o)
	}
	if len(found) != many || len(made) != 0 {
		t.Errorf("%d found, %d not", len(found), len(made))
	}
}
