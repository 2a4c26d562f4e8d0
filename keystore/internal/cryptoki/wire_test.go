package cryptoki

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/miekg/pkcs11"
)

func requests() []request {
	return []request{
		{id: 1, op: opLoad, text: "/a/module.so", more: "source"},
		{id: 2, op: opFindObjects, session: 7, one: Template{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "k"), pkcs11.NewAttribute(pkcs11.CKA_ID, nil)}},
		{id: 1 << 60, op: opEncrypt, session: 9, a: 3, b: 4, data: []byte("text"), mechanism: Mechanism{Type: 0x1087, GCM: &GCM{IV: []byte("iv"), AAD: []byte("aad")}}},
		{op: opSign, mechanism: Mechanism{Type: 1, PSS: &PSS{1, 2, 3}}},
		{op: opUnwrapKey, mechanism: Mechanism{Type: 1, OAEP: &OAEP{1, 2}}},
		{op: opDeriveKey, mechanism: Mechanism{Type: 1, ECDH: &ECDH{Public: []byte{4}}}, two: Template{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}},
	}
}

func answers() []answer {
	return []answer{
		{id: 1},
		{id: 2, code: pkcs11.CKR_DEVICE_ERROR, call: "C_Encrypt"},
		{id: 3, text: "no PIN"},
		{id: 4, a: 5, b: 6, list: []uint64{1, 1 << 63}, data: []byte("out"), iv: []byte("iv"), template: Template{pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{1})}},
		{id: 5, token: pkcs11.TokenInfo{Label: "l", SerialNumber: "s", Flags: 1, MaxSessionCount: 2, FirmwareVersion: pkcs11.Version{Major: 2, Minor: 6}}},
	}
}

func TestWireRoundTrip(t *testing.T) {
	var e encoder
	for _, r := range requests() {
		e.begin()
		e.request(&r)
		frame, err := e.frame()
		if err != nil {
			t.Fatal(err)
		}
		read, err := readFrame(bytes.NewReader(frame), nil)
		if err != nil {
			t.Fatal(err)
		}
		d := decoder{buf: read}
		if got, err := d.request(); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	for _, r := range answers() {
		e.begin()
		e.answer(&r)
		d := decoder{buf: e.buf[4:]}
		if got, err := d.answer(); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, err := range []error{nil, pkcs11.Error(5), &CallError{"C_SignInit", pkcs11.Error(0x30)}, errors.New("no PIN")} {
		var r answer
		r.setErr(err)
		if got := r.err(); !reflect.DeepEqual(got, err) {
			t.Errorf("%#v became %#v", err, got)
		}
	}
}

// Neither side trusts the other's memory: whatever comes is decoded or refused.
func FuzzWire(f *testing.F) {
	var e encoder
	for _, r := range requests() {
		e.begin()
		e.request(&r)
		f.Add(bytes.Clone(e.buf[4:]))
	}
	for _, r := range answers() {
		e.begin()
		e.answer(&r)
		f.Add(bytes.Clone(e.buf[4:]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := decoder{buf: bytes.Clone(data)}
		if r, err := d.request(); err == nil {
			var e encoder
			e.request(&r)
			d := decoder{buf: e.buf}
			if again, err := d.request(); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		d = decoder{buf: bytes.Clone(data)}
		if _, err := d.answer(); err != nil && !errors.Is(err, errFrame) {
			t.Error(err)
		}
	})
}

func TestFramesAreBounded(t *testing.T) {
	if _, err := readFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), nil); !errors.Is(err, errFrame) {
		t.Errorf("a huge frame: %v", err)
	}
	var e encoder
	e.begin()
	e.bytes(make([]byte, maxFrame))
	if _, err := e.frame(); err == nil {
		t.Error("a huge frame was made")
	}
}
