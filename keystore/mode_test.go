package keystore_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// The storage of a token cannot be read for a while, by a process that is not root: as
// TestStorageAway.
func TestStorageUnreadable(t *testing.T) {
	if tokentest.AsNobody(t) {
		return
	}
	everything := func(h *housed) []string { return append(h.objects(t), filepath.Join(h.folder, "token.object")) }
	for name, files := range map[string]func(h *housed) []string{
		"folder": func(h *housed) []string { return []string{h.folder} },
		"files":  everything,
	} {
		t.Run(name, func(t *testing.T) {
			isolations(t, func(t *testing.T, isolation func(*keystore.Options)) {
				h := newHoused(t, isolation)
				readable := unreadable(t, files(h))
				eventually(t, "the token is out of service", func() bool { h.check(t); return !h.tok.Available() })
				for range 20 {
					h.check(t)
				}
				readable()
				eventually(t, "it serves", func() bool { return h.check(t) })
			})
		})
	}
	t.Run("a stranger's file", func(t *testing.T) { isolations(t, testStrangersFile) })
	t.Run("one object", func(t *testing.T) { isolations(t, testObjectUnreadable) })
}

// Of a key whose object cannot be read is not known that it is gone; the others serve.
func testObjectUnreadable(t *testing.T, isolation func(*keystore.Options)) {
	h := newHoused(t, isolation)
	for name, label := range map[string]string{"external key": "k", "resident AES key": "held", "pair": "pair", "wrapped key": "root key"} {
		readable := unreadable(t, []string{h.files[label]})
		eventually(t, name+" cannot be used", func() bool { h.check(t); return h.use(patient(t))[name] != nil })
		trips := h.tok.Stats().Trips
		for range 20 {
			h.check(t)
		}
		if _, err := h.tok.Find(patient(t), "another"); err != nil || h.tok.Stats().Trips != trips {
			t.Errorf("%s: the token does not serve its other keys: %v", name, err)
		}
		readable()
		eventually(t, name+" serves", func() bool { return h.check(t) })
	}
}

// unreadable takes all permissions of files, until they are given back.
func unreadable(t *testing.T, files []string) (giveBack func()) {
	t.Helper()
	set := func(mode func(string) fs.FileMode) {
		t.Helper()
		for _, f := range files {
			if err := os.Chmod(f, mode(f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	modes := map[string]fs.FileMode{}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		modes[f] = info.Mode().Perm()
	}
	set(func(string) fs.FileMode { return 0 })
	return func() {
		t.Helper()
		set(func(f string) fs.FileMode { return modes[f] })
	}
}

// A file that could not be read when the token was opened is in nobody's way.
func testStrangersFile(t *testing.T, isolation func(*keystore.Options)) {
	u := tokentest.NewToken(t, &modules)
	folder := folderOf(t, tokentest.Open(t, &modules, tokentest.Options(u)))
	if err := os.WriteFile(filepath.Join(folder, "a-stranger.object"), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	o := tokentest.Options(u)
	o.Background = true
	isolation(&o)
	tok := tokentest.Open(t, &modules, o)
	generate(t, tok, "a", both)
	generate(t, tok, "b", both)
	eventually(t, "there is a probe key", func() bool { return tok.Health().State == keystore.Active })
	use := func(id string) error {
		k, err := tok.Find(patient(t), id)
		if err == nil {
			_, err = k.Encrypt(patient(t), 1, []byte("p"), nil)
		}
		return err
	}
	back := move(t, folder)
	eventually(t, "it is out of service", func() bool { _ = use("a"); return !tok.Available() })
	back()
	eventually(t, "it serves", func() bool { return use("a") == nil && use("b") == nil })
	other := tokentest.Open(t, &modules, tokentest.Options(u))
	if err := other.DestroyKey(patient(t), "a", 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a kill is one", func() bool { return errors.Is(use("a"), keystore.ErrKeyNotFound) })
	if err := use("b"); err != nil {
		t.Error(err)
	}
}
