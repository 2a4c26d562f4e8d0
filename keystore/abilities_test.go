package keystore_test

import (
	"errors"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// What a token can do is seen by trying, whatever it lists, and nothing of that stays.
func TestAbilities(t *testing.T) {
	external := func(a keystore.Abilities) bool { return a.External == nil }
	does := func(a keystore.Abilities, spec keystore.Spec, use keystore.Use) bool {
		for _, k := range a.Keys {
			if k.Spec == spec && k.Use == use {
				return k.Err == nil
			}
		}
		t.Errorf("nothing is told of %s to %v", spec, use)
		return false
	}
	all := func(a keystore.Abilities, wrapped bool) {
		t.Helper()
		for _, k := range a.Keys {
			if k.Err != nil || k.Wrapped != (wrapped && k.Spec != keystore.SpecEd25519) {
				t.Errorf("%+v", k)
			}
		}
		if len(a.Keys) != 19 { // of 13 specs, those of pairs for each use
			t.Errorf("%d kinds of key", len(a.Keys))
		}
	}
	for _, c := range []struct {
		behaviours []string
		check      func(keystore.Abilities)
	}{
		{nil, func(a keystore.Abilities) {
			all(a, true)
			if !external(a) || a.KeyWrap != nil || a.Wrap != keystore.WrapPad || len(a.Imports) != 4 {
				t.Errorf("%+v", a)
			}
			for _, i := range a.Imports {
				if sha1 := i.Algorithm == keystore.ImportOAEPSHA1 || i.Algorithm == keystore.ImportKeyWrapSHA1; i.Err != nil || i.Inside != sha1 {
					t.Errorf("%+v", i)
				}
			}
		}},
		{[]string{withKWP, padDiffers}, func(a keystore.Abilities) {
			if all(a, true); a.Wrap != keystore.WrapKWP {
				t.Errorf("wraps by %q", a.Wrap)
			}
		}},
		{[]string{noPad}, func(a keystore.Abilities) {
			if all(a, false); !errors.Is(a.KeyWrap, keystore.ErrUnsupported) {
				t.Errorf("wraps by %q, %v", a.Wrap, a.KeyWrap)
			}
		}},
		// CKM_AES_KEY_GEN is listed all the same.
		{[]string{"fail C_GenerateKey CKR_FUNCTION_NOT_SUPPORTED"}, func(a keystore.Abilities) {
			if external(a) || does(a, keystore.SpecAES256, 0) || does(a, keystore.SpecHMAC256, 0) || !does(a, keystore.SpecP256, keystore.UseSign) || !does(a, keystore.SpecRSA4096, keystore.UseDecrypt) {
				t.Errorf("%+v", a)
			}
		}},
		{[]string{"hide 0x1087 0x1050 0x3 0x9"}, func(a keystore.Abilities) {
			if external(a) || does(a, keystore.SpecP256, keystore.UseAgree) || !does(a, keystore.SpecP256, keystore.UseSign) ||
				does(a, keystore.SpecRSA3072, keystore.UseDecrypt) || !does(a, keystore.SpecRSA3072, keystore.UseSign) || a.Imports[1].Err == nil {
				t.Errorf("%+v", a)
			}
		}},
		{[]string{noECUnwrap}, func(a keystore.Abilities) {
			for _, k := range a.Keys {
				if ec := k.Spec == keystore.SpecP256; k.Err != nil || ec && k.Wrapped {
					t.Errorf("%+v", k)
				}
			}
		}},
	} {
		tok, m, _ := newFaulty(t, "softhsm2", c.behaviours)
		a, err := tok.Abilities(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		c.check(a)
		made := m.Count(t, "C_GenerateKey") + 2*m.Count(t, "C_GenerateKeyPair") + m.Count(t, "C_UnwrapKey") + m.Count(t, "C_CreateObject") + m.Count(t, "C_DeriveKey")
		const refused = 1 // unwrapping by OAEP with SHA-256
		if n := m.Count(t, "C_DestroyObject"); len(c.behaviours) == 0 && n != made-refused {
			t.Errorf("%d objects were made and %d destroyed", made-refused, n)
		}
		if s := tok.Stats(); s.Failures != 0 {
			t.Errorf("%v: %+v", c.behaviours, s)
		}
	}
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	m.Set(t, "fail crypto CKR_DEVICE_ERROR")
	var te *keystore.TokenError
	if _, err := tok.Abilities(patient(t)); !errors.As(err, &te) {
		t.Errorf("of a sick token: %v", err)
	}
}

// A token that calls it a general error that it lacks a curve is believed once it
// proves to be well.
func TestUnclearLackOfACurve(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	m.Set(t, "fail C_GenerateKeyPair CKR_GENERAL_ERROR")
	if _, err := v.Generate(patient(t), "k", keystore.SpecSecp256k1); !errors.Is(err, keystore.ErrUnsupported) {
		t.Error(err)
	}
	m.Set(t, "fail C_GenerateKeyPair CKR_GENERAL_ERROR count 1")
	material(t, v, "k", keystore.SpecSecp256k1)
	m.Set(t, "fail crypto CKR_GENERAL_ERROR")
	var te *keystore.TokenError
	if _, err := v.Generate(patient(t), "k", keystore.SpecSecp256k1); !errors.As(err, &te) || errors.Is(err, keystore.ErrUnsupported) {
		t.Errorf("of a sick token: %v", err)
	}
}

// An external key that the token cannot use is not made.
func TestExternalKeyOfNoUse(t *testing.T) {
	p := keystore.Profiles()[0]
	p.SessionCopies, p.HalfKeys = false, false
	tok, m, _ := newFaulty(t, "softhsm2", nil, func(o *keystore.Options) { o.Profile = p })
	m.Set(t, "hide 0x1087")
	if err := tok.GenerateKey(patient(t), "k", both); !errors.Is(err, keystore.ErrUnsupported) {
		t.Error(err)
	}
	if err := tok.ImportKey(patient(t), "k", both, make([]byte, 32)); !errors.Is(err, keystore.ErrUnsupported) {
		t.Error(err)
	}
	m.Set(t)
	generate(t, tok, "k", both) // nothing is there of those
}
