package keystore_test

import (
	"bytes"
	"crypto"
	"errors"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// A token that calls a wrong padding a device error, as kryoptic does, is not taken
// for a sick one.
func TestWrongOAEPIsNoDeviceError(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	pair := material(t, v, "rsa", keystore.SpecRSA2048)
	m.Set(t, "badtag CKR_DEVICE_ERROR")
	_, err := v.DecryptOAEP(patient(t), &pair, crypto.SHA1, bytes.Repeat([]byte{1}, 256))
	if !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Errorf("a wrong padding: %v", err)
	}
}
