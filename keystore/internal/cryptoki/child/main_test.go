package child_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/child"
)

// The commands of the test binary.
const (
	commandServe    = "serve"    // as hyok does
	commandParent   = "parent"   // starts a module, prints its process's id, and waits
	commandGarbage  = "garbage"  // answers what is no reply
	commandStranger = "stranger" // answers a reply that fits no request
	commandPrate    = "prate"
	commandEnd      = "end" // ends at once
)

func TestMain(m *testing.M) {
	commands := map[string]func(args []string) error{
		commandServe: serve, commandParent: parent, commandPrate: prate,
		commandGarbage:  func([]string) error { return answer([]byte{0, 0, 0, 3, 9, 9, 9}) },
		commandStranger: func([]string) error { return answer([]byte{0, 0, 0, 6, 0, 0, 0, 0, 0, 0}) },
		commandEnd:      func([]string) error { os.Exit(7); return nil },
	}
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		fmt.Fprintln(os.Stderr, commands[os.Args[1]](os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(tokentest.Main(m))
}

func serve([]string) error {
	return child.Serve(func(source string) (string, error) {
		pin, err := os.ReadFile(source)
		return string(pin), err
	})
}

func readPIN() (string, error) { return tokentest.PIN, nil }

// config is that of a module at path in a process that a command of the test binary
// is.
func config(path, command string) child.Config {
	return child.Config{Module: path, Command: []string{"/proc/self/exe", command}, Log: slog.New(slog.DiscardHandler)}
}

// started returns a module that was initialized in a process of its own.
func started(tb testing.TB, c child.Config) *child.Client {
	tb.Helper()
	m := child.New(c)
	must(tb, m.Initialize())
	tb.Cleanup(m.Destroy)
	return m
}

// newToken initializes a token by a module and returns its label.
func newToken(tb testing.TB, m cryptoki.Module) (label string) {
	tb.Helper()
	slots, err := m.GetSlotList(true)
	must(tb, err)
	label = "token-" + rand.Text()[:12]
	must(tb, m.InitToken(slots[len(slots)-1], tokentest.PIN, label))
	s := open(tb, m, slotOf(tb, m, label))
	must(tb, logIn(m, s, pkcs11.CKU_SO, readPIN))
	must(tb, m.InitPIN(s, tokentest.PIN))
	must(tb, m.Logout(s))
	must(tb, m.CloseSession(s))
	return label
}

// slotOf returns the slot that a token is in, which SoftHSM2 changes.
func slotOf(tb testing.TB, m cryptoki.Module, label string) uint {
	tb.Helper()
	slots, err := m.GetSlotList(true)
	must(tb, err)
	for _, slot := range slots {
		info, err := m.GetTokenInfo(slot)
		must(tb, err)
		if info.Label == label {
			return slot
		}
	}
	tb.Fatal("the token is not there")
	return 0
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// logIn is Login where no digest is wanted.
func logIn(m cryptoki.Module, s cryptoki.Session, user uint, pin cryptoki.PIN) error {
	_, err := m.Login(s, user, pin, nil)
	return err
}

// login opens a session and logs in.
func login(tb testing.TB, m cryptoki.Module, slot uint) cryptoki.Session {
	tb.Helper()
	s := open(tb, m, slot)
	must(tb, logIn(m, s, pkcs11.CKU_USER, readPIN))
	return s
}

func open(tb testing.TB, m cryptoki.Module, slot uint) cryptoki.Session {
	tb.Helper()
	s, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	must(tb, err)
	return s
}

func attribute(kind uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(kind, value) }

func aesKey(tb testing.TB, m cryptoki.Module, s cryptoki.Session) cryptoki.Object {
	tb.Helper()
	key, err := m.GenerateKey(s, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), aesTemplate())
	must(tb, err)
	return key
}

func aesTemplate() cryptoki.Template {
	return cryptoki.Template{
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_LABEL, "aes"),
		attribute(pkcs11.CKA_ENCRYPT, true), attribute(pkcs11.CKA_DECRYPT, true), attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_UNWRAP, true),
		attribute(pkcs11.CKA_SENSITIVE, false), attribute(pkcs11.CKA_EXTRACTABLE, true),
	}
}

func gcm() cryptoki.Mechanism {
	return cryptoki.Mechanism{Type: pkcs11.CKM_AES_GCM, GCM: &cryptoki.GCM{IV: make([]byte, 12), AAD: []byte("aad")}}
}
