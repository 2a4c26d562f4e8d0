package keystore_test

import (
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// Whoever is stopped in the midst of disabling or enabling a key leaves the key in
// one of its states, and what is left behind goes at the next change.
func TestStoppedInSetEnabled(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	token := newRaw(t, m.Path, tok)
	k := generate(t, tok, "k", both)
	s := seal(t, k, "p", "")
	objects := func(want int) {
		t.Helper()
		if n := token.count(pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "k")); n != want {
			t.Errorf("the key has %d objects, not %d", n, want)
		}
	}
	state := func(disabled bool) {
		t.Helper()
		for _, tok := range []*keystore.Token{tok, tokentest.Open(t, &modules, tokentest.Options(u))} {
			if err := tok.Refresh(patient(t)); err != nil { // as a server does by itself
				t.Fatal(err)
			}
			info, err := tok.Describe(patient(t), "k")
			if err != nil || info.Disabled != disabled || len(info.Versions) != 1 {
				t.Errorf("%+v, %v", info, err)
			}
			got, err := find(t, tok, "k").Decrypt(patient(t), 1, s, nil)
			if disabled && !errors.Is(err, keystore.ErrKeyDisabled) || !disabled && (err != nil || string(got) != "p") {
				t.Errorf("disabled: %v: %q, %v", disabled, got, err)
			}
		}
	}
	for _, enabled := range []bool{false, true, false, true, false, true} {
		m.Set(t, "fail C_CopyObject 0x30 count 1")
		if err := tok.SetEnabled(patient(t), "k", enabled); err == nil {
			t.Error("a copy that fails is a success")
		}
		objects(1)
		state(enabled)
		m.Set(t, "fail C_DestroyObject 0x30 count 1")
		if err := tok.SetEnabled(patient(t), "k", enabled); err == nil {
			t.Error("an old key that stays is a success")
		}
		objects(2)
		state(!enabled)
		m.Set(t)
		if err := tok.SetEnabled(patient(t), "k", enabled); err != nil {
			t.Error(err)
		}
		objects(1)
		state(!enabled)
	}
	m.Set(t, "fail C_DestroyObject 0x30 count 1")
	if err := tok.SetEnabled(patient(t), "k", false); err == nil {
		t.Error("an old key that stays is a success")
	}
	m.Set(t)
	if err := tok.DestroyKey(patient(t), "k", 0); err != nil { // and nothing of it stays
		t.Error(err)
	}
	objects(0)
}

// A version that is not whole is never under the key's name, and what a killed
// process left of one goes when it is old enough.
func TestStoppedInRotateKey(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	token := newRaw(t, m.Path, tok)
	s := seal(t, generate(t, tok, "k", both), "p", "")
	m.Set(t, "fail C_SetAttributeValue 0x30 count 1", "fail C_DestroyObject 0x30 count 1")
	if _, err := tok.RotateKey(patient(t), "k"); err == nil {
		t.Error("a version without its name is a success")
	}
	m.Set(t)
	staged := func() int { return token.count(pkcs11.NewAttribute(pkcs11.CKA_LABEL, "hyok.new")) }
	if n := staged(); n != 1 {
		t.Fatalf("%d keys are left behind", n)
	}
	opensIn(t, tok, "k", 1, s, "p")
	if n, err := tok.RotateKey(patient(t), "k"); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if n := staged(); n != 1 {
		t.Errorf("%d keys are staged: another process may have been at it", n)
	}
	old := append(make([]byte, 8), "12345678"...) // since 1970
	if err := token.ctx.FindObjectsInit(token.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "hyok.new")}); err != nil {
		t.Fatal(err)
	}
	found, _, err := token.ctx.FindObjects(token.session, 10)
	if err := errors.Join(err, token.ctx.FindObjectsFinal(token.session)); err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if err := token.ctx.SetAttributeValue(token.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, old)}); err != nil {
		t.Fatal(err)
	}
	if n, err := tok.RotateKey(patient(t), "k"); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if n := staged(); n != 0 {
		t.Errorf("%d keys are still left behind", n)
	}
}
