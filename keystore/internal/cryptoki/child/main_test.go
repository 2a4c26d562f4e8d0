package child_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/child"
	"github.com/hyok-kms/hyok/softhsm"
)

const pin = "test-user-pin-4711"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		err := child.Serve(func(string) (string, error) { return pin, nil })
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hyok-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	conf, err := softhsm.Configure(dir)
	if err != nil {
		panic(err)
	}
	if err := os.Setenv(softhsm.ConfigVariable, conf); err != nil {
		panic(err)
	}
	return m.Run()
}

func config(tb testing.TB) child.Config {
	tb.Helper()
	module, err := softhsm.Module()
	if err != nil {
		tb.Fatal(err)
	}
	return child.Config{Module: module, Command: []string{"/proc/self/exe", "serve"}, Log: slog.New(slog.DiscardHandler)}
}

// newToken initializes a token by a module and returns its slot.
func newToken(tb testing.TB, m cryptoki.Module) (slot uint) {
	tb.Helper()
	slots, err := m.GetSlotList(true)
	if err != nil {
		tb.Fatal(err)
	}
	label := fmt.Sprintf("token-%d", len(slots))
	must(tb, m.InitToken(slots[len(slots)-1], pin, label))
	slots, err = m.GetSlotList(true)
	must(tb, err)
	for _, slot := range slots {
		info, err := m.GetTokenInfo(slot)
		must(tb, err)
		if info.Label != label {
			continue
		}
		s, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		must(tb, err)
		must(tb, m.Login(s, pkcs11.CKU_SO, readPIN))
		must(tb, m.InitPIN(s, pin))
		must(tb, m.Logout(s))
		must(tb, m.CloseSession(s))
		return slot
	}
	tb.Fatal("the token is not there")
	return 0
}

func readPIN() (string, error) { return pin, nil }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// login opens a session and logs in.
func login(tb testing.TB, m cryptoki.Module, slot uint) cryptoki.Session {
	tb.Helper()
	s, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	must(tb, err)
	must(tb, m.Login(s, pkcs11.CKU_USER, readPIN))
	return s
}

func aesKey(tb testing.TB, m cryptoki.Module, s cryptoki.Session) cryptoki.Object {
	tb.Helper()
	key, err := m.GenerateKey(s, cryptoki.Plain(pkcs11.CKM_AES_KEY_GEN), cryptoki.Template{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	})
	must(tb, err)
	return key
}
