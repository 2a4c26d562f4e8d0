package tokentest_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

// bench is the faulty module, used as a program uses any.
type bench struct {
	t       *testing.T
	module  *tokentest.Faulty
	ctx     *pkcs11.Ctx
	slot    uint
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

var modules keystore.Modules

func newBench(t *testing.T) *bench {
	b := &bench{t: t, module: tokentest.NewFaulty(t)}
	u := b.module.Token(t, &modules)
	if b.ctx = pkcs11.New(b.module.Path); b.ctx == nil {
		t.Fatal("it cannot be loaded")
	}
	b.must(b.ctx.Initialize())
	t.Cleanup(func() { b.module.Set(t); _ = b.ctx.Finalize(); b.ctx.Destroy() })
	b.slot = b.find(u.Token)
	b.open()
	b.makeKey()
	return b
}

func (b *bench) makeKey() {
	b.t.Helper()
	var err error
	b.key, err = b.ctx.GenerateKey(b.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
	})
	b.must(err)
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) find(label string) uint {
	b.t.Helper()
	slots, err := b.ctx.GetSlotList(true)
	b.must(err)
	for _, s := range slots {
		if info, err := b.ctx.GetTokenInfo(s); err == nil && info.Label == label {
			return s
		}
	}
	b.t.Fatalf("no token %s", label)
	return 0
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	b.session, err = b.ctx.OpenSession(b.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	b.must(err)
	b.must(b.ctx.Login(b.session, pkcs11.CKU_USER, tokentest.PIN))
}

// seal encrypts with a fixed IV.
func (b *bench) seal() ([]byte, error) {
	p := pkcs11.NewGCMParams(make([]byte, 12), nil, 128)
	defer p.Free()
	if err := b.ctx.EncryptInit(b.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, b.key); err != nil {
		return nil, err
	}
	return b.ctx.Encrypt(b.session, []byte("plaintext"))
}

func (b *bench) unseal(in []byte) ([]byte, error) {
	p := pkcs11.NewGCMParams(make([]byte, 12), nil, 128)
	defer p.Free()
	if err := b.ctx.DecryptInit(b.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, b.key); err != nil {
		return nil, err
	}
	return b.ctx.Decrypt(b.session, in)
}

func (b *bench) expect(what string, err error, code uint) {
	b.t.Helper()
	if !errors.Is(err, pkcs11.Error(code)) {
		b.t.Errorf("%s: %v instead of %v", what, err, pkcs11.Error(code))
	}
}

func TestFailures(t *testing.T) {
	b := newBench(t)
	b.module.Set(t, "fail C_Encrypt CKR_DEVICE_ERROR skip 1 count 2")
	for i, code := range []uint{0, 0x30, 0x30, 0} {
		_, err := b.seal()
		if code == 0 && err != nil {
			t.Errorf("call %d: %v", i, err)
		} else if code != 0 {
			b.expect("encrypt", err, code)
		}
	}
	b.module.Set(t, "fail crypto,C_EncryptInit 0x31 probability 0.5")
	failed := 0
	for range 200 {
		if _, err := b.seal(); err != nil {
			failed++
		}
	}
	if failed == 0 || failed == 200 {
		t.Errorf("%d of 200 calls failed at a probability of a half each", failed)
	}
	b.module.Set(t, "delay C_Encrypt 1-2")
	_, err := b.seal()
	b.must(err)
	if b.module.Count(t, tokentest.DelayedCalls) == 0 {
		t.Error("nothing was delayed")
	}
}

func TestCorruption(t *testing.T) {
	b := newBench(t)
	good, err := b.seal()
	b.must(err)
	for what, inTag := range map[string]bool{"ciphertext": false, "tag": true} {
		b.module.Set(t, "corrupt "+what)
		bad, err := b.seal()
		b.must(err)
		n := len(good) - 16
		if bytes.Equal(bad[:n], good[:n]) != inTag || bytes.Equal(bad[n:], good[n:]) == inTag {
			t.Errorf("corrupt %s: %x became %x", what, good, bad)
		}
	}
	b.module.Set(t, "corrupt plaintext")
	if out, err := b.unseal(good); err != nil || string(out) == "plaintext" || len(out) != len("plaintext") {
		t.Errorf("corrupt plaintext: %q, %v", out, err)
	}
}

func TestLosses(t *testing.T) {
	b := newBench(t)
	b.module.Set(t, "logout 1")
	if info, err := b.ctx.GetSessionInfo(b.session); err != nil || info.State != pkcs11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("logged out: %+v, %v", info, err)
	}
	b.must(b.ctx.Login(b.session, pkcs11.CKU_USER, tokentest.PIN))
	b.makeKey() // SoftHSM2 forgets the handles of private objects
	_, err := b.seal()
	b.must(err)
	b.module.Set(t, "renumber 1 CKR_KEY_HANDLE_INVALID")
	_, err = b.seal()
	b.expect("renumbered", err, pkcs11.CKR_KEY_HANDLE_INVALID)
	b.module.Set(t, "lose-sessions 1")
	_, err = b.ctx.GetSessionInfo(b.session)
	b.expect("sessions lost", err, pkcs11.CKR_SESSION_HANDLE_INVALID)
}

// A library that has lost its token may notice that it came back only when it is
// initialized again; and then it may be another one, or elsewhere.
func TestRestart(t *testing.T) {
	b := newBench(t)
	b.module.Set(t, "dead CKR_DEVICE_REMOVED until-initialize absent")
	_, err := b.seal()
	b.expect("dead", err, pkcs11.CKR_DEVICE_REMOVED)
	b.module.Set(t, "identity 0123456789abcdef another")
	_, err = b.seal()
	b.expect("still dead", err, pkcs11.CKR_DEVICE_REMOVED)
	b.must(b.ctx.Finalize())
	b.must(b.ctx.Initialize())
	b.slot = b.find("another")
	if info, err := b.ctx.GetTokenInfo(b.slot); err != nil || info.SerialNumber != "0123456789abcdef" {
		t.Errorf("the other token: %+v, %v", info, err)
	}
	before := b.slot
	b.module.Set(t, "identity 0123456789abcdef another", "slot-offset 5")
	b.must(b.ctx.Finalize())
	b.must(b.ctx.Initialize())
	if slot := b.find("another"); slot != before+5 {
		t.Errorf("it moved from slot %d to %d", before, slot)
	}
}
