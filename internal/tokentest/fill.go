package tokentest

import (
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore"
)

// Fill makes n AES-256 keys labelled prefix0, prefix1, ... in the token of u.
// It goes past keystore, whose look for twins would walk the token for each.
func Fill(tb testing.TB, u keystore.URI, prefix string, n int) {
	tb.Helper()
	if err := fill(u, prefix, n); err != nil {
		tb.Fatalf("fill the token: %v", err)
	}
}

func fill(u keystore.URI, prefix string, n int) error {
	p := pkcs11.New(u.ModulePath)
	if p == nil {
		return fmt.Errorf("cannot load %s", u.ModulePath)
	}
	if err := p.Initialize(); err == nil {
		defer func() { _ = p.Finalize() }()
	} else if err != pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return err
	}
	slots, err := p.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if ti, err := p.GetTokenInfo(slot); err == nil && ti.Label == u.Token {
			return fillSlot(p, slot, prefix, n)
		}
	}
	return fmt.Errorf("no token %q", u.Token)
}

func fillSlot(p *pkcs11.Ctx, slot uint, prefix string, n int) error {
	s, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer func() { _ = p.CloseSession(s) }()
	if err := p.Login(s, pkcs11.CKU_USER, PIN); err != nil && err != pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return err
	}
	for i := range n {
		_, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, fmt.Sprintf("%s%d", prefix, i)),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
