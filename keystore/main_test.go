package keystore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func TestMain(m *testing.M) {
	if label, ok := os.LookupEnv("HYOK_TEST_WITHDRAW"); ok {
		attributes := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
		if os.Getenv("HYOK_TEST_ROOT") != "" {
			attributes = []uint{pkcs11.CKA_UNWRAP}
		}
		os.Exit(withdraw(label, os.Getenv("HYOK_TEST_KEY"), os.Getenv("HYOK_TEST_MODULE"), attributes))
	}
	if uri, ok := os.LookupEnv(switchVariable); ok {
		if err := switchForEver(uri, os.Getenv("HYOK_TEST_MODULE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	if uri, ok := os.LookupEnv("HYOK_TEST_VAULT"); ok {
		if err := makeMaterial(uri, os.Getenv("HYOK_TEST_MODULE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(tokentest.Main(m))
}

// makeMaterial opens a vault as another process and prints a key of it.
func makeMaterial(uri, module string) error {
	u, err := keystore.ParseURI(uri)
	if err != nil {
		return err
	}
	u.ModulePath = module
	ctx := context.Background()
	tok, err := keystore.Open(ctx, &modules, tokentest.Options(u))
	// SoftHSM2 writes the token's own file at each login, and processes that read
	// it then find no token or no PIN.
	for try := 0; err != nil && try < 100; try++ {
		tok, err = keystore.Open(ctx, &modules, tokentest.Options(u))
	}
	if err != nil {
		return err
	}
	v, err := tok.OpenVault(ctx, keystore.VaultOptions{Name: "test"})
	if err != nil {
		return err
	}
	m, err := v.Generate(ctx, "child", keystore.SpecAES256)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		return err
	}
	return tok.Close(ctx)
}

// withdraw sets attributes of a key to false, as another program would: it runs
// in a process of its own and uses none of keystore.
func withdraw(token, key, module string, attributes []uint) int {
	err := func() error {
		p := pkcs11.New(module)
		if p == nil {
			return fmt.Errorf("cannot load %s", module)
		}
		if err := p.Initialize(); err != nil {
			return err
		}
		slots, err := p.GetSlotList(true)
		if err != nil {
			return err
		}
		for _, slot := range slots {
			ti, err := p.GetTokenInfo(slot)
			if err != nil || ti.Label != token {
				continue
			}
			s, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return err
			}
			if err := p.Login(s, pkcs11.CKU_USER, tokentest.PIN); err != nil {
				return err
			}
			if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, key)}); err != nil {
				return err
			}
			found, _, err := p.FindObjects(s, 10)
			if err != nil || len(found) != 1 {
				return fmt.Errorf("%d objects: %w", len(found), err)
			}
			var none []*pkcs11.Attribute
			for _, a := range attributes {
				none = append(none, pkcs11.NewAttribute(a, false))
			}
			return p.SetAttributeValue(s, found[0], none)
		}
		return fmt.Errorf("no token %q", token)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// patient bounds what a test waits for, far above what it should take.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newToken returns an open token in a folder that the whole package shares.
func newToken(t testing.TB, change ...func(*keystore.Options)) (*keystore.Token, keystore.URI) {
	t.Helper()
	ms := &modules
	u := tokentest.NewToken(t, ms)
	o := tokentest.Options(u)
	for _, c := range change {
		c(&o)
	}
	return tokentest.Open(t, ms, o), u
}

// modules is one for the process, as in the product.
var modules = keystore.Modules{Command: keystore.ModuleProcess()}

var both = keystore.KeyUsage{Encrypt: true, Decrypt: true}

func background(o *keystore.Options) { o.Background = true }

// isolations runs a test with the module in this process and in one of its own.
func isolations(t *testing.T, test func(t *testing.T, isolation func(*keystore.Options))) {
	t.Run("module in this process", func(t *testing.T) { test(t, func(*keystore.Options) {}) })
	t.Run("module in a child", func(t *testing.T) { test(t, func(o *keystore.Options) { o.Isolated = true }) })
}
