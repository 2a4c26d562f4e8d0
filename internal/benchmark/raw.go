package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// benchPIN is the PIN of tokens that live as long as a benchmark.
const benchPIN = "benchmark-pin"

// rawToken is a token for calls of the module without hyok between.
type rawToken struct {
	label, module string
	modules       keystore.Modules
	open          *keystore.Token // keeps the module initialized and logged in
	ctx           *pkcs11.Ctx
}

// newRawToken makes a token with n keys, k0, k1 and so on. Where it is isolated, its
// module is in a process of its own, and raw calls cannot be made.
func newRawToken(ctx context.Context, label string, n int, isolated bool) (*rawToken, error) {
	t := &rawToken{label: label}
	t.modules.Command = keystore.ModuleProcess()
	var err error
	if t.module, err = softhsm.Module(); err != nil {
		return nil, err
	}
	if _, err := t.modules.InitToken(t.module, "", label, benchPIN, benchPIN); err != nil {
		return nil, err
	}
	u, err := keystore.ParseURI("pkcs11:token=" + label + "?module-path=" + t.module)
	if err != nil {
		return nil, err
	}
	t.open, err = keystore.Open(ctx, &t.modules, keystore.Options{
		Name: label, URI: u, Profile: keystore.Profiles()[0], Logger: slog.New(slog.DiscardHandler),
		PIN:      func() (string, error) { return benchPIN, nil },
		Isolated: isolated,
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("k%d", i)
	}
	if err := t.open.GenerateKeys(ctx, ids, keystore.KeyUsage{Encrypt: true, Decrypt: true}, nil); err != nil {
		return nil, errors.Join(err, t.open.Close(ctx))
	}
	if t.ctx = pkcs11.New(t.module); t.ctx == nil {
		return nil, errors.Join(errors.New("the module cannot be loaded again"), t.open.Close(ctx))
	}
	return t, nil
}

func (t *rawToken) close() error {
	t.ctx.Destroy()
	return t.open.Close(context.Background())
}

// rate is how many times a second C_EncryptInit and C_Encrypt can be called, on
// the token object or on a session copy of it, from one session a core.
func (t *rawToken) rate(length time.Duration, copied bool) (tally, error) {
	n, err := parallel(runtime.GOMAXPROCS(0), length, func(worker int, more func() bool) error {
		s, err := t.ctx.OpenSession(t.open.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return err
		}
		h, err := t.key(s, fmt.Sprintf("k%d", worker%usedKeys), copied)
		if err != nil {
			return errors.Join(err, t.ctx.CloseSession(s))
		}
		text, aad, iv := make([]byte, 32), make([]byte, 32), make([]byte, 12)
		for more() {
			if _, err := t.encrypt(s, h, iv, aad, text); err != nil {
				return errors.Join(err, t.ctx.CloseSession(s))
			}
		}
		return t.ctx.CloseSession(s)
	})
	return n, err
}

func (t *rawToken) encrypt(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, iv, aad, text []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(iv, aad, 128)
	defer params.Free()
	if err := t.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, err
	}
	return t.ctx.Encrypt(s, text)
}

func (t *rawToken) key(s pkcs11.SessionHandle, label string, copied bool) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if err := t.ctx.FindObjectsInit(s, template); err != nil {
		return 0, err
	}
	found, _, err := t.ctx.FindObjects(s, 1)
	if err := errors.Join(err, t.ctx.FindObjectsFinal(s)); err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("no key %s", label)
	}
	if !copied {
		return found[0], nil
	}
	return t.ctx.CopyObject(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
}
