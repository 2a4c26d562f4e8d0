package keystore_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// A token whose searches find nothing for a while, as of a network HSM whose cache is
// empty after a failover, has no key less, whatever its profile.
func TestSearchesFindNothing(t *testing.T) {
	for _, profile := range []string{"softhsm2", "luna"} {
		t.Run(profile, func(t *testing.T) {
			isolations(t, func(t *testing.T, isolation func(*keystore.Options)) { testSearchesFindNothing(t, profile, isolation) })
		})
	}
}

func testSearchesFindNothing(t *testing.T, profile string, isolation func(*keystore.Options)) {
	behaviours := map[string][]string{"luna": {"iv appended"}}[profile]
	tok, m, _ := newFaulty(t, profile, behaviours, background, isolation)
	generate(t, tok, "k", both)
	generate(t, tok, "another", both)
	v := openVault(t, tok)
	locked, held := material(t, v, "locked", keystore.SpecAES256), resident(t, v, "held", keystore.SpecP256)
	use := func() (well bool) {
		t.Helper()
		k, err := tok.Find(patient(t), "k")
		if err == nil {
			_, err = k.Encrypt(patient(t), 1, []byte("p"), nil)
		}
		_, wrapped := v.Encrypt(patient(t), &locked, []byte("p"), nil)
		_, pair := v.SharedSecret(patient(t), &held, held.Public)
		if err := errors.Join(err, wrapped, pair); errors.Is(err, keystore.ErrKeyNotFound) || errors.Is(err, keystore.ErrRootKey) {
			t.Errorf("it is said to be gone: %v", err)
		}
		return err == nil && wrapped == nil && pair == nil
	}
	eventually(t, "there is a probe key", func() bool { return tok.Health().State == keystore.Active && use() })
	spare := resident(t, v, "spare", keystore.SpecP256)
	objects := objectsOf(t, tok)
	// After a loss of all sessions each handle is another one, and has to be searched for.
	m.Set(t, append(behaviours, "find-nothing", "renumber 1", "lose-sessions 1")...)
	eventually(t, "the token is out of service", func() bool { use(); return !tok.Available() })
	for range 20 {
		use()
	}
	if _, err := tok.Find(patient(t), "unknown"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a key that it never had: %v", err)
	}
	if err := v.Destroy(patient(t), spare); err == nil {
		t.Error("a key that is not to be seen is said to be destroyed")
	}
	m.Set(t, behaviours...)
	eventually(t, "it serves", use)
	// A probe key whose handle became another one in the midst may be left.
	if now := objectsOf(t, tok); now > objects+1 {
		t.Errorf("it has %d objects and had %d", now, objects)
	}
	// Right after a search that finds nothing begins to, nobody knows of it yet.
	m.Set(t, append(behaviours, "find-nothing")...)
	if err := v.Destroy(patient(t), spare); err == nil {
		t.Error("a key that is not found is said to be destroyed")
	}
	m.Set(t, behaviours...)
	eventually(t, "it is destroyed", func() bool { return v.Destroy(patient(t), spare) == nil })
	if ids, err := v.Residents(patient(t)); err != nil || slices.Contains(ids, "spare") {
		t.Errorf("there are %v, %v", ids, err)
	}
}

// objectsOf returns how many objects a token of SoftHSM2 has.
func objectsOf(t *testing.T, tok *keystore.Token) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folderOf(t, tok), "*-*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// At a start nothing is known of what a token has: what it does not find then is not
// said to be missing before it has shown that it finds anything.
func TestSearchesFindNothingAtFirst(t *testing.T) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	t.Cleanup(func() { m.Set(t) })
	open := func() (*keystore.Token, func()) {
		o := tokentest.Options(u)
		o.Background = true
		tok, err := keystore.Open(patient(t), &modules, o)
		if err != nil {
			t.Fatal(err)
		}
		return tok, func() {
			if err := tok.Close(patient(t)); err != nil {
				t.Error(err)
			}
		}
	}
	tok, end := open()
	generate(t, tok, "k", both)
	v := openVault(t, tok)
	held := resident(t, v, "held", keystore.SpecP256)
	eventually(t, "there is a probe key", func() bool { return tok.Health().State == keystore.Active })
	objects := objectsOf(t, tok)
	end()
	m.Set(t, "find-nothing")
	tok, end = open()
	defer end()
	if _, err := tok.Find(patient(t), "k"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("an external key: %v", err)
	}
	if _, err := tok.OpenVault(patient(t), keystore.VaultOptions{Name: "test", Existing: true}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a vault: %v", err)
	}
	m.Set(t)
	eventually(t, "the token is back", tok.Available)
	find(t, tok, "k")
	v = openVault(t, tok, func(o *keystore.VaultOptions) { o.Existing = true })
	if _, err := v.SharedSecret(patient(t), &held, held.Public); err != nil {
		t.Error(err)
	}
	if now := objectsOf(t, tok); now != objects {
		t.Errorf("it has %d objects and had %d", now, objects)
	}
}
