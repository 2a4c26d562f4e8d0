package tokentest_test

import (
	"errors"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// crashVariable names the module and the token for a child that encrypts.
const crashVariable = "HYOK_TEST_CRASH"

func TestMain(m *testing.M) {
	if module, ok := os.LookupEnv(crashVariable); ok {
		os.Exit(encryptInChild(module, os.Getenv(crashVariable+"_TOKEN")))
	}
	os.Exit(tokentest.Main(m))
}

func encryptInChild(module, label string) int {
	c, err := open(module, label)
	if err != nil {
		return 3
	}
	if _, err := c.encrypt("p"); err != nil {
		return 4
	}
	return 0
}

// client is an application: it has one session, and knows nothing of hyok.
type client struct {
	*pkcs11.Ctx
	slot    uint
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

// material is the key of every client.
var material = []byte("0123456789abcdef0123456789abcdef")

var zeroIV = make([]byte, 12)

// start loads a module of a test and a token, and logs in.
func start(t *testing.T, behaviours ...string) (*client, *tokentest.Faulty) {
	t.Helper()
	m := tokentest.NewFaulty(t)
	m.Set(t, behaviours...)
	c, err := open(m.Path, label(t, m))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Set(t)
		_ = c.Finalize() // a test may have done it
		c.Destroy()
	})
	return c, m
}

func label(t testing.TB, m *tokentest.Faulty) string {
	t.Helper()
	return m.Token(t, new(keystore.Modules)).Token
}

func open(module, label string) (*client, error) {
	c := &client{Ctx: pkcs11.New(module)}
	if c.Ctx == nil {
		return nil, errors.New("the module cannot be loaded")
	}
	if err := c.Initialize(); err != nil {
		return nil, err
	}
	return c, c.begin(label)
}

// begin opens the session, logs in and makes the key.
func (c *client) begin(label string) error {
	var err error
	if c.slot, err = c.slotOf(label); err != nil {
		return err
	}
	if c.session, err = c.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
		return err
	}
	if err := c.Login(c.session, pkcs11.CKU_USER, tokentest.PIN); err != nil {
		return err
	}
	return c.makeKey()
}

func (c *client) slotOf(label string) (uint, error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, s := range slots {
		if info, err := c.GetTokenInfo(s); err == nil && info.Label == label {
			return s, nil
		}
	}
	return 0, errors.New("there is no token " + label)
}

func (c *client) makeKey() (err error) {
	c.key, err = c.CreateObject(c.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, material),
	})
	return err
}

// encrypt encrypts by AES-GCM under a zero IV.
func (c *client) encrypt(text string) ([]byte, error) {
	out, _, err := c.seal(c.session, zeroIV, text)
	return out, err
}

// seal returns the output, and the IV as the module has left it.
func (c *client) seal(session pkcs11.SessionHandle, iv []byte, text string) (out, left []byte, err error) {
	p := pkcs11.NewGCMParams(iv, []byte("aad"), 128)
	defer p.Free()
	if err := c.EncryptInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, c.key); err != nil {
		return nil, nil, err
	}
	out, err = c.Encrypt(session, []byte(text))
	return out, p.IV(), err
}

func (c *client) decrypt(iv, ciphertext []byte) (string, error) {
	p := pkcs11.NewGCMParams(iv, []byte("aad"), 128)
	defer p.Free()
	if err := c.DecryptInit(c.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, c.key); err != nil {
		return "", err
	}
	out, err := c.Decrypt(c.session, ciphertext)
	return string(out), err
}
