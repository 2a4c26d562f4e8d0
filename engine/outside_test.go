package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// What another tool does to a token that this process has logged in to.

// destroyKeys destroys the secret keys of a token whose labels have a part, and
// returns how many.
func destroyKeys(t testing.TB, token *keystore.Token, part string) int {
	t.Helper()
	return eachKey(t, token, part, func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
		return ctx.DestroyObject(s, o)
	})
}

// forbidKeys withdraws the usage of the secret keys of a token.
func forbidKeys(t testing.TB, token *keystore.Token, part string) int {
	t.Helper()
	return eachKey(t, token, part, func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
		return ctx.SetAttributeValue(s, o, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		})
	})
}

func countKeys(t testing.TB, token *keystore.Token, part string) int {
	t.Helper()
	return eachKey(t, token, part, func(*pkcs11.Ctx, pkcs11.SessionHandle, pkcs11.ObjectHandle) error { return nil })
}

func eachKey(t testing.TB, token *keystore.Token, part string, act func(*pkcs11.Ctx, pkcs11.SessionHandle, pkcs11.ObjectHandle) error) int {
	t.Helper()
	ctx := pkcs11.New(tokentest.Module(t)) // the process has it, initialized
	defer ctx.Destroy()
	s, err := ctx.OpenSession(token.Info().Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ctx.CloseSession(s); err != nil {
			t.Error(err)
		}
	}()
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if err := ctx.FindObjectsInit(s, template); err != nil {
		t.Fatal(err)
	}
	objects, _, err := ctx.FindObjects(s, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := ctx.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, o := range objects {
		a, err := ctx.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID)) {
			continue // it was destroyed since it was found
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(a[0].Value), part) {
			continue
		}
		n++
		if err := act(ctx, s, o); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
