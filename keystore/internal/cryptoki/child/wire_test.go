package child

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

func requests() []request {
	template := cryptoki.Template{{Type: 1, Value: []byte{2}}, {Type: 1 << 40, Value: []byte{}}, {Type: 3}}
	return []request{
		{op: opFinalize},
		{op: opGenerateKeyPair, numbers: [3]uint{1, ^uint(0), 3}, mechanism: cryptoki.Plain(4), data: []byte("d"), text: []byte{}, template: template, private: template[:1]},
		{op: opEncrypt, mechanism: cryptoki.Mechanism{Type: 5, GCM: &cryptoki.GCM{IV: []byte{1}, AAD: []byte{}}}},
		{op: opDecrypt, mechanism: cryptoki.Mechanism{Type: 5, OAEP: &cryptoki.OAEP{Hash: 6, MGF: 7}}},
		{op: opSign, mechanism: cryptoki.Mechanism{Type: 5, PSS: &cryptoki.PSS{Hash: 6, MGF: 7, Salt: 8}}},
		{op: opDeriveKey, mechanism: cryptoki.Mechanism{Type: 5, ECDH: &cryptoki.ECDH{Public: []byte{9}}}},
	}
}

func replies() []reply {
	return []reply{
		{},
		{numbers: []uint{0, 1, ^uint(0)}, out: []byte{1}, iv: []byte{}, texts: []string{"a", ""}},
		{template: cryptoki.Template{{Type: 1, Value: []byte{2}}, {Type: 3}}},
		{failed: newFailure(pkcs11.Error(pkcs11.CKR_DEVICE_ERROR))},
		{failed: newFailure(&cryptoki.CallError{Call: "C_Sign", Err: pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)})},
		{failed: newFailure(errors.New("the PIN cannot be read"))},
	}
}

func TestMessages(t *testing.T) {
	for _, q := range requests() {
		if got, err := parseRequest(q.appendTo(nil)); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v became %+v, %v", q, got, err)
		}
	}
	for _, r := range replies() {
		if got, err := parseReply(r.appendTo(nil)); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
}

// Errors keep what callers decide by.
func TestFailures(t *testing.T) {
	call := &cryptoki.CallError{Call: "C_FindObjects", Err: pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)}
	for _, c := range []struct{ in, want error }{
		{nil, nil},
		{pkcs11.Error(pkcs11.CKR_PIN_INCORRECT), pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)},
		{call, call},
		{errors.Join(call, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)), call},
		{errors.New("no file"), errors.New("no file")},
	} {
		if got := newFailure(c.in).error(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v became %v", c.in, got)
		}
	}
}

// Every part of a message is needed, and nothing may follow it.
func TestMalformedMessages(t *testing.T) {
	check := func(message []byte, parse func([]byte) error) {
		t.Helper()
		for n := range message {
			if err := parse(message[:n]); !errors.Is(err, errMalformed) {
				t.Errorf("%d bytes of %x: %v", n, message, err)
			}
		}
		if err := parse(append(message, 0)); !errors.Is(err, errMalformed) {
			t.Errorf("a byte after %x: %v", message, err)
		}
	}
	for _, q := range requests() {
		check(q.appendTo(nil), func(b []byte) error { _, err := parseRequest(b); return err })
	}
	for _, r := range replies() {
		check(r.appendTo(nil), func(b []byte) error { _, err := parseReply(b); return err })
	}
}

func FuzzRequest(f *testing.F) {
	for _, q := range requests() {
		f.Add(q.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		q, err := parseRequest(message)
		if err != nil {
			return
		}
		again := q.appendTo(nil)
		if len(again) > len(message) {
			t.Errorf("%d bytes became %d", len(message), len(again))
		}
		if got, err := parseRequest(again); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v became %+v, %v", q, got, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, r := range replies() {
		f.Add(r.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := parseReply(message)
		if err != nil {
			return
		}
		_, _ = r.tokenInfo() // must bear any
		_ = r.failed.error()
		again := r.appendTo(nil)
		if len(again) > len(message) {
			t.Errorf("%d bytes became %d", len(message), len(again))
		}
		if got, err := parseReply(again); err != nil || !bytes.Equal(got.appendTo(nil), again) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	})
}

// A process that has no module yet says what a module does that is not initialized,
// so that what was in the one before is known to be gone.
func TestNoModuleYet(t *testing.T) {
	if err := new(server).do(&request{op: opCloseSession}, new(reply)); err != pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		t.Error(err)
	}
}
