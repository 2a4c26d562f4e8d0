package engine_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// slowRig is an engine on a faulty token.
type slowRig struct {
	*fixture
	module *tokentest.Faulty
	key    string // symmetric
}

func newSlowRig(t *testing.T, behaviours ...string) *slowRig {
	t.Helper()
	module := tokentest.NewFaulty(t)
	u := module.Token(t, &modules)
	module.Set(t, behaviours...)
	tok := tokentest.Open(t, &modules, tokentest.Options(u))
	vault := must(tok.OpenVault(t.Context(), keystore.VaultOptions{Name: "test"}))
	f := newEngine(t, func(c *engine.Config) { c.Token, c.Vault = tok, vault })
	out := must(f.client().CreateKey(t.Context(), &kms.CreateKeyInput{}))
	return &slowRig{fixture: f, module: module, key: *out.KeyMetadata.KeyId}
}

// pairRequests are the requests that need an RSA pair. Each returns the public key.
func (r *slowRig) pairRequests() map[string]func(context.Context) ([]byte, error) {
	external := createExternal(r.t, r.client(), "", "")
	return map[string]func(context.Context) ([]byte, error){
		"CreateKey": func(ctx context.Context) ([]byte, error) {
			c := r.client()
			out, err := c.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify})
			if err != nil {
				return nil, err
			}
			public, err := c.GetPublicKey(r.t.Context(), &kms.GetPublicKeyInput{KeyId: out.KeyMetadata.KeyId})
			if err != nil {
				return nil, err
			}
			_, err = c.Sign(r.t.Context(), &kms.SignInput{
				KeyId: out.KeyMetadata.KeyId, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256,
			})
			return public.PublicKey, err
		},
		"GetParametersForImport": func(ctx context.Context) ([]byte, error) {
			out, err := r.client().GetParametersForImport(ctx, &kms.GetParametersForImportInput{
				KeyId: &external, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
			})
			if err != nil {
				return nil, err
			}
			return out.PublicKey, nil
		},
		"GenerateDataKeyPair": func(ctx context.Context) ([]byte, error) {
			out, err := r.client().GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &r.key, KeyPairSpec: types.DataKeyPairSpecRsa2048})
			if err != nil {
				return nil, err
			}
			return out.PublicKey, r.checkPair(out)
		},
	}
}

// checkPair fails unless the three parts of a data key pair are of one key.
func (r *slowRig) checkPair(out *kms.GenerateDataKeyPairOutput) error {
	opened, err := r.client().Decrypt(r.t.Context(), &kms.DecryptInput{CiphertextBlob: out.PrivateKeyCiphertextBlob})
	if err != nil {
		return err
	}
	private, err := x509.ParsePKCS8PrivateKey(out.PrivateKeyPlaintext)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(private.(*rsa.PrivateKey).Public())
	if err != nil || !bytes.Equal(opened.Plaintext, out.PrivateKeyPlaintext) || !bytes.Equal(public, out.PublicKey) {
		return errors.New("the parts of a data key pair are of several keys")
	}
	return nil
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for what happens by itself.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// Whoever asks while a pair is generated, also again and again, waits for that one.
// One that comes too late is kept, over a restart too, for the next request of its
// kind, and for that one alone. So it is where the token has to keep the pair.
func TestLatePairIsKept(t *testing.T) {
	for name, token := range map[string]string{"wrapped": "", "resident": "fail C_WrapKey 0x69"} {
		for _, restart := range []bool{false, true} {
			r := newSlowRig(t, token)
			for request, ask := range r.pairRequests() {
				t.Run(name+"/"+request, func(t *testing.T) {
					before := r.module.Count(t, "C_GenerateKeyPair")
					r.module.Set(t, token, "hang C_GenerateKeyPair")
					for range 3 {
						if _, err := ask(soon(t)); !isCode(err, "DependencyTimeoutException") {
							t.Fatalf("while the pair is generated: %v", err)
						}
					}
					r.module.Set(t, token)
					eventually(t, "the pair is kept", func() bool { return len(r.PairsKept()) == 1 })
					kept := r.PairsKept()[0]
					if restart {
						r.reopen()
					}
					public, err := ask(t.Context())
					if err != nil || !bytes.Equal(public, kept) {
						t.Errorf("another pair than the one that is kept: %v", err)
					}
					// Where the token has to keep a pair it is generated again the first time.
					if n := r.module.Count(t, "C_GenerateKeyPair") - before; n != 1 && (token == "" || n != 2) {
						t.Errorf("%d generations for one pair", n)
					}
					if another, err := ask(t.Context()); err != nil || bytes.Equal(another, kept) {
						t.Errorf("one pair for two requests: %v", err)
					}
					if n := len(r.PairsKept()); n != 0 {
						t.Errorf("%d pairs are kept", n)
					}
				})
			}
			r.checkResidents()
		}
	}
}

// checkResidents fails unless the token has the objects that are known, and no
// others.
func (r *slowRig) checkResidents() {
	r.t.Helper()
	known, _ := r.ResidentsKnown()
	if got := must(r.config.Vault.Residents(r.t.Context())); !slices.Equal(got, known) {
		r.t.Errorf("the token has %v, and %v are known", got, known)
	}
}

// Six requests at once have six pairs generated, one after the other, and the
// token serves meanwhile.
func TestPairsForMany(t *testing.T) {
	r := newSlowRig(t, "hang C_GenerateKeyPair")
	ask := r.pairRequests()["CreateKey"]
	type answer struct {
		public []byte
		err    error
	}
	answers := make(chan answer)
	for range 6 {
		go func() {
			public, err := ask(t.Context())
			answers <- answer{public, err}
		}()
	}
	eventually(t, "all wait", func() bool { return r.PairsWanted() == 6 && r.module.Count(t, tokentest.HangingCalls) == 1 })
	roundTrip(t, r.client(), r.key)
	r.module.Set(t)
	seen := map[string]bool{}
	for range 6 {
		a := <-answers
		if a.err != nil || seen[string(a.public)] {
			t.Errorf("%v, or a pair that another has", a.err)
		}
		seen[string(a.public)] = true
	}
	if n := r.module.Count(t, "C_GenerateKeyPair"); n != 6 {
		t.Errorf("%d generations for 6 pairs", n)
	}
}

// A kept pair whose key could not be stored is there for the next request.
func TestPairOfARefusedCommit(t *testing.T) {
	r, cut := newSlowRig(t), new(cutStore)
	r.close()
	r.openOn(cut)
	for request, ask := range r.pairRequests() {
		t.Run(request, func(t *testing.T) {
			r.module.Set(t, "hang C_GenerateKeyPair")
			if _, err := ask(soon(t)); !isCode(err, "DependencyTimeoutException") {
				t.Fatalf("while the pair is generated: %v", err)
			}
			r.module.Set(t)
			eventually(t, "the pair is kept", func() bool { return len(r.PairsKept()) == 1 })
			kept := r.PairsKept()[0]
			cut.n.Store(1)
			cut.after.Store(1) // none any more
			if _, err := ask(t.Context()); err == nil {
				t.Fatal("it was answered, and nothing was stored")
			}
			cut.after.Store(0)
			if public, err := ask(t.Context()); err != nil || !bytes.Equal(public, kept) {
				t.Errorf("another pair than the one that is kept: %v", err)
			}
		})
	}
}
