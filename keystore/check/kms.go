package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// Spec is what a token does with one kind of key of the embedded KMS.
type Spec struct {
	Name keystore.Spec
	// Resident: such keys stay in the token as objects; else they are kept wrapped.
	Resident bool
	// Made, Used and Imported are the outcomes of making such a key, of all that it is
	// for, also after it was unwrapped anew, and of bringing one's own.
	Made, Used, Imported Status
	Detail               string // of what did not pass
	Took                 time.Duration
}

// specs are the kinds of keys, the symmetric first.
func (r *runner) specs() []keystore.Spec {
	specs := []keystore.Spec{
		keystore.SpecAES256, keystore.SpecRSA2048,
		keystore.SpecP256, keystore.SpecP384, keystore.SpecP521, keystore.SpecSecp256k1, keystore.SpecEd25519,
		keystore.SpecHMAC224, keystore.SpecHMAC256, keystore.SpecHMAC384, keystore.SpecHMAC512,
	}
	if !r.o.Quick {
		specs = append(specs, keystore.SpecRSA3072, keystore.SpecRSA4096)
	}
	return specs
}

const specIDs = "kms.spec."

// isSpecID reports whether a check is about one kind of key. A KMS without some of
// them serves the others.
func isSpecID(id string) bool {
	return strings.HasPrefix(id, specIDs) && !strings.HasPrefix(id, specIDs+string(keystore.SpecAES256)+".")
}

// kms is the part of a check that is about the embedded KMS.
type kms struct {
	*runner
	vault *keystore.Vault
	// again is the same vault with an empty cache, as after a restart.
	again    *keystore.Vault
	wrapping *keystore.Material // RSA pair that material is encrypted under; nil: none could be made
}

const vaultName = "check"

// checkKMS does with key material what the embedded KMS does.
func (r *runner) checkKMS(ctx context.Context) {
	k := &kms{runner: r}
	step := func(id, title string, try func(context.Context) (string, error)) bool {
		return r.step(ctx, KMS, id, title, try)
	}
	if !step("vault", "make the root key, and have it wrap and unwrap", k.open) {
		return
	}
	step("seal", "compute the secret that the database is sealed with, the same each time", k.seal)
	step("random", "random bytes", k.random)
	var made []*keystore.Material
	for _, name := range k.specs() {
		made = append(made, k.makeAndUse(ctx, name))
	}
	if step("reopen", "open the vault again, as after a restart", k.reopen) {
		for i := range k.report.Specs {
			k.useAgain(ctx, &k.report.Specs[i], made[i])
		}
		for i := range k.report.Specs {
			k.bringIn(ctx, &k.report.Specs[i])
		}
	}
	step("data-key-pair", "data key pairs of P-256", k.dataKeyPair)
	step("sessions", "wrapped keys are of use after the token has closed all sessions", k.loseSessions)
	step("kill", "all wrapped keys stop within a second after another process has destroyed the root key", k.kill)
}

func (k *kms) open(ctx context.Context) (detail string, err error) {
	k.vault, err = k.token.OpenVault(ctx, keystore.VaultOptions{Name: vaultName})
	return "", err
}

func (k *kms) reopen(ctx context.Context) (detail string, err error) {
	k.again, err = k.token.OpenVault(ctx, keystore.VaultOptions{Name: vaultName, Existing: true})
	return "", err
}

func (k *kms) seal(ctx context.Context) (string, error) {
	a, err := k.vault.SealSecret(ctx, "check", true)
	if err != nil {
		return "", err
	}
	b, err := k.vault.SealSecret(ctx, "check", false)
	if err == nil && !bytes.Equal(a, b) {
		err = errors.New("it differs")
	}
	return "", err
}

func (k *kms) random(ctx context.Context) (string, error) {
	a, err := k.token.Random(ctx, 1024)
	if err != nil {
		return "", err
	}
	b, err := k.token.Random(ctx, 1024)
	if err == nil && bytes.Equal(a, b) {
		err = errors.New("the same bytes came twice")
	}
	return "", err
}

// makeAndUse makes a key of a kind and uses it; nil: it could not be made.
func (k *kms) makeAndUse(ctx context.Context, name keystore.Spec) *keystore.Material {
	s := Spec{Name: name, Made: NotChecked, Used: NotChecked, Imported: NotChecked}
	defer func() { k.report.Specs = append(k.report.Specs, s) }()
	begin := time.Now()
	var made keystore.Material
	s.Made = k.specStep(ctx, &s, "make", "make a key", func(ctx context.Context) (detail string, err error) {
		made, err = k.vault.Generate(ctx, materialID(name), name)
		if err == nil && made.Resident() {
			detail = "it stays in the token, which does not wrap such keys"
		}
		return detail, err
	})
	if s.Made != Pass {
		return nil
	}
	s.Took, s.Resident = time.Since(begin), made.Resident()
	s.Used = k.specStep(ctx, &s, "use", "use it", func(ctx context.Context) (string, error) { return "", k.use(ctx, k.vault, &made) })
	if name == keystore.SpecRSA2048 {
		k.wrapping = &made
	}
	return &made
}

// useAgain uses a key in the vault that was opened again.
func (k *kms) useAgain(ctx context.Context, s *Spec, made *keystore.Material) {
	if made == nil || s.Used != Pass {
		return
	}
	s.Used = k.specStep(ctx, s, "use-again", "use it after a restart", func(ctx context.Context) (string, error) { return "", k.use(ctx, k.again, made) })
}

// bringIn imports a key of a kind.
func (k *kms) bringIn(ctx context.Context, s *Spec) {
	s.Imported = k.specStep(ctx, s, "import", "import a key", func(ctx context.Context) (string, error) {
		return "", k.importOne(ctx, materialID(s.Name)+"-imported", s.Name)
	})
}

// materialID is the id of the material of a kind.
func materialID(name keystore.Spec) string {
	return strings.ToLower(strings.ReplaceAll(string(name), "_", "-"))
}

func (k *kms) specStep(ctx context.Context, s *Spec, id, title string, try func(context.Context) (string, error)) Status {
	n := len(k.report.Results)
	k.step(ctx, KMS, "spec."+string(s.Name)+"."+id, string(s.Name)+": "+title, try)
	if len(k.report.Results) == n {
		return NotChecked
	}
	res := k.report.Results[n]
	if res.Status != Pass && s.Detail == "" {
		s.Detail = res.Detail
	}
	return res.Status
}

func (k *kms) dataKeyPair(ctx context.Context) (string, error) {
	private, public, err := k.vault.GenerateDataKeyPair(ctx, keystore.SpecP256)
	if err != nil {
		return "", err
	}
	defer clear(private)
	return "", matchPair(private, public)
}

func (k *kms) loseSessions(ctx context.Context) (string, error) {
	m, err := k.vault.Generate(ctx, "sessions", keystore.SpecAES256)
	if err == nil {
		err = k.token.LoseSessions()
	}
	if err != nil {
		return "", err
	}
	begin := time.Now()
	if err := k.use(ctx, k.vault, &m); err != nil {
		return "", fmt.Errorf("the first request: %w", err)
	}
	return within(time.Since(begin)), nil
}

// rootLabel is the label of the vault's root key in the scope.
const rootLabel = "hyok.root." + vaultName

func (k *kms) kill(ctx context.Context) (string, error) {
	if err := k.needOther(); err != nil {
		return "", err
	}
	m, err := k.vault.Generate(ctx, "kill", keystore.SpecAES256)
	if err != nil {
		return "", err
	}
	if m.Resident() {
		return "", errNotChecked("the token wraps no symmetric keys: each is killed by destroying its own object")
	}
	return measureStop(ctx, func() error { return k.use(ctx, k.vault, &m) }, func(ctx context.Context) error {
		n, err := k.other.Purge(ctx, rootLabel)
		if err == nil && n != 1 {
			err = fmt.Errorf("the other process sees %d root keys", n)
		}
		return err
	}, keystore.ErrRootKey)
}
