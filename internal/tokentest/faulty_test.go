package tokentest_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// is tells whether an error is a code of PKCS#11; code 0 is success.
func is(err error, code uint) bool {
	var e pkcs11.Error
	if code == pkcs11.CKR_OK {
		return err == nil
	}
	return errors.As(err, &e) && uint(e) == code
}

func expect(t *testing.T, what string, err error, code uint) {
	t.Helper()
	if !is(err, code) {
		t.Errorf("%s: %v instead of %v", what, err, pkcs11.Error(code))
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func TestFail(t *testing.T) {
	const ok, bad = pkcs11.CKR_OK, pkcs11.CKR_DEVICE_ERROR
	for behaviour, codes := range map[string][]uint{
		"fail C_Encrypt 0x30":                                        {bad, bad, bad},
		"fail C_Encrypt CKR_DEVICE_ERROR":                            {bad, bad, bad},
		"fail C_Encrypt 48 count 2":                                  {bad, bad, ok},
		"fail C_Encrypt 0x30 skip 1":                                 {ok, bad, bad},
		"fail C_Encrypt 0x30 skip 1 count 1":                         {ok, bad, ok, ok},
		"fail C_Encrypt 0x30 count 0":                                {ok, ok},
		"fail C_Encrypt 0x30 probability 0":                          {ok, ok, ok, ok},
		"fail C_Encrypt 0x30 probability 1 count 1":                  {bad, ok},
		"fail C_Decrypt,C_EncryptInit 0x30":                          {bad, bad},
		"fail C_Decrypt 0x30":                                        {ok},
		"fail crypto 0x30 count 1":                                   {bad, ok},
		"fail session 0x30 count 1":                                  {bad, ok},
		"fail any 0x30 count 1":                                      {bad, ok},
		"# a comment\n\n  fail any 0x30 count 1\r":                   {bad, ok},
		"fail C_Encrypt 0x30 count 1\nfail C_Encrypt 0x32 count 1\n": {bad, pkcs11.CKR_DEVICE_REMOVED, ok},
	} {
		t.Run(behaviour, func(t *testing.T) {
			c, m := start(t)
			m.Set(t, behaviour)
			failures := 0
			for i, code := range codes {
				_, err := c.encrypt("p")
				expect(t, fmt.Sprint("call ", i), err, code)
				if code != ok {
					failures++
				}
			}
			if n := m.Count(t, tokentest.FailedCalls); n != failures {
				t.Errorf("%d failed calls are counted, there were %d", n, failures)
			}
			m.Set(t)
			_, err := c.encrypt("p")
			expect(t, "well again", err, ok)
		})
	}
}

func TestProbability(t *testing.T) {
	c, m := start(t)
	m.Set(t, "fail C_Encrypt 0x30 probability 0.5")
	failed := 0
	for range 400 {
		if _, err := c.encrypt("p"); err != nil {
			expect(t, "a failure", err, pkcs11.CKR_DEVICE_ERROR)
			failed++
		}
	}
	if failed < 100 || failed > 300 { // else by chance once in 10^23 times
		t.Errorf("%d of 400 calls failed", failed)
	}
}

// Searches find nothing, so many of them or for a while.
func TestFindNothing(t *testing.T) {
	c, m := start(t)
	find := func() int {
		t.Helper()
		if err := c.FindObjectsInit(c.session, nil); err != nil {
			t.Fatal(err)
		}
		found, _, err := c.FindObjects(c.session, 10)
		if err := errors.Join(err, c.FindObjectsFinal(c.session)); err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for behaviour, found := range map[string][]bool{
		"find-nothing":                {false, false, false},
		"find-nothing count 2":        {false, false, true},
		"find-nothing skip 1 count 1": {true, false, true},
		"find-nothing for 0":          {true, true},
		"find-nothing for 1000000":    {false, false},
	} {
		m.Set(t, behaviour)
		for i, want := range found {
			if got := find() > 0; got != want {
				t.Errorf("%s: search %d finds something: %v", behaviour, i, got)
			}
		}
	}
	m.Set(t, "find-nothing for 20")
	eventually(t, "searches find something", func() bool { return find() > 0 })
}

// Also the functions that are about the library and not a session.
func TestEveryKindOfFunctionFails(t *testing.T) {
	aes := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC_PAD, make([]byte, 16))}
	for function, call := range map[string]func(*client) error{
		"C_Initialize":       func(c *client) error { return errors.Join(c.Finalize(), c.Initialize()) },
		"C_Finalize":         func(c *client) error { return c.Finalize() },
		"C_GetInfo":          func(c *client) error { _, err := c.GetInfo(); return err },
		"C_GetSlotList":      func(c *client) error { _, err := c.GetSlotList(true); return err },
		"C_GetSlotInfo":      func(c *client) error { _, err := c.GetSlotInfo(c.slot); return err },
		"C_GetTokenInfo":     func(c *client) error { _, err := c.GetTokenInfo(c.slot); return err },
		"C_GetMechanismList": func(c *client) error { _, err := c.GetMechanismList(c.slot); return err },
		"C_GetMechanismInfo": func(c *client) error { _, err := c.GetMechanismInfo(c.slot, aes); return err },
		"C_OpenSession":      func(c *client) error { _, err := c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION); return err },
		"C_CloseSession":     func(c *client) error { return c.CloseSession(c.session) },
		"C_CloseAllSessions": func(c *client) error { return c.CloseAllSessions(c.slot) },
		"C_GetSessionInfo":   func(c *client) error { _, err := c.GetSessionInfo(c.session); return err },
		"C_Login": func(c *client) error {
			return errors.Join(c.Logout(c.session), c.Login(c.session, pkcs11.CKU_USER, tokentest.PIN))
		},
		"C_Logout":        func(c *client) error { return c.Logout(c.session) },
		"C_CreateObject":  func(c *client) error { return c.makeKey() },
		"C_DestroyObject": func(c *client) error { return c.DestroyObject(c.session, c.key) },
		"C_GetAttributeValue": func(c *client) error {
			_, err := c.GetAttributeValue(c.session, c.key, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil)})
			return err
		},
		"C_FindObjectsInit": func(c *client) error {
			return errors.Join(c.FindObjectsInit(c.session, nil), c.FindObjectsFinal(c.session))
		},
		"C_EncryptInit":    func(c *client) error { return c.EncryptInit(c.session, aes, c.key) },
		"C_DecryptInit":    func(c *client) error { return c.DecryptInit(c.session, aes, c.key) },
		"C_GenerateRandom": func(c *client) error { _, err := c.GenerateRandom(c.session, 8); return err },
	} {
		t.Run(function, func(t *testing.T) {
			c, m := start(t)
			m.Set(t, "fail "+function+" 0x32 count 1")
			err := call(c)
			if !strings.Contains(fmt.Sprint(err), "CKR_DEVICE_REMOVED") {
				t.Errorf("it answers %v", err)
			}
			if n := m.Count(t, tokentest.FailedCalls); n != 1 {
				t.Errorf("%d calls failed", n)
			}
		})
	}
}

// A call that fails ends the operation of its session, as PKCS#11 wants it: else
// the next one would find an operation active.
func TestFailureEndsOperation(t *testing.T) {
	sha256 := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)}
	cbc := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC_PAD, make([]byte, 16))}
	cmac := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CMAC, nil)}
	for function, call := range map[string]struct{ begin, do func(*client) error }{
		"C_Digest": {
			func(c *client) error { return c.DigestInit(c.session, sha256) },
			func(c *client) error { _, err := c.Digest(c.session, []byte("d")); return err },
		},
		"C_DigestUpdate": {
			func(c *client) error { return c.DigestInit(c.session, sha256) },
			func(c *client) error { return c.DigestUpdate(c.session, []byte("d")) },
		},
		"C_EncryptUpdate": {
			func(c *client) error { return c.EncryptInit(c.session, cbc, c.key) },
			func(c *client) error { _, err := c.EncryptUpdate(c.session, []byte("d")); return err },
		},
		"C_Decrypt": {
			func(c *client) error { return c.DecryptInit(c.session, cbc, c.key) },
			func(c *client) error { _, err := c.Decrypt(c.session, make([]byte, 16)); return err },
		},
		"C_DecryptUpdate": {
			func(c *client) error { return c.DecryptInit(c.session, cbc, c.key) },
			func(c *client) error { _, err := c.DecryptUpdate(c.session, make([]byte, 16)); return err },
		},
		"C_Sign": {
			func(c *client) error { return c.SignInit(c.session, cmac, c.key) },
			func(c *client) error { _, err := c.Sign(c.session, []byte("d")); return err },
		},
		"C_SignUpdate": {
			func(c *client) error { return c.SignInit(c.session, cmac, c.key) },
			func(c *client) error { return c.SignUpdate(c.session, []byte("d")) },
		},
	} {
		t.Run(function, func(t *testing.T) {
			c, m := start(t)
			m.Set(t, "fail "+function+" 0x30 count 1")
			for i, code := range []uint{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_OK} {
				expect(t, fmt.Sprint("begin ", i), call.begin(c), pkcs11.CKR_OK)
				if err := call.do(c); function != "C_Decrypt" || i == 0 { // what it decrypts is nothing
					expect(t, fmt.Sprint("call ", i), err, code)
				}
			}
		})
	}
}

func TestDelay(t *testing.T) {
	for behaviour, least := range map[string]time.Duration{
		"delay C_Encrypt 20":                        20 * time.Millisecond,
		"delay C_Encrypt 10-15":                     10 * time.Millisecond,
		"delay C_Encrypt 0.5":                       500 * time.Microsecond,
		"delay crypto 5\ndelay C_Encrypt 5":         10 * time.Millisecond,
		"delay C_Encrypt 20 probability 0":          0,
		"delay C_Encrypt 20 skip 1":                 0,
		"delay C_Encrypt,C_Decrypt 10 count 1":      10 * time.Millisecond,
		"delay C_Encrypt 5\nfail C_EncryptInit 0x6": 0,
	} {
		c, m := start(t)
		m.Set(t, behaviour)
		begun := time.Now()
		_, err := c.encrypt("p")
		if took := time.Since(begun); took < least {
			t.Errorf("%s: %v", behaviour, took)
		}
		if n := m.Count(t, tokentest.DelayedCalls); (n == 1) != (least > 0) || (err != nil) != strings.Contains(behaviour, "fail") {
			t.Errorf("%s: %d delayed calls, %v", behaviour, n, err)
		}
	}
}

// sessionsOf opens more sessions of a client, which its login holds for.
func sessionsOf(t *testing.T, c *client, n int) []pkcs11.SessionHandle {
	t.Helper()
	var all []pkcs11.SessionHandle
	for range n {
		s, err := c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// encryptInAll encrypts in all sessions at once; done returns the errors.
func encryptInAll(c *client, sessions []pkcs11.SessionHandle) (done func() error) {
	var wg sync.WaitGroup
	errs := make([]error, len(sessions))
	for i, s := range sessions {
		wg.Go(func() { _, _, errs[i] = c.seal(s, zeroIV, "p") })
	}
	return func() error { wg.Wait(); return errors.Join(errs...) }
}

func TestHang(t *testing.T) {
	for behaviour, hanging := range map[string]int{
		"hang C_Encrypt": 6, "hang any": 6, "hang C_Encrypt count 2": 2, "hang C_Encrypt skip 5": 1,
		"hang C_Encrypt probability 1 count 3": 3, "hang C_Encrypt\nmax-parallel 4": 4,
	} {
		t.Run(behaviour, func(t *testing.T) {
			c, m := start(t)
			sessions := sessionsOf(t, c, 6)
			m.Set(t, behaviour)
			done := encryptInAll(c, sessions)
			eventually(t, "calls hang", func() bool { return m.Count(t, tokentest.HangingCalls) == hanging })
			m.Set(t)
			if err := done(); err != nil {
				t.Error(err)
			}
			if n := m.Count(t, tokentest.HangingCalls); n != 0 {
				t.Errorf("%d calls still hang", n)
			}
		})
	}
}

func TestMaxParallel(t *testing.T) {
	c, m := start(t)
	sessions := sessionsOf(t, c, 8)
	m.Set(t, "max-parallel 3", "delay C_Encrypt 2")
	for range 5 {
		if err := encryptInAll(c, sessions)(); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Count(t, tokentest.PeakParallel); n < 1 || n > 3 {
		t.Errorf("%d calls were inside at once", n)
	}
	if n := m.Count(t, tokentest.DelayedCalls); n != 40 {
		t.Errorf("%d calls were delayed", n)
	}
}

func TestLogout(t *testing.T) {
	c, m := start(t)
	m.Set(t, "logout 1")
	info, err := c.GetSessionInfo(c.session)
	if err != nil || info.State != pkcs11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("%+v, %v", info, err)
	}
	expect(t, "login", c.Login(c.session, pkcs11.CKU_USER, tokentest.PIN), pkcs11.CKR_OK)
	m.Set(t, "logout 1", "fail C_Encrypt 0x30")
	if info, err := c.GetSessionInfo(c.session); err != nil || info.State != pkcs11.CKS_RW_USER_FUNCTIONS {
		t.Errorf("the same number logs out again: %+v, %v", info, err)
	}
}

func TestLoseSessions(t *testing.T) {
	c, m := start(t)
	m.Set(t, "lose-sessions 1")
	_, err := c.encrypt("p")
	expect(t, "encrypt", err, pkcs11.CKR_SESSION_HANDLE_INVALID)
	if n := m.Count(t, tokentest.OpenSessions); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
	m.Set(t)
	slot, label := c.slot, ""
	info, err := c.GetTokenInfo(slot)
	if err == nil {
		label = info.Label
	}
	expect(t, "begin again", c.begin(label), pkcs11.CKR_OK)
	m.Set(t, "lose-sessions 1") // as before
	_, err = c.encrypt("p")
	expect(t, "encrypt again", err, pkcs11.CKR_OK)
}

func TestRenumber(t *testing.T) {
	for behaviour, code := range map[string]uint{
		"renumber 7":                        pkcs11.CKR_OBJECT_HANDLE_INVALID,
		"renumber 7 0x60":                   pkcs11.CKR_KEY_HANDLE_INVALID,
		"renumber 7 CKR_KEY_HANDLE_INVALID": pkcs11.CKR_KEY_HANDLE_INVALID,
	} {
		c, m := start(t)
		m.Set(t, behaviour)
		old := c.key
		_, err := c.encrypt("p")
		expect(t, "encrypt by the old handle", err, code)
		_, err = c.GetAttributeValue(c.session, old, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil)})
		expect(t, "ask the old handle", err, pkcs11.CKR_OBJECT_HANDLE_INVALID)
		expect(t, "destroy the old handle", c.DestroyObject(c.session, old), pkcs11.CKR_OBJECT_HANDLE_INVALID)
		if err := c.FindObjectsInit(c.session, nil); err != nil {
			t.Fatal(err)
		}
		found, _, err := c.FindObjects(c.session, 10)
		if err != nil || len(found) != 1 || found[0] == old {
			t.Fatalf("found %v, %v", found, err)
		}
		expect(t, "end the search", c.FindObjectsFinal(c.session), pkcs11.CKR_OK)
		c.key = found[0]
		_, err = c.encrypt("p")
		expect(t, "encrypt by the new handle", err, pkcs11.CKR_OK)
		// The number that was before makes no old handle valid.
		m.Set(t, "renumber 0")
		for _, h := range []pkcs11.ObjectHandle{old, found[0]} {
			expect(t, "destroy a handle of before", c.DestroyObject(c.session, h), pkcs11.CKR_OBJECT_HANDLE_INVALID)
		}
	}
}

func TestDead(t *testing.T) {
	const code, ok = pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_OK
	for behaviour, want := range map[string]struct {
		present, slots, tokenInfo uint // what is listed is 1
	}{
		"dead 0x32":                              {1, 1, code},
		"dead CKR_DEVICE_REMOVED absent":         {0, 1, pkcs11.CKR_TOKEN_NOT_PRESENT},
		"dead 0x32 slot-absent":                  {0, 0, pkcs11.CKR_SLOT_ID_INVALID},
		"dead 0x32 absent until-initialize":      {0, 1, pkcs11.CKR_TOKEN_NOT_PRESENT},
		"dead 0x32 until-initialize slot-absent": {0, 0, pkcs11.CKR_SLOT_ID_INVALID},
		"dead 0x32 until-initialize":             {1, 1, code},
	} {
		t.Run(behaviour, func(t *testing.T) {
			c, m := start(t)
			name, err := c.GetTokenInfo(c.slot)
			expect(t, "token info", err, ok)
			isDead := func(when string) {
				t.Helper()
				_, err := c.encrypt("p")
				expect(t, when+": encrypt", err, code)
				_, err = c.GetTokenInfo(c.slot)
				expect(t, when+": token info", err, want.tokenInfo)
				_, err = c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION)
				expect(t, when+": open session", err, want.tokenInfo)
				for present, listed := range map[bool]uint{true: want.present, false: want.slots} {
					slots, err := c.GetSlotList(present)
					if is := slices.Contains(slots, c.slot); err != nil || is != (listed == 1) {
						t.Errorf("%s: slots (present: %v) %v, %v", when, present, slots, err)
					}
				}
			}
			m.Set(t, behaviour)
			isDead("the line stands")
			m.Set(t)
			if strings.Contains(behaviour, "until-initialize") {
				isDead("the line is gone")
				expect(t, "finalize", c.Finalize(), ok)
				expect(t, "initialize", c.Initialize(), ok)
				expect(t, "begin", c.begin(name.Label), ok)
			}
			_, err = c.encrypt("p")
			expect(t, "alive", err, ok)
			if !strings.Contains(behaviour, "until-initialize") {
				return
			}
			m.Set(t, behaviour)
			expect(t, "finalize, the line stands", c.Finalize(), ok)
			expect(t, "initialize, the line stands", c.Initialize(), ok)
			m.Set(t)
			_, err = c.GetTokenInfo(c.slot)
			expect(t, "it was initialized while the line stood", err, want.tokenInfo)
		})
	}
}

// restart is what an application does whose library has to notice something.
func restart(t *testing.T, c *client) {
	t.Helper()
	expect(t, "finalize", c.Finalize(), pkcs11.CKR_OK)
	expect(t, "initialize", c.Initialize(), pkcs11.CKR_OK)
}

func TestIdentity(t *testing.T) {
	c, m := start(t)
	other := label(t, m)
	restart(t, c) // so that the library knows the other token too
	info, err := c.GetTokenInfo(c.slot)
	if err != nil {
		t.Fatal(err)
	}
	mine := info.Label
	for _, want := range []struct{ behaviour, serial, label, otherSerial string }{
		{"identity 00ff", "00ff", mine, "00ff"},
		{"identity 00ff of " + mine, "00ff", mine, ""},
		{"identity 00ff another%20token of " + mine, "00ff", "another token", ""},
		{"identity 00ff of " + mine + "\nidentity 11 of " + other, "00ff", mine, "11"},
		{"", info.SerialNumber, mine, ""},
	} {
		before, err := c.GetTokenInfo(c.slot)
		expect(t, "before", err, pkcs11.CKR_OK)
		otherSlot, err := c.slotOf(other)
		expect(t, "the other's slot", err, pkcs11.CKR_OK)
		m.Set(t, want.behaviour)
		if i, err := c.GetTokenInfo(c.slot); err != nil || i != before {
			t.Errorf("%q: at once %+v, %v", want.behaviour, i, err)
		}
		restart(t, c)
		if i, err := c.GetTokenInfo(c.slot); err != nil || i.SerialNumber != want.serial || i.Label != want.label {
			t.Errorf("%q: %+v, %v", want.behaviour, i, err)
		}
		i, err := c.GetTokenInfo(otherSlot)
		if err != nil || (want.otherSerial != "" && i.SerialNumber != want.otherSerial) || (want.otherSerial == "" && i.SerialNumber == "00ff") {
			t.Errorf("%q: the other token %+v, %v", want.behaviour, i, err)
		}
	}
}

func TestSlotOffset(t *testing.T) {
	c, m := start(t)
	info, err := c.GetTokenInfo(c.slot)
	expect(t, "token info", err, pkcs11.CKR_OK)
	old := c.slot
	m.Set(t, "slot-offset 5")
	if s, err := c.slotOf(info.Label); err != nil || s != old {
		t.Errorf("at once: slot %d, %v", s, err)
	}
	restart(t, c)
	expect(t, "begin", c.begin(info.Label), pkcs11.CKR_OK)
	if c.slot != old+5 {
		t.Errorf("slot %d instead of %d", c.slot, old+5)
	}
	if s, err := c.GetSessionInfo(c.session); err != nil || s.SlotID != c.slot {
		t.Errorf("session info %+v, %v", s, err)
	}
	_, err = c.GetTokenInfo(old)
	expect(t, "the old slot", err, pkcs11.CKR_SLOT_ID_INVALID)
	_, err = c.GetTokenInfo(1)
	expect(t, "a slot below all", err, pkcs11.CKR_SLOT_ID_INVALID)
	_, err = c.encrypt("p")
	expect(t, "encrypt", err, pkcs11.CKR_OK)
}

// sealByGo returns what the token must return.
func sealByGo(t *testing.T, iv []byte, text string) []byte {
	t.Helper()
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	return gcm.Seal(nil, iv, []byte(text), []byte("aad"))
}

// differences returns how many bits of the ciphertext and of the tag differ.
func differences(a, b []byte) (ciphertext, tag int) {
	for i := range a {
		n := bits.OnesCount8(a[i] ^ b[i])
		if i < len(a)-16 {
			ciphertext += n
		} else {
			tag += n
		}
	}
	return ciphertext, tag
}

func TestCorrupt(t *testing.T) {
	const text = "a plaintext of some length"
	c, m := start(t)
	want := sealByGo(t, zeroIV, text)
	for behaviour, flipped := range map[string][3]int{
		"corrupt ciphertext":                {1, 0, 0},
		"corrupt tag":                       {0, 1, 0},
		"corrupt tag\ncorrupt ciphertext":   {1, 1, 0},
		"corrupt plaintext":                 {0, 0, 1},
		"corrupt ciphertext probability 0":  {0, 0, 0},
		"corrupt ciphertext skip 1":         {0, 0, 0},
		"corrupt tag probability 1 count 1": {0, 1, 0},
	} {
		m.Set(t, behaviour)
		before := m.Count(t, tokentest.CorruptedOutputs)
		got, err := c.encrypt(text)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %v", behaviour, err)
		}
		back, err := c.decrypt(zeroIV, want)
		if err != nil || len(back) != len(text) {
			t.Fatalf("%s: %v", behaviour, err)
		}
		inText, inTag := differences(want, got)
		plain := 0
		for i := range back {
			plain += bits.OnesCount8(back[i] ^ text[i])
		}
		if [3]int{inText, inTag, plain} != flipped {
			t.Errorf("%s: bits of ciphertext, tag and plaintext: %d, %d, %d", behaviour, inText, inTag, plain)
		}
		if n := m.Count(t, tokentest.CorruptedOutputs) - before; n != flipped[0]+flipped[1]+flipped[2] {
			t.Errorf("%s: %d are counted", behaviour, n)
		}
	}
}

func TestCorruptCount(t *testing.T) {
	c, m := start(t, "tag before")
	want := sealByGo(t, zeroIV, "text")
	m.Set(t, "corrupt tag count 2", "tag before")
	for i, flips := range []int{1, 1, 0} {
		got, err := c.encrypt("text")
		if err != nil {
			t.Fatal(err)
		}
		if inText, inTag := differences(want, append(got[16:], got[:16]...)); inText != 0 || inTag != flips {
			t.Errorf("call %d: %d bits of the ciphertext, %d of the tag", i, inText, inTag)
		}
	}
}

func TestConventions(t *testing.T) {
	const text = "a plaintext"
	for _, way := range []struct {
		name       string
		behaviours []string
		iv         []byte
		refused    []byte
		open       func(out, left []byte) (iv, sealed []byte)
	}{
		{"plain", nil, []byte("a nonce of 12"), nil, func(out, left []byte) ([]byte, []byte) { return left, out }},
		{"written back", []string{"iv written-back"}, zeroIV, []byte("0123456789ab"), func(out, left []byte) ([]byte, []byte) { return left, out }},
		{"appended", []string{"iv appended"}, nil, zeroIV, func(out, _ []byte) ([]byte, []byte) { return out[len(out)-16:], out[:len(out)-16] }},
		{"tag before", []string{"tag before"}, zeroIV, nil, func(out, left []byte) ([]byte, []byte) {
			return left, append(slices.Clone(out[16:]), out[:16]...)
		}},
		{"written back, tag before", []string{"iv written-back", "tag before"}, zeroIV, nil, func(out, left []byte) ([]byte, []byte) {
			return left, append(slices.Clone(out[16:]), out[:16]...)
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			c, _ := start(t, way.behaviours...)
			out, left, err := c.seal(c.session, way.iv, text)
			if err != nil {
				t.Fatal(err)
			}
			iv, sealed := way.open(out, left)
			if way.name != "plain" && way.name != "tag before" && bytes.Equal(iv, zeroIV) {
				t.Error("the IV is zero")
			}
			if !bytes.Equal(sealByGo(t, iv, text), sealed) {
				t.Error("Go seals otherwise")
			}
			given := out
			if way.name == "appended" {
				given = sealed // such tokens too get the IV by the parameter
			}
			if back, err := c.decrypt(iv, given); err != nil || back != text {
				t.Errorf("decrypted: %q, %v", back, err)
			}
			if way.refused != nil {
				_, _, err := c.seal(c.session, way.refused, text)
				expect(t, "an IV that such a token does not take", err, pkcs11.CKR_MECHANISM_PARAM_INVALID)
			}
		})
	}
}

func TestSessionLimits(t *testing.T) {
	c, m := start(t, "max-sessions 3", "readonly-sessions refused")
	if info, err := c.GetTokenInfo(c.slot); err != nil || info.MaxSessionCount != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	_, err := c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION)
	expect(t, "a read-only session", err, pkcs11.CKR_ARGUMENTS_BAD)
	sessions := sessionsOf(t, c, 2)
	_, err = c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	expect(t, "one too many", err, pkcs11.CKR_SESSION_COUNT)
	expect(t, "close", c.CloseSession(sessions[0]), pkcs11.CKR_OK)
	sessionsOf(t, c, 1)
	if n, peak := m.Count(t, tokentest.OpenSessions), m.Count(t, tokentest.PeakSessions); n != 3 || peak != 3 {
		t.Errorf("%d are open, at most %d were", n, peak)
	}
}

func TestBadTagAndTokenKeys(t *testing.T) {
	c, _ := start(t, "badtag 0x40", "no-token-keys 0x7")
	_, err := c.decrypt(zeroIV, make([]byte, 32))
	expect(t, "a wrong tag", err, pkcs11.CKR_ENCRYPTED_DATA_INVALID)
	for inToken, code := range map[bool]uint{true: pkcs11.CKR_ARGUMENTS_BAD, false: pkcs11.CKR_OK} {
		_, err := c.GenerateKey(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, inToken), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		})
		expect(t, fmt.Sprint("a key in the token: ", inToken), err, code)
	}
}

// The process is gone, and what it had open does not count for the next.
func TestCrash(t *testing.T) {
	m := tokentest.NewFaulty(t)
	name := label(t, m)
	run := func() *os.ProcessState {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = tokentest.ChildEnv(crashVariable+"="+m.Path, crashVariable+"_TOKEN="+name, "GOTRACEBACK=crash")
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if err != nil && !bytes.Contains(text, []byte("SIGSEGV")) {
			t.Errorf("the child says: %s", text)
		}
		return cmd.ProcessState
	}
	if s := run(); !s.Success() {
		t.Fatal(s)
	}
	m.Set(t, "crash C_Encrypt")
	if s := run(); s.Success() {
		t.Error("the child ended well")
	} else if w, ok := s.Sys().(syscall.WaitStatus); !ok || !w.Signaled() {
		t.Errorf("the child was not killed: %v", s)
	}
	m.Set(t, "crash C_Encrypt skip 1")
	if s := run(); !s.Success() {
		t.Errorf("the first call is not to crash: %v", s)
	}
	if n := m.Count(t, tokentest.OpenSessions); n != 1 { // the last child did not close its own
		t.Errorf("%d sessions are open", n)
	}
}

func TestLeak(t *testing.T) {
	resident := func() (pages int) {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		var size int
		if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	c, m := start(t)
	m.Set(t, "leak C_Encrypt 1000000 count 60")
	before := resident()
	for range 70 {
		if _, err := c.encrypt("p"); err != nil {
			t.Fatal(err)
		}
	}
	if grown := (resident() - before) * os.Getpagesize(); grown < 50e6 {
		t.Errorf("the process has grown by %d bytes", grown)
	}
}

// What cannot be understood is refused by every call, until it is mended.
func TestMalformed(t *testing.T) {
	c, m := start(t)
	write := func(text string) {
		t.Helper()
		next := m.Path + ".next"
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, m.Path+".control")); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() bool { _, err := c.encrypt("p"); return is(err, pkcs11.CKR_ARGUMENTS_BAD) }
	write("\nfail C_Encrypt\n")
	eventually(t, "calls are refused", refused)
	_, err := c.GetInfo()
	expect(t, "another function", err, pkcs11.CKR_ARGUMENTS_BAD)
	if why, err := os.ReadFile(m.Path + ".error"); err != nil || string(why) != "line 2: CODE is missing\n" {
		t.Errorf("%q, %v", why, err)
	}
	write("iv appended\n")
	eventually(t, "calls are not refused", func() bool { return !refused() })
	if _, err := os.Stat(m.Path + ".error"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the error stays: %v", err)
	}
	if err := os.Remove(m.Path + ".control"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without a file it only forwards", func() bool { _, err := c.encrypt("p"); return err == nil })
}

// What is wrong with a control file is not said of the next one, even if no call
// has seen that it was mended.
func TestMalformedBefore(t *testing.T) {
	m := tokentest.NewFaulty(t)
	name := label(t, m)
	if err := os.WriteFile(m.Path+".error", []byte("line 1: of another process\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := open(m.Path, name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	defer func() { _ = c.Finalize() }()
	if _, err := os.Stat(m.Path + ".error"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the error stays: %v", err)
	}
}

// Where no real module lies beside it, it takes that of the environment.
func TestRealByEnvironment(t *testing.T) {
	m := tokentest.NewFaulty(t)
	name := label(t, m)
	if err := os.Rename(m.Path+".real", m.Path+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(m.Path, name); err == nil {
		t.Fatal("it loads without a real module")
	}
	t.Setenv("HYOK_FAULTY_REAL", m.Path+".elsewhere")
	c, err := open(m.Path, name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	_, err = c.encrypt("p")
	expect(t, "encrypt", err, pkcs11.CKR_OK)
	expect(t, "finalize", c.Finalize(), pkcs11.CKR_OK)
}

// What the module says of a control file, Set says too.
func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		"fial C_Encrypt 0x30":               "line 1: there is no behaviour fial",
		"tag before\nfail C_Encrypt":        "line 2: CODE is missing",
		"fail":                              "FUNCTION is missing",
		"fail C_Encript 0x30":               "C_Encript is no function",
		"fail C_GetFunctionList 0x30":       "C_GetFunctionList is no function",
		"fail C_Encrypt,all 0x30":           "all is no function",
		"fail C_Encrypt 0":                  "CODE 0 is no failure",
		"fail C_Encrypt 0x3g":               "0x3g is no CODE",
		"fail C_Encrypt -1":                 "-1 is no CODE",
		"fail C_Encrypt CKR_SICK":           "CKR_SICK is no CODE",
		"fail C_Encrypt 0x30 0x31":          "0x31 is not understood here",
		"fail C_Encrypt 0x30 count":         "number of calls is missing",
		"fail C_Encrypt 0x30 skip -1":       "-1 is no number of calls",
		"hang C_Encrypt probability 5":      "probability is from 0 to 1",
		"hang C_Encrypt probability nan":    "probability is from 0 to 1",
		"hang C_Encrypt probability":        "probability is from 0 to 1",
		"delay C_Encrypt":                   "MILLISECONDS is missing",
		"delay C_Encrypt fast":              "fast is no MILLISECONDS",
		"delay C_Encrypt 5-":                "5- is no MILLISECONDS",
		"delay C_Encrypt 9-5":               "9-5 is no MILLISECONDS",
		"delay C_Encrypt -5":                "-5 is no MILLISECONDS",
		"leak C_Encrypt":                    "number of bytes is missing",
		"find-nothing C_FindObjects":        "C_FindObjects is not understood here",
		"find-nothing for":                  "number of milliseconds is missing",
		"crash C_Encrypt now":               "now is not understood here",
		"corrupt":                           "can be corrupted",
		"corrupt key":                       "can be corrupted",
		"dead":                              "CODE is missing",
		"dead 0x32 forever":                 "forever is not understood here",
		"identity":                          "SERIAL is missing",
		"identity 12345678901234567":        "SERIAL is longer than 16 bytes",
		"identity 1 a%2":                    "two hexadecimal digits",
		"identity 1 a of":                   "missing after \"of\"",
		"identity 1 a b":                    "b is not understood here",
		"renumber x":                        "x is no N",
		"renumber 1 0x60 0x60":              "0x60 is not understood here",
		"iv":                                "written-back or appended is expected",
		"tag after":                         "before is expected",
		"readonly-sessions":                 "refused is expected",
		"max-sessions":                      "N is missing",
		"token-flags":                       "FLAGS is missing",
		"pin-lengths 4":                     "MAX is missing",
		"max-parallel 1 2":                  "2 is not understood here",
		strings.Repeat("hang C_Sign\n", 65): "line 65: more than 64 rules",
		strings.Repeat("identity 1\n", 17):  "more than 16 identities",
		"fail " + strings.Repeat("x", 1000): "line 1: xxx",
	} {
		if err := tokentest.Check(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	for _, text := range []string{
		"", "# nothing", "slot-offset 1", "dead 0x32 until-initialize absent", "identity 1 of a", "identity 1 a%20b of a",
		"delay any 0-0.5 probability 0.05 skip 1 count 2", "hang session,C_Initialize", "corrupt plaintext skip 3", strings.Repeat("hang C_Sign\n", 64),
	} {
		if err := tokentest.Check(t, text); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}
