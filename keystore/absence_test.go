package keystore_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// housed is a token with keys of every kind, and the folder that SoftHSM2 keeps it in.
type housed struct {
	tok    *keystore.Token
	vault  *keystore.Vault
	folder string
	files  map[string]string // of objects
	sealed keystore.Sealed   // under "k"
	pair   keystore.Material
	mac    keystore.Material
	held   keystore.Material // a resident AES key
	locked keystore.Material // wrapped
}

func newHoused(t *testing.T, change ...func(*keystore.Options)) *housed {
	t.Helper()
	tok, _ := newToken(t, append([]func(*keystore.Options){background}, change...)...)
	h := &housed{tok: tok, folder: folderOf(t, tok), files: map[string]string{}}
	// Whose file is whose is told by the order in which they are made.
	eventually(t, "there is a probe key", func() bool { return tok.Health().State == keystore.Active && len(h.objects(t)) == 1 })
	made := func(label string, make func() error) {
		t.Helper()
		before := h.objects(t)
		if err := make(); err != nil {
			t.Fatal(label, err)
		}
		for _, f := range h.objects(t) {
			if !slices.Contains(before, f) {
				h.files[label] = f
			}
		}
	}
	made("k", func() error { return tok.GenerateKey(patient(t), "k", both) })
	generate(t, tok, "another", both)
	h.sealed = seal(t, find(t, tok, "k"), "known", "")
	made("root key", func() (err error) {
		h.vault, err = tok.OpenVault(patient(t), keystore.VaultOptions{Name: "test"})
		return err
	})
	made("seal key", func() error {
		_, err := h.vault.SealSecret(patient(t), "test", true)
		return err
	})
	h.locked = material(t, h.vault, "locked", keystore.SpecAES256)
	for id, to := range map[string]*keystore.Material{"pair": &h.pair, "mac": &h.mac, "held": &h.held} {
		spec := map[string]keystore.Spec{"pair": keystore.SpecP256, "mac": keystore.SpecHMAC256, "held": keystore.SpecAES256}[id]
		made(id, func() (err error) {
			*to, err = h.vault.GenerateResident(patient(t), id, spec)
			return err
		})
	}
	for name, err := range h.use(patient(t)) {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	return h
}

// objects returns the files of the token's objects.
func (h *housed) objects(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.folder, "*-*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func folderOf(t *testing.T, tok *keystore.Token) string {
	t.Helper()
	folder, err := softhsm.Folder(tok.Info().Serial)
	if err != nil || folder == "" {
		t.Fatal(folder, err)
	}
	return folder
}

// use uses every kind of key once.
func (h *housed) use(ctx context.Context) map[string]error {
	digest := make([]byte, 32)
	errs := map[string]error{}
	k, err := h.tok.Find(ctx, "k")
	if err == nil {
		_, err = k.Decrypt(ctx, 1, h.sealed, nil)
	}
	errs["external key"] = err
	_, errs["wrapped key"] = h.vault.Encrypt(ctx, &h.locked, []byte("p"), nil)
	_, errs["resident AES key"] = h.vault.Encrypt(ctx, &h.held, []byte("p"), nil)
	_, errs["pair"] = h.vault.Sign(ctx, &h.pair, keystore.SignECDSA, crypto.SHA256, digest)
	_, errs["HMAC key"] = h.vault.MAC(ctx, &h.mac, crypto.SHA256, []byte("p"))
	_, errs["seal key"] = h.vault.SealSecret(ctx, "test", false)
	_, errs["description"] = h.tok.Describe(ctx, "k")
	return errs
}

// check uses every kind of key and reports whether all serve. What does not must not be
// said to be gone.
func (h *housed) check(t *testing.T) bool {
	t.Helper()
	well := true
	for name, err := range h.use(patient(t)) {
		well = well && err == nil
		if errors.Is(err, keystore.ErrKeyNotFound) || errors.Is(err, keystore.ErrRootKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	return well
}

// move moves a file or folder, and back when the test ends.
func move(t *testing.T, from string) (back func()) {
	t.Helper()
	away := from + ".away"
	if err := os.Rename(from, away); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(away, from); err != nil {
			t.Fatal(err)
		}
	}
}

// A token's storage goes away while every kind of key is used, and comes back: nothing
// is ever said to be gone, and everything serves again.
func TestStorageAway(t *testing.T) { isolations(t, testStorageAway) }

func testStorageAway(t *testing.T, isolation func(*keystore.Options)) {
	h := newHoused(t, isolation)
	for range 2 {
		back := move(t, h.folder)
		eventually(t, "the token is out of service", func() bool { h.check(t); return !h.tok.Available() })
		for range 20 {
			h.check(t)
		}
		if _, err := h.tok.Find(patient(t), "never was"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("a key that it never had: %v", err)
		}
		if state := h.tok.Health().State; state != keystore.Unavailable {
			t.Errorf("its health is %v", state)
		}
		back()
		eventually(t, "it serves", func() bool { return h.check(t) })
		generate(t, h.tok, "new", both)
		if err := h.tok.DestroyKey(patient(t), "new", 0); err != nil {
			t.Error(err)
		}
	}
}

// The storage is away for so short that only one key is looked at meanwhile.
func TestStorageAwayForAMoment(t *testing.T) {
	for name, use := range map[string]func(h *housed) error{
		"external key": func(h *housed) error {
			k, err := h.tok.Find(context.Background(), "another")
			if err == nil {
				_, _, err = k.Permissions(context.Background())
			}
			return err
		},
		"pair": func(h *housed) error {
			_, err := h.vault.Sign(context.Background(), &h.pair, keystore.SignECDSA, crypto.SHA256, make([]byte, 32))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHoused(t)
			ended := make(chan error, 1)
			back := move(t, h.folder)
			go func() { ended <- use(h) }()
			time.Sleep(5 * time.Millisecond) // whatever the call has come to by then
			back()
			if err := <-ended; errors.Is(err, keystore.ErrKeyNotFound) {
				t.Error(err)
			}
			eventually(t, "all serve", func() bool { return h.check(t) && use(h) == nil })
		})
	}
}

// An empty folder in the place of the token confirms nothing, and nothing is made there.
func TestEmptyMountPoint(t *testing.T) {
	h := newHoused(t)
	back := move(t, h.folder)
	if err := os.Mkdir(h.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is out of service", func() bool { h.check(t); return !h.tok.Available() })
	for range 50 {
		h.check(t)
	}
	if made, err := os.ReadDir(h.folder); err != nil || slices.ContainsFunc(made, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == ".object" }) {
		t.Errorf("in the empty folder was made %v, %v", made, err)
	}
	if err := os.RemoveAll(h.folder); err != nil {
		t.Fatal(err)
	}
	back()
	eventually(t, "it serves", func() bool { return h.check(t) })
}

// One key that goes, be it the root key, was destroyed; what comes back is found again.
func TestOneFileAway(t *testing.T) {
	h := newHoused(t)
	for name, want := range map[string]error{"k": keystore.ErrKeyNotFound, "root key": keystore.ErrRootKey, "pair": keystore.ErrKeyNotFound, "held": keystore.ErrKeyNotFound, "mac": keystore.ErrKeyNotFound, "seal key": keystore.ErrKeyNotFound} {
		t.Run(name, func(t *testing.T) {
			back := move(t, h.files[name])
			gone := func() error {
				for _, err := range h.use(patient(t)) {
					if errors.Is(err, keystore.ErrUnavailable) {
						t.Error(err)
					}
					if errors.Is(err, want) {
						return err
					}
				}
				return nil
			}
			eventually(t, "it is gone", func() bool { return gone() != nil })
			back()
			eventually(t, "it is back", func() bool {
				for _, err := range h.use(patient(t)) {
					if err != nil {
						return false
					}
				}
				return true
			})
			if n := h.tok.Stats().Trips; n != 0 {
				t.Errorf("the token was out of service %d times", n)
			}
		})
	}
}

// All keys of a token are destroyed, hyok's own too: that is believed once a fresh view
// has confirmed it.
func TestEverythingDestroyed(t *testing.T) {
	h := newHoused(t)
	for _, f := range h.objects(t) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the keys are gone", func() bool {
		errs := h.use(patient(t))
		return errors.Is(errs["external key"], keystore.ErrKeyNotFound) && errors.Is(errs["pair"], keystore.ErrKeyNotFound) &&
			errors.Is(errs["wrapped key"], keystore.ErrRootKey) && errors.Is(errs["seal key"], keystore.ErrKeyNotFound)
	})
	if h.tok.Stats().Trips == 0 {
		t.Error("they were believed to be gone at the first look")
	}
	if h.tok.Lacks(nil) == "" || h.vault.Lacks() == "" {
		t.Error("nothing tells that they are gone")
	}
	generate(t, h.tok, "new", both)
	if why := h.tok.Lacks(nil); why != "" {
		t.Error(why)
	}
}
