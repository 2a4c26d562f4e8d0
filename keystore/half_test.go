package keystore_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// withoutValue returns the object file of a key as SoftHSM2 leaves it when it is
// killed in C_GenerateKey once it has written the template: without the value, and
// not marked as generated in the token. A file is a generation number and
// attributes, see softhsm.KeepTokens.
func withoutValue(t *testing.T, data []byte) []byte {
	t.Helper()
	const (
		ckaValue  = 0x11
		ckaLocal  = 0x163
		kindBytes = 3
	)
	out := data[:8:8]
	for rest := data[8:]; len(rest) > 0; {
		name, kind := binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:])
		size := 16 + map[uint64]int{1: 1, 2: 8, 4: 8, 5: 8}[kind] // the last two are empty
		if kind == kindBytes {
			size = 24 + int(binary.BigEndian.Uint64(rest[16:]))
		}
		switch name {
		case ckaValue:
			out = append(append(out, rest[:16]...), make([]byte, 8)...)
		case ckaLocal:
			out = append(append(out, rest[:16]...), 0)
		default:
			out = append(out, rest[:size]...)
		}
		rest = rest[size:]
	}
	return out
}

// objectFiles returns the files of the objects of all tokens.
func objectFiles(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(os.Getenv(softhsm.ConfigVariable)), "tokens", "*", "*-*.object"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, f := range files {
		set[f] = true
	}
	return set
}

// halve opens a new token, lets make make an object as its last, and takes the value
// of that away.
func halve(t *testing.T, ms *keystore.Modules, make func(tok *keystore.Token, last func()) error) keystore.Options {
	t.Helper()
	u := tokentest.NewToken(t, ms)
	var before map[string]bool
	last := func() { before = objectFiles(t) }
	tok, err := keystore.Open(patient(t), ms, tokentest.Options(u))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(make(tok, last), tok.Close(patient(t))); err != nil {
		t.Fatal(err)
	}
	n := 0
	for file := range objectFiles(t) {
		if before[file] {
			continue
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, withoutValue(t, data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 {
		t.Fatalf("%d objects were cut short", n)
	}
	return tokentest.Options(u)
}

// A probe key that a killed process has not finished does not make the token sick:
// another takes its place.
func TestHalfProbeKey(t *testing.T) {
	var ms keystore.Modules
	o := halve(t, &ms, func(tok *keystore.Token, last func()) error {
		last()
		tok.Probe(patient(t))
		return nil
	})
	tok := tokentest.Open(t, &ms, o)
	for range 2 {
		if h := tok.Probe(patient(t)); h.State != keystore.Active {
			t.Errorf("%v: %s", h.State, h.Reason)
		}
	}
}

// A vault whose root key is not finished says what to do, and leaves it alone.
func TestHalfRootKey(t *testing.T) {
	var ms keystore.Modules
	vault := keystore.VaultOptions{Name: "test"}
	o := halve(t, &ms, func(tok *keystore.Token, last func()) error {
		last()
		_, err := tok.OpenVault(patient(t), vault)
		return err
	})
	tok := tokentest.Open(t, &ms, o)
	for range 2 {
		tok.Probe(patient(t)) // what succeeds keeps the token from being taken for sick
		if _, err := tok.OpenVault(patient(t), vault); !errors.Is(err, keystore.ErrRootKey) || !strings.Contains(err.Error(), "delete hyok.root.test") {
			t.Errorf("a root key without a value: %v", err)
		}
	}
}

// So does one whose seal key is not finished.
func TestHalfSealKey(t *testing.T) {
	var ms keystore.Modules
	vault := keystore.VaultOptions{Name: "test"}
	o := halve(t, &ms, func(tok *keystore.Token, last func()) error {
		v, err := tok.OpenVault(patient(t), vault)
		if err == nil {
			last()
			_, err = v.SealSecret(patient(t), "test", true)
		}
		return err
	})
	v, err := tokentest.Open(t, &ms, o).OpenVault(patient(t), vault)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.SealSecret(patient(t), "test", true); err == nil || !strings.Contains(err.Error(), "delete hyok.seal.test") {
		t.Errorf("a seal key without a value: %v", err)
	}
}

// A resident key that is not finished is destroyed by its id; an empty file, of one
// that did not get that far, is no object.
func TestHalfResidentKey(t *testing.T) {
	for _, spec := range []keystore.Spec{keystore.SpecEd25519, keystore.SpecAES256} {
		var ms keystore.Modules
		vault := keystore.VaultOptions{Name: "test"}
		o := tokentest.Options(tokentest.NewToken(t, &ms))
		tok, err := keystore.Open(patient(t), &ms, o)
		if err != nil {
			t.Fatal(err)
		}
		v, err := tok.OpenVault(patient(t), vault)
		if err != nil {
			t.Fatal(err)
		}
		before := objectFiles(t)
		half, err1 := v.GenerateResident(patient(t), "half", spec)
		afterHalf := objectFiles(t)
		empty, err2 := v.GenerateResident(patient(t), "empty", spec)
		if err := errors.Join(err1, err2, tok.Close(patient(t))); err != nil {
			t.Fatal(err)
		}
		for file := range objectFiles(t) {
			if before[file] {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			data = withoutValue(t, data)
			if !afterHalf[file] {
				data = nil
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tok = tokentest.Open(t, &ms, o)
		if v, err = tok.OpenVault(patient(t), vault); err != nil {
			t.Fatal(err)
		}
		if ids, err := v.Residents(patient(t)); err != nil || !slices.Equal(ids, []string{"half"}) {
			t.Errorf("%s: %v, %v", spec, ids, err)
		}
		if err := errors.Join(v.Destroy(patient(t), half), v.Destroy(patient(t), empty)); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
		if ids, err := v.Residents(patient(t)); err != nil || len(ids) > 0 {
			t.Errorf("%s: %v, %v", spec, ids, err)
		}
		if err := tok.Close(patient(t)); err != nil {
			t.Error(err)
		}
	}
}
