package keystore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// slowVault is a vault in a faulty token, with an AES key that is in use.
func slowVault(t *testing.T, change ...func(*keystore.Options)) (*keystore.Vault, *tokentest.Faulty, keystore.Material) {
	t.Helper()
	m := tokentest.NewFaulty(t)
	o := tokentest.Options(m.Token(t, &modules))
	for _, c := range change {
		c(&o)
	}
	v := openVault(t, tokentest.Open(t, &modules, o))
	k := material(t, v, "k", keystore.SpecAES256)
	sealedBy(t, v, &k)
	return v, m, k
}

// generated is a pair, or why there is none.
type generated struct {
	m   keystore.Material
	err error
}

func generateInBackground(ctx context.Context, v *keystore.Vault, id string) <-chan generated {
	done := make(chan generated, 1)
	go func() {
		m, err := v.Generate(ctx, id, keystore.SpecRSA2048)
		done <- generated{m, err}
	}()
	return done
}

// A token generates one pair at a time, each of them once.
func TestOneGenerationAtATime(t *testing.T) {
	v, m, _ := slowVault(t)
	m.Set(t, "hang C_GenerateKeyPair")
	all := []<-chan generated{generateInBackground(patient(t), v, "a"), generateInBackground(patient(t), v, "b"), generateInBackground(patient(t), v, "c")}
	hangs(t, m)
	if _, err := v.Generate(soon(t), "d", keystore.SpecRSA2048); !errors.Is(err, keystore.ErrBusy) {
		t.Errorf("beside the one under way: %v", err)
	}
	if n := m.Count(t, "C_GenerateKeyPair"); n != 1 {
		t.Errorf("%d generations at once", n)
	}
	m.Set(t)
	for _, done := range all {
		g := <-done
		if g.err != nil {
			t.Fatal(g.err)
		}
		useRSA(t, v, &g.m)
	}
	if n := m.Count(t, "C_GenerateKeyPair"); n != len(all) {
		t.Errorf("%d generations of %d pairs", n, len(all))
	}
}

// A token that does nothing else while it generates a pair is no token that hangs,
// however many callers give up meanwhile.
func TestGenerationIsNoHang(t *testing.T) {
	v, m, k := slowVault(t)
	m.Set(t, "max-parallel 1", "hang C_GenerateKeyPair")
	done := generateInBackground(patient(t), v, "pair")
	hangs(t, m)
	for range 6 {
		if _, err := v.Encrypt(soon(t), &k, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the token is not busy: %v", err)
		}
	}
	if !v.Token().Available() || v.Token().Stats().Trips != 0 {
		t.Error("the token was put out of service")
	}
	if h := v.Token().Probe(soon(t)); h.State != keystore.Degraded {
		t.Errorf("health %v: %s", h.State, h.Reason)
	}
	m.Set(t)
	if g := <-done; g.err != nil {
		t.Error(g.err)
	}
	eventually(t, "nothing hangs", func() bool { return v.Token().Stats().Stuck == 0 })
	sealedBy(t, v, &k)
}

// A generation that lasts too long hangs: it is counted, no more than two of them
// are borne with, and a token that does nothing else is put out of service. What it
// makes in the end is good.
func TestGenerationThatHangs(t *testing.T) {
	v, m, k := slowVault(t, func(o *keystore.Options) { o.GenerationPatience = 20 * time.Millisecond })
	tok := v.Token()
	m.Set(t, "hang C_GenerateKeyPair")
	var all []<-chan generated
	for n, id := range []string{"a", "b"} {
		all = append(all, generateInBackground(patient(t), v, id))
		eventually(t, "it is overdue", func() bool { return tok.Stats().Stuck == n+1 })
	}
	if _, err := v.Generate(patient(t), "c", keystore.SpecRSA2048); !errors.Is(err, keystore.ErrUnavailable) || keystore.RetryAfter(err) == 0 {
		t.Errorf("a third: %v", err)
	}
	sealedBy(t, v, &k) // all else goes on
	if !tok.Available() {
		t.Error("a token that serves was put out of service")
	}
	m.Set(t, "max-parallel 1", "hang C_GenerateKeyPair", "hang C_Encrypt")
	eventually(t, "the token is out of service", func() bool {
		_, _ = v.Encrypt(soon(t), &k, []byte("p"), nil)
		return !tok.Available()
	})
	m.Set(t)
	for _, done := range all {
		g := <-done
		if g.err != nil {
			t.Fatal(g.err)
		}
		eventually(t, "the token is back", tok.Available)
		useRSA(t, v, &g.m)
	}
	eventually(t, "nothing hangs", func() bool { return tok.Stats().Stuck == 0 })
	if g := <-generateInBackground(patient(t), v, "d"); g.err != nil {
		t.Error(g.err)
	}
}

// The import of a pair does not wait for the generation of another.
func TestImportBesideAGeneration(t *testing.T) {
	v, m, _ := slowVault(t)
	der := pkcs8(t, rsaKey(t, 2048))
	m.Set(t, "hang C_GenerateKeyPair")
	done := generateInBackground(patient(t), v, "pair")
	hangs(t, m)
	importMaterial(t, v, "imported", keystore.SpecRSA2048, der)
	m.Set(t)
	if g := <-done; g.err != nil {
		t.Error(g.err)
	}
}
