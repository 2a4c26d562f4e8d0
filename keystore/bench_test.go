package keystore_test

import (
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// BenchmarkRaw is what the token can do: C_EncryptInit and C_Encrypt of 32
// bytes, on the token object and on a session copy of it, from one session a
// goroutine. Divide its rate by the number of calls that an operation makes to
// see what the token allows.
func BenchmarkRaw(b *testing.B) {
	tok, u := newToken(b)
	generate(b, tok, "k", both)
	p := pkcs11.New(u.ModulePath) // the module is the process's: initialized and logged in already
	for _, copied := range []bool{false, true} {
		name := "TokenObject"
		if copied {
			name = "SessionCopy"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				s, err := p.OpenSession(tok.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
				if err != nil {
					b.Error(err)
					return
				}
				defer func() { _ = p.CloseSession(s) }()
				h := rawKey(b, p, s, copied)
				text, iv := make([]byte, 32), make([]byte, 12)
				for pb.Next() {
					params := pkcs11.NewGCMParams(iv, nil, 128)
					if err := p.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
						b.Error(err)
						return
					}
					if _, err := p.Encrypt(s, text); err != nil {
						b.Error(err)
						return
					}
					params.Free()
				}
			})
		})
	}
}

func rawKey(b *testing.B, p *pkcs11.Ctx, s pkcs11.SessionHandle, copied bool) pkcs11.ObjectHandle {
	b.Helper()
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "k"), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if err := p.FindObjectsInit(s, template); err != nil {
		b.Fatal(err)
	}
	found, _, err := p.FindObjects(s, 1)
	if err != nil || len(found) != 1 {
		b.Fatal(len(found), err)
	}
	if err := p.FindObjectsFinal(s); err != nil {
		b.Fatal(err)
	}
	if !copied {
		return found[0]
	}
	h, err := p.CopyObject(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// BenchmarkEncrypt is the same through a Token, with 4, 1,000 and 10,000 keys
// in the token of which 4 are used.
func BenchmarkEncrypt(b *testing.B) {
	for _, keys := range []int{4, 1000, 10000} {
		u := tokentest.NewToken(b, &modules)
		tokentest.Fill(b, u, "k", keys) // once: it takes longer than the rest
		b.Run(fmt.Sprintf("Keys%d", keys), func(b *testing.B) {
			o := tokentest.Options(u)
			o.Background = true
			tok := tokentest.Open(b, &modules, o)
			k := find(b, tok, "k0")
			for tok.Stats().Copies == 0 { // hot, as under load
				seal(b, k, "p", "")
			}
			text := make([]byte, 32)
			ctx := patient(b)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := k.Encrypt(ctx, 1, text, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
