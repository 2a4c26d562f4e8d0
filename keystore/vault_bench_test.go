package keystore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// BenchmarkRawEncrypt is what a vault's Encrypt is measured against: the calls of
// the module alone, in one thread, with a session object.
func BenchmarkRawEncrypt(b *testing.B) {
	tok, _ := newToken(b)
	p := pkcs11.New(tokentest.Module(b))
	defer p.Destroy()
	s, err := p.OpenSession(tok.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.CloseSession(s) }()
	h, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
	})
	if err != nil {
		b.Fatal(err)
	}
	iv, plaintext, aad := make([]byte, 12), make([]byte, 32), make([]byte, 32)
	for b.Loop() {
		params := pkcs11.NewGCMParams(iv, aad, 128)
		if err := p.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Encrypt(s, plaintext); err != nil {
			b.Fatal(err)
		}
		params.Free()
	}
}

func BenchmarkVaultEncrypt(b *testing.B) {
	v, _, _ := newVault(b)
	keys := make([]keystore.Material, 100)
	for i := range keys {
		keys[i] = material(b, v, fmt.Sprintf("k-%d", i), keystore.SpecAES256)
	}
	plaintext, aad := make([]byte, 32), make([]byte, 32)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.Run("serial", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := v.Encrypt(ctx, &keys[i%len(keys)], plaintext, aad); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := v.Encrypt(ctx, &keys[i%len(keys)], plaintext, aad); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkVaultUnwrap is Encrypt when the cache does not have the key.
func BenchmarkVaultUnwrap(b *testing.B) {
	tok, _ := newToken(b)
	v := openVault(b, tok, func(o *keystore.VaultOptions) { o.CacheSize = 1 })
	keys := []keystore.Material{material(b, v, "a", keystore.SpecAES256), material(b, v, "b", keystore.SpecAES256)}
	for i := 0; b.Loop(); i++ {
		if _, err := v.Encrypt(context.Background(), &keys[i%2], []byte("p"), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVaultGenerate(b *testing.B) {
	v, _, _ := newVault(b)
	for b.Loop() {
		if _, err := v.Generate(context.Background(), "k", keystore.SpecAES256); err != nil {
			b.Fatal(err)
		}
	}
}
