package keystore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func cacheSize(n int) func(*keystore.VaultOptions) {
	return func(o *keystore.VaultOptions) { o.CacheSize = n }
}

// sealedBy encrypts under a key of a vault.
func sealedBy(t testing.TB, v *keystore.Vault, m *keystore.Material) keystore.Sealed {
	t.Helper()
	s, err := v.Encrypt(patient(t), m, []byte("text of "+m.ID), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opens(v *keystore.Vault, ctx context.Context, m *keystore.Material, s keystore.Sealed) error {
	got, err := v.Decrypt(ctx, m, s, nil)
	if err == nil && string(got) != "text of "+m.ID {
		return fmt.Errorf("%s opened as %q", m.ID, got)
	}
	return err
}

// More keys than are kept, used by many at once: each call does what it should,
// and no more objects are alive than are kept or in use.
func TestVaultEviction(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok, cacheSize(3))
	var keys []keystore.Material
	var sealed []keystore.Sealed
	for i := range 10 {
		keys = append(keys, material(t, v, fmt.Sprintf("k-%d", i), keystore.SpecAES256))
		sealed = append(sealed, sealedBy(t, v, &keys[i]))
	}
	made := m.Count(t, "C_UnwrapKey") - m.Count(t, "C_DestroyObject")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 60 {
				k := (i*(n+1) + n) % len(keys)
				if err := opens(v, patient(t), &keys[k], sealed[k]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := v.Stats(); s.Cached > 3 || s.Unwraps < 10 || s.Evictions == 0 {
		t.Errorf("%+v", s)
	}
	if alive := m.Count(t, "C_UnwrapKey") - m.Count(t, "C_DestroyObject") - made; alive > 3+8 {
		t.Errorf("%d objects are alive", alive)
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// However many ask for a key at once, it is unwrapped once, and who asks for
// others does not wait for it.
func TestUnwrapHangs(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	slow, cached, third := material(t, v, "slow", keystore.SpecAES256), material(t, v, "cached", keystore.SpecAES256), material(t, v, "third", keystore.SpecAES256)
	sealedBy(t, v, &cached)
	before := m.Count(t, "C_UnwrapKey")
	m.Set(t, "hang C_UnwrapKey count 1")
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() { sealedBy(t, v, &slow) })
	}
	hangs(t, m)
	if _, err := v.Encrypt(soon(t), &slow, []byte("p"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who waits for it: %v", err)
	}
	sealedBy(t, v, &cached)
	sealedBy(t, v, &third)
	m.Set(t)
	wg.Wait()
	if n := m.Count(t, "C_UnwrapKey") - before; n != 2 {
		t.Errorf("two keys were unwrapped %d times", n)
	}
	if s := v.Stats(); s.Cached != 3 || s.Unwraps != 3 {
		t.Errorf("%+v", s)
	}
}

// Whatever function hangs, callers are answered in time, all is well once the
// module returns, and the token can be closed.
func TestVaultCallsHang(t *testing.T) {
	for _, function := range []string{"C_UnwrapKey", "C_WrapKey", "C_Sign", "C_GenerateKeyPair", "C_OpenSession", "any"} {
		t.Run(function, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4))
			v := openVault(t, tok)
			key, pair := material(t, v, "k", keystore.SpecAES256), material(t, v, "p", keystore.SpecP256)
			m.Set(t, "lose-sessions 1", "hang "+function)
			for range 2 {
				for name, call := range vaultCalls(v, &key, &pair) {
					if err := call(soon(t)); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, keystore.ErrUnavailable) {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
			m.Set(t)
			eventually(t, "no call is stuck", func() bool { return tok.Stats().Stuck == 0 })
			for name, call := range vaultCalls(v, &key, &pair) {
				eventually(t, name+" succeeds", func() bool { return call(patient(t)) == nil })
			}
		})
	}
}

func vaultCalls(v *keystore.Vault, key, pair *keystore.Material) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"encrypt": func(ctx context.Context) error { return second(v.Encrypt(ctx, key, []byte("p"), nil)) },
		"sign": func(ctx context.Context) error {
			return second(v.Sign(ctx, pair, keystore.SignECDSA, signHashes[0], make([]byte, 32)))
		},
		"generate":  func(ctx context.Context) error { return second(v.Generate(ctx, "new", keystore.SpecAES256)) },
		"pair":      func(ctx context.Context) error { return second(v.Generate(ctx, "new", keystore.SpecP256)) },
		"data pair": func(ctx context.Context) error { return third(v.GenerateDataKeyPair(ctx, keystore.SpecP256)) },
		"import": func(ctx context.Context) error {
			return second(v.Import(ctx, "new", keystore.SpecAES256, make([]byte, 32)))
		},
		"residents": func(ctx context.Context) error { return second(v.Residents(ctx)) },
		"random":    func(ctx context.Context) error { return second(v.Token().Random(ctx, 16)) },
	}
}

// While an RSA key is generated, others search, change and use the token.
func TestGenerationBlocksNobody(t *testing.T) {
	for _, isResident := range []bool{false, true} {
		t.Run(fmt.Sprint("resident=", isResident), func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(8))
			v := openVault(t, tok)
			key := material(t, v, "k", keystore.SpecAES256)
			m.Set(t, "hang C_GenerateKeyPair")
			ctx, cancel := context.WithCancel(patient(t))
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					generate := v.Generate
					if isResident {
						generate = v.GenerateResident
					}
					if _, err := generate(ctx, "slow", keystore.SpecRSA2048); !errors.Is(err, context.Canceled) {
						t.Errorf("the generation: %v", err)
					}
				})
			}
			hangs(t, m)
			sealedBy(t, v, &key)
			material(t, v, "another", keystore.SpecAES256)
			generate(t, tok, "external", both)
			if err := tok.Refresh(patient(t)); err != nil {
				t.Error(err)
			}
			cancel()
			wg.Wait()
			m.Set(t)
			if _, err := v.Generate(patient(t), "rsa", keystore.SpecRSA2048); err != nil {
				t.Error(err)
			}
		})
	}
}

// vaultSample is one key of each kind with what shows that it works.
type vaultSample struct {
	v    *keystore.Vault
	uses map[string]func(context.Context) error
}

func newVaultSample(t *testing.T, v *keystore.Vault) vaultSample {
	t.Helper()
	s := vaultSample{v, map[string]func(context.Context) error{}}
	for _, isResident := range []bool{false, true} {
		for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC256, keystore.SpecP256, keystore.SpecEd25519} {
			id := fmt.Sprintf("k-%d", len(s.uses))
			m := material(t, v, id, spec)
			if isResident && spec != keystore.SpecEd25519 {
				m = resident(t, v, id, spec)
			}
			s.uses[fmt.Sprintf("%s resident=%v", spec, m.Resident())] = s.use(t, m)
		}
	}
	return s
}

func (s vaultSample) use(t *testing.T, m keystore.Material) func(context.Context) error {
	switch m.Spec {
	case keystore.SpecAES256:
		sealed := sealedBy(t, s.v, &m)
		return func(ctx context.Context) error { return opens(s.v, ctx, &m, sealed) }
	case keystore.SpecHMAC256:
		want, err := s.v.MAC(patient(t), &m, macHashes[m.Spec], []byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error {
			got, err := s.v.MAC(ctx, &m, macHashes[m.Spec], []byte("message"))
			if err == nil && !bytes.Equal(got, want) {
				return errors.New("another MAC")
			}
			return err
		}
	case keystore.SpecEd25519:
		return func(ctx context.Context) error {
			return second(s.v.Sign(ctx, &m, keystore.SignEd25519, 0, []byte("message")))
		}
	}
	return func(ctx context.Context) error {
		return second(s.v.Sign(ctx, &m, keystore.SignECDSA, signHashes[0], make([]byte, 32)))
	}
}

// all uses every key and joins what fails.
func (s vaultSample) all(ctx context.Context) error {
	var errs []error
	for name, use := range s.uses {
		if err := use(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// A token that restarts loses sessions, logins, unwrapped keys and handles.
// Nobody notices but by the time it takes, or by one error of the token.
func TestVaultRestarts(t *testing.T) {
	faults := map[string]struct {
		behaviours func(n int) []string
		seamless   bool // not one call fails
	}{
		"sessions lost": {func(n int) []string { return []string{fmt.Sprintf("lose-sessions %d", n)} }, true},
		"renumbered":    {func(n int) []string { return []string{fmt.Sprintf("renumber %d", n)} }, true},
		"restarted": {func(n int) []string {
			return []string{fmt.Sprintf("lose-sessions %d", n), fmt.Sprintf("renumber %d", n)}
		}, true},
		"session invalid": {func(int) []string { return []string{"fail C_DecryptInit 0xb3 count 1"} }, true},
		"unwrap fails": {func(n int) []string {
			return []string{fmt.Sprintf("lose-sessions %d", n), "fail C_UnwrapKey 0xb3 count 1"}
		}, true},
		"device error": {func(n int) []string {
			return []string{fmt.Sprintf("lose-sessions %d", n), "fail any 0x30 count 3"}
		}, false},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4))
			s := newVaultSample(t, openVault(t, tok))
			for n := 1; n <= 4; n++ {
				m.Set(t, fault.behaviours(n)...)
				for range 3 {
					err := s.all(patient(t))
					var te *keystore.TokenError
					if err != nil && (fault.seamless || !errors.As(err, &te) || errors.Is(err, keystore.ErrKeyNotFound) ||
						errors.Is(err, keystore.ErrRootKey) || errors.Is(err, keystore.ErrWrappedKey) || errors.Is(err, keystore.ErrInvalidCiphertext)) {
						t.Fatalf("fault %d: %v", n, err)
					}
				}
				if err := s.all(patient(t)); err != nil {
					t.Fatalf("it does not recover: %v", err)
				}
			}
		})
	}
}

// The same while many use the token at once.
func TestVaultRestartsUnderLoad(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil, sessions(4), background)
	s := newVaultSample(t, openVault(t, tok, cacheSize(2)))
	ctx, stop := context.WithCancel(patient(t))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := s.all(context.WithoutCancel(ctx))
				var te *keystore.TokenError
				if err != nil && (!errors.As(err, &te) || errors.Is(err, keystore.ErrKeyNotFound) || errors.Is(err, keystore.ErrRootKey) || errors.Is(err, keystore.ErrInvalidCiphertext)) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	for n := 1; n <= 4; n++ {
		unwraps := s.v.Stats().Unwraps
		m.Set(t, fmt.Sprintf("lose-sessions %d", n), fmt.Sprintf("renumber %d", n))
		eventually(t, "keys are unwrapped again", func() bool { return s.v.Stats().Unwraps > unwraps+4 })
	}
	stop()
	wg.Wait()
	if err := s.all(patient(t)); err != nil {
		t.Error(err)
	}
}

// Session objects come and go while others search: no search sees them, and not
// one call of either fails.
func TestVaultsBesideSearches(t *testing.T) {
	tok, _ := newToken(t)
	v := openVault(t, tok, cacheSize(1))
	generate(t, tok, "external", both)
	keys := []keystore.Material{material(t, v, "a", keystore.SpecAES256), material(t, v, "b", keystore.SpecAES256), resident(t, v, "c", keystore.SpecHMAC384)}
	ctx, stop := context.WithCancel(patient(t))
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := useAny(t, v, &keys[i]); err != nil {
					t.Error(err)
				}
				material(t, v, "new", keystore.SpecAES256)
			}
		})
	}
	for range 40 {
		infos, err := tok.Keys(ctx)
		if err != nil || len(infos) != 1 {
			t.Errorf("%+v, %v", infos, err)
		}
		if ids, err := v.Residents(ctx); err != nil || !slices.Equal(ids, []string{"c"}) {
			t.Errorf("%v, %v", ids, err)
		}
	}
	stop()
	wg.Wait()
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
}

// A damaged key is told from a sick token; a sick token is not blamed on the key.
func TestDamagedMaterial(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC384, keystore.SpecP256, keystore.SpecRSA2048} {
		good := material(t, v, "k", spec)
		other := openVault(t, tok, func(o *keystore.VaultOptions) { o.Name = "other" })
		for name, spoil := range map[string]func(*keystore.Material){
			"flipped":   func(m *keystore.Material) { m.Wrapped = flippedAt(m.Wrapped, 9) },
			"truncated": func(m *keystore.Material) { m.Wrapped = m.Wrapped[:len(m.Wrapped)-8] },
			"odd":       func(m *keystore.Material) { m.Wrapped = m.Wrapped[1:] },
			"foreign":   func(m *keystore.Material) { m.Wrapped = material(t, other, "k", spec).Wrapped },
		} {
			bad := good
			spoil(&bad)
			if err := useAny(t, v, &bad); !errors.Is(err, keystore.ErrWrappedKey) {
				t.Errorf("%s %s: %v", spec, name, err)
			}
			if err := useAny(t, v, &good); err != nil { // the one id has another key at once
				t.Errorf("%s after %s: %v", spec, name, err)
			}
		}
	}
	if n := tok.Stats().Failures; n != 0 {
		t.Errorf("%d failures of the token", n)
	}
	sick := material(t, v, "sick", keystore.SpecAES256)
	m.Set(t, "fail any 0x5")
	var te *keystore.TokenError
	if err := useAny(t, v, &sick); !errors.As(err, &te) || errors.Is(err, keystore.ErrWrappedKey) {
		t.Errorf("sick token: %v", err)
	}
	m.Set(t)
	if err := useAny(t, v, &sick); err != nil {
		t.Error(err)
	}
}

func flippedAt(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func useAny(t *testing.T, v *keystore.Vault, m *keystore.Material) error {
	switch m.Spec {
	case keystore.SpecAES256:
		return second(v.Encrypt(patient(t), m, []byte("p"), nil))
	case keystore.SpecHMAC384:
		return second(v.MAC(patient(t), m, macHashes[m.Spec], nil))
	case keystore.SpecRSA2048:
		return second(v.Sign(patient(t), m, keystore.SignPSS, signHashes[0], make([]byte, 32)))
	}
	return second(v.Sign(patient(t), m, keystore.SignECDSA, signHashes[0], make([]byte, 32)))
}

// The kill switch: what another process does to the root key counts here, for
// every wrapped key, within a second; and who asks afterwards causes no search
// each time.
func TestRootKeyKillSwitch(t *testing.T) {
	const root = "hyok.root.test"
	kills := map[string]func(t *testing.T, u keystore.URI){
		"deleted": func(t *testing.T, u keystore.URI) {
			tool(t, u, "--delete-object", "--type", "secrkey", "--label", root)
		},
		"withdrawn": func(t *testing.T, u keystore.URI) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = tokentest.ChildEnv("HYOK_TEST_WITHDRAW="+u.Token, "HYOK_TEST_KEY="+root, "HYOK_TEST_MODULE="+u.ModulePath, "HYOK_TEST_ROOT=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
	}
	for name, kill := range kills {
		t.Run(name, func(t *testing.T) {
			v, _, u := newVault(t)
			cached, fresh := material(t, v, "cached", keystore.SpecAES256), material(t, v, "fresh", keystore.SpecP256)
			sealed := sealedBy(t, v, &cached)
			kill(t, u)
			dead, ctx := time.Now(), patient(t)
			last := dead
			for {
				begin := time.Now()
				err := opens(v, ctx, &cached, sealed)
				if err == nil && begin.Sub(dead) < 5*time.Second {
					last = begin
					continue
				}
				if !errors.Is(err, keystore.ErrRootKey) {
					t.Fatal(err)
				}
				break
			}
			t.Logf("last success %v after the other process had ended; looked at at least every %v", last.Sub(dead), v.Stats().RootAge)
			if d := last.Sub(dead); d > time.Second {
				t.Errorf("the key worked for %v more", d)
			}
			for name, err := range map[string]error{
				"fresh": second(v.Sign(ctx, &fresh, keystore.SignECDSA, signHashes[0], make([]byte, 32))), "new": second(v.Generate(ctx, "new", keystore.SpecAES256)),
				"import": second(v.Import(ctx, "new", keystore.SpecAES256, make([]byte, 32))),
			} {
				if !errors.Is(err, keystore.ErrRootKey) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if n := v.Stats().Cached; n != 0 {
				t.Errorf("%d keys are still unwrapped", n)
			}
		})
	}
}

func TestLostRootKeyIsCheap(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	key := material(t, v, "k", keystore.SpecAES256)
	u.ModulePath = tokentest.Module(t)
	tool(t, u, "--delete-object", "--type", "secrkey", "--label", "hyok.root.test")
	eventually(t, "the key is out of use", func() bool { return errors.Is(useAny(t, v, &key), keystore.ErrRootKey) })
	before, begin := m.Count(t, "C_FindObjectsInit"), time.Now()
	for range 300 {
		if err := useAny(t, v, &key); !errors.Is(err, keystore.ErrRootKey) {
			t.Fatal(err)
		}
	}
	if n := m.Count(t, "C_FindObjectsInit") - before; n > int(time.Since(begin)/(200*time.Millisecond))+1 {
		t.Errorf("%d searches for 300 requests in %v", n, time.Since(begin))
	}
	// Another vault of the same name is another vault: nothing opens there.
	again := openVault(t, tok)
	if err := useAny(t, again, &key); !errors.Is(err, keystore.ErrWrappedKey) {
		t.Errorf("under a new root key: %v", err)
	}
	sealedBy(t, again, new(material(t, again, "new", keystore.SpecAES256)))
}

// Processes that open a vault for the first time at once get one root key.
func TestVaultsShareOneRootKey(t *testing.T) {
	tok, u := newToken(t)
	var wg sync.WaitGroup
	made := make([]keystore.Material, 3)
	for i := range made {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = tokentest.ChildEnv("HYOK_TEST_VAULT="+u.String(), "HYOK_TEST_MODULE="+u.ModulePath)
			var complaint bytes.Buffer
			cmd.Stderr = &complaint
			out, err := cmd.Output()
			if err == nil {
				err = json.Unmarshal(out, &made[i])
			}
			if err != nil {
				t.Errorf("%v: %s", err, complaint.Bytes())
			}
		})
	}
	var vaults [3]*keystore.Vault
	for i := range vaults {
		wg.Go(func() {
			v, err := tok.OpenVault(patient(t), keystore.VaultOptions{Name: "test"})
			if err != nil {
				t.Error(err)
			}
			vaults[i] = v
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, v := range vaults {
		for i := range made {
			sealedBy(t, v, &made[i])
		}
	}
}

// Resident keys are the vault's alone: to the XKS proxy they are not there.
func TestResidentsAreNoExternalKeys(t *testing.T) {
	v, tok, u := newVault(t)
	m := resident(t, v, "k", keystore.SpecAES256)
	generate(t, tok, "external", both)
	label := "hyok.kms.test.k"
	if text := tool(t, u, "--list-objects", "--type", "secrkey"); !bytes.Contains([]byte(text), []byte(label)) {
		t.Fatalf("no object labelled %s: %s", label, text)
	}
	for name, err := range map[string]error{
		"find": second(tok.Find(patient(t), label)), "describe": second(tok.Describe(patient(t), label)), "destroy": tok.DestroyKey(patient(t), label, 0),
		"disable": tok.SetEnabled(patient(t), label, false),
	} {
		if !errors.Is(err, keystore.ErrKeyNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	keys, err := tok.Keys(patient(t))
	if err != nil || len(keys) != 1 || keys[0].ID != "external" || tok.Has(label) || tok.Stats().Keys != 1 {
		t.Errorf("%+v, %v, %+v", keys, err, tok.Stats())
	}
	for name, err := range map[string]error{
		"generate": tok.GenerateKey(patient(t), label, both), "import": tok.ImportKey(patient(t), label, both, make([]byte, 32)),
		"rotate": second(tok.RotateKey(patient(t), label)),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	sealedBy(t, v, &m)
}

// Residents are what the token has; destroying is for ever, and may be repeated.
func TestResidents(t *testing.T) {
	v, tok, u := newVault(t)
	other := openVault(t, tok, func(o *keystore.VaultOptions) { o.Name = "other" })
	resident(t, other, "theirs", keystore.SpecAES256)
	var made []keystore.Material
	for _, spec := range quickSpecs() {
		made = append(made, resident(t, v, fmt.Sprintf("r-%02d", len(made)), spec))
	}
	material(t, v, "wrapped", keystore.SpecAES256)
	var want []string
	for i := range made {
		want = append(want, made[i].ID)
		if _, err := v.GenerateResident(patient(t), made[i].ID, made[i].Spec); !errors.Is(err, keystore.ErrKeyExists) {
			t.Errorf("%s twice: %v", made[i].Spec, err)
		}
	}
	second := tokentest.Open(t, &modules, tokentest.Options(u))
	for _, v := range []*keystore.Vault{v, openVault(t, tok), openVault(t, second)} {
		if got, err := v.Residents(patient(t)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
	}
	for i := range made {
		for range 2 {
			if err := v.Destroy(patient(t), made[i]); err != nil {
				t.Error(err)
			}
		}
		if _, err := v.GenerateResident(patient(t), made[i].ID, keystore.SpecAES256); err != nil {
			t.Errorf("its id cannot be used again: %v", err)
		}
	}
	if got, err := v.Residents(patient(t)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// A resident that another process deletes is gone at once, and asking for it
// again and again causes no search each time.
func TestResidentIsDeleted(t *testing.T) {
	tok, m, u := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	u.ModulePath = tokentest.Module(t)
	mac, ed := resident(t, v, "mac", keystore.SpecHMAC384), resident(t, v, "ed", keystore.SpecEd25519)
	tool(t, u, "--delete-object", "--type", "secrkey", "--label", "hyok.kms.test.mac")
	if err := useAny(t, v, &mac); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("deleted: %v", err)
	}
	before, begin := m.Count(t, "C_FindObjectsInit"), time.Now()
	for range 300 {
		if err := useAny(t, v, &mac); !errors.Is(err, keystore.ErrKeyNotFound) {
			t.Fatal(err)
		}
	}
	if n := m.Count(t, "C_FindObjectsInit") - before; n > 2*int(time.Since(begin)/(200*time.Millisecond))+2 {
		t.Errorf("%d searches for 300 requests in %v", n, time.Since(begin))
	}
	if _, err := v.Sign(patient(t), &ed, keystore.SignEd25519, 0, []byte("m")); err != nil {
		t.Error(err)
	}
}

// Vaults work in tokens that choose IVs, have no session copies or open no
// read-only sessions.
func TestVaultProfiles(t *testing.T) {
	for name, behaviours := range emulations() {
		t.Run(name, func(t *testing.T) {
			tok, _, _ := newFaulty(t, name, behaviours)
			s := newVaultSample(t, openVault(t, tok))
			if err := s.all(patient(t)); err != nil {
				t.Error(err)
			}
			m := importMaterial(t, s.v, "imported", keystore.SpecAES256, importedMaterial)
			sealed := sealedBy(t, s.v, &m)
			if got, err := openWithGo(sealed, ""); err != nil || got != "text of imported" {
				t.Errorf("Go opens %q, %v", got, err)
			}
			if name == "cloudhsm" { // RSA is generated where it stays, for want of copies
				rsa := resident(t, s.v, "rsa", keystore.SpecRSA2048)
				useRSA(t, s.v, &rsa)
			}
		})
	}
}

// A token that neither wraps nor lets a key be read does the same otherwise.
func TestTokenThatRefuses(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	m.Set(t, "fail C_WrapKey 0x69")
	for i, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC256, keystore.SpecP256, keystore.SpecRSA2048} {
		made := material(t, v, fmt.Sprintf("k-%d", i), spec)
		if !made.Resident() {
			t.Errorf("%s is wrapped", spec)
		}
		useMaterial(t, v, v, &made)
	}
	m.Set(t, "fail C_GenerateKeyPair 0xd1")
	for _, spec := range []keystore.Spec{keystore.SpecRSA2048, keystore.SpecP384, keystore.SpecSecp256k1, keystore.SpecEd25519} {
		private, public, err := v.GenerateDataKeyPair(patient(t), spec)
		if err != nil || !bytes.Equal(openssl(t, private), public) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// What is made wrapped costs no search, however many keys there are.
func TestGenerateSearchesNothing(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	v := openVault(t, tok)
	before := m.Count(t, "C_FindObjectsInit")
	for _, spec := range []keystore.Spec{keystore.SpecAES256, keystore.SpecHMAC512, keystore.SpecP256} {
		made := material(t, v, "k", spec)
		useMaterial(t, v, v, &made)
	}
	if n := m.Count(t, "C_FindObjectsInit") - before; n != 0 {
		t.Errorf("%d searches", n)
	}
}

func TestRandom(t *testing.T) {
	tok, _ := newToken(t)
	seen := map[string]bool{}
	for _, n := range []int{0, 1, 16, 1024, 1 << 20} {
		b, err := tok.Random(patient(t), n)
		if err != nil || len(b) != n || n >= 16 && seen[string(b[:16])] {
			t.Errorf("%d: %d bytes, %v", n, len(b), err)
		}
		if n >= 16 {
			seen[string(b[:16])] = true
		}
	}
	if _, err := tok.Random(patient(t), 1<<20+1); err == nil {
		t.Error("too much was given")
	}
}

// Callers that are at work while the token is closed are answered, and nothing
// touches the module afterwards.
func TestVaultIsClosedUnderLoad(t *testing.T) {
	m := tokentest.NewFaulty(t)
	o := tokentest.Options(m.Token(t, &modules))
	o.Sessions = 2
	tok, err := keystore.Open(patient(t), &modules, o)
	if err != nil {
		t.Fatal(err)
	}
	v := openVault(t, tok, cacheSize(1))
	key, pair := material(t, v, "k", keystore.SpecAES256), material(t, v, "p", keystore.SpecP256)
	ctx := patient(t)
	var wg sync.WaitGroup
	for _, call := range vaultCalls(v, &key, &pair) {
		wg.Go(func() {
			for !errors.Is(call(ctx), keystore.ErrClosed) && ctx.Err() == nil {
			}
		})
	}
	eventually(t, "all are at work", func() bool { return tok.Stats().Calls > 60 })
	if err := tok.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	if ctx.Err() != nil {
		t.Error("somebody was not told that the token is closed")
	}
	if n := m.Count(t, tokentest.OpenSessions); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}
