package keystore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func logTo(l *lines) func(*keystore.Options) {
	return func(o *keystore.Options) { o.Logger = slog.New(slog.NewTextHandler(l, nil)) }
}

// reopened opens the token of another one once more, which knows nothing of it yet.
func reopened(t *testing.T, u keystore.URI, change ...func(*keystore.Options)) *keystore.Token {
	t.Helper()
	o := tokentest.Options(u)
	for _, c := range change {
		c(&o)
	}
	return tokentest.Open(t, &modules, o)
}

func encrypt(t *testing.T, tok *keystore.Token, id string) error {
	t.Helper()
	k, err := tok.Find(patient(t), id)
	if err == nil {
		_, err = k.Encrypt(patient(t), k.Newest(), []byte("p"), nil)
	}
	return err
}

// A key that somebody else has made without CKA_ID, which some tokens call an error,
// is in nobody's way, and can be used.
func TestUntoldAttributesOfForeignKey(t *testing.T) {
	for _, untold := range []string{"untold 0x102", "untold abruptly 0x102", "untold 0x161", "untold abruptly 0x104"} {
		for _, code := range []string{"CKR_ATTRIBUTE_TYPE_INVALID", "CKR_ATTRIBUTE_SENSITIVE"} {
			first, m, u := newFaulty(t, "softhsm2", nil)
			generate(t, first, "foreign", both)
			generate(t, first, "ours", both)
			m.Set(t, strings.Join([]string{untold, code, "foreign"}, " "))
			tok := reopened(t, u)
			for _, id := range []string{"ours", "foreign"} {
				if err := encrypt(t, tok, id); err != nil {
					t.Errorf("%s %s: %s: %v", untold, code, id, err)
				}
			}
			infos, err := tok.Keys(patient(t))
			if err != nil || len(infos) != 2 {
				t.Errorf("%s %s: list: %v, %v", untold, code, infos, err)
			}
			if n := tok.Stats().Unread; n != 0 {
				t.Errorf("%s %s: %d objects were not read", untold, code, n)
			}
		}
	}
}

// An object that cannot be read is in nobody's way, and is not called absent.
func TestUnreadableObject(t *testing.T) {
	first, m, u := newFaulty(t, "softhsm2", nil)
	generate(t, first, "bad", both)
	generate(t, first, "good", both)
	m.Set(t, "object bad C_GetAttributeValue CKR_GENERAL_ERROR")
	var log lines
	tok := reopened(t, u, logTo(&log))
	for range 3 {
		if err := tok.Refresh(patient(t)); err != nil {
			t.Fatal(err)
		}
		if err := encrypt(t, tok, "good"); err != nil {
			t.Error(err)
		}
	}
	if n := log.count("is passed over"); n != 1 || tok.Stats().Unread != 1 {
		t.Errorf("%d lines in the log, %+v", n, tok.Stats())
	}
	var failure *keystore.TokenError
	if err := encrypt(t, tok, "bad"); !errors.As(err, &failure) || errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("the unreadable one: %v", err)
	}
	if err := encrypt(t, tok, "none"); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := tok.GenerateKey(patient(t), "new", both); err != nil {
		t.Errorf("a new one: %v", err)
	}
	if err := tok.GenerateKey(patient(t), "bad", both); !errors.As(err, &failure) {
		t.Errorf("one of the same label: %v", err)
	}
	m.Set(t)
	if err := tok.Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := encrypt(t, tok, "bad"); err != nil || tok.Stats().Unread != 0 {
		t.Errorf("readable again: %v, %+v", err, tok.Stats())
	}
	if n := tok.Stats().Trips; n != 0 {
		t.Errorf("the breaker opened %d times", n)
	}
}

// While a token is sick, what it answers is no reason to pass over its objects.
func TestSickTokenIsNotPassedOver(t *testing.T) {
	first, m, u := newFaulty(t, "softhsm2", nil)
	generate(t, first, "k", both)
	tok := reopened(t, u)
	m.Set(t, "fail C_GetAttributeValue,crypto CKR_GENERAL_ERROR")
	if err := tok.Refresh(patient(t)); err == nil {
		t.Error("it was searched")
	}
	m.Set(t)
	if err := encrypt(t, tok, "k"); err != nil {
		t.Error(err)
	}
}

// The codes of other makes for a key that is not permitted or gone.
func otherCodes() map[string][]string {
	return map[string][]string{
		"kryoptic": {"instead CKR_GENERAL_ERROR CKR_KEY_FUNCTION_NOT_PERMITTED", "instead CKR_GENERAL_ERROR CKR_OBJECT_HANDLE_INVALID",
			"instead CKR_GENERAL_ERROR CKR_KEY_HANDLE_INVALID"},
		"NSS": {"instead CKR_KEY_TYPE_INCONSISTENT CKR_KEY_FUNCTION_NOT_PERMITTED"},
	}
}

// Whatever code a token has for it: a key that is disabled, withdrawn or deleted is
// told to be so, and no other key suffers.
func TestOtherCodesForDisabledAndGone(t *testing.T) {
	for name, behaviours := range otherCodes() {
		t.Run(name, func(t *testing.T) {
			tok, m, u := newFaulty(t, "softhsm2", behaviours)
			good := generate(t, tok, "good", both)
			disabled := generate(t, tok, "disabled", both)
			sealed := seal(t, disabled, "p", "")
			gone := generate(t, tok, "gone", both)
			decrypts := generate(t, tok, "decrypts", keystore.KeyUsage{Decrypt: true})
			another := reopened(t, u)
			if err := errors.Join(another.SetEnabled(patient(t), "disabled", false), another.DestroyKey(patient(t), "gone", 0)); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if _, err := disabled.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyDisabled) {
					t.Errorf("encrypt, disabled: %v", err)
				}
				if _, err := disabled.Decrypt(patient(t), 1, sealed, nil); !errors.Is(err, keystore.ErrKeyDisabled) {
					t.Errorf("decrypt, disabled: %v", err)
				}
				if _, err := gone.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyNotFound) {
					t.Errorf("gone: %v", err)
				}
				if _, err := decrypts.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyUsage) {
					t.Errorf("not for encryption: %v", err)
				}
				seal(t, good, "p", "")
			}
			if s := tok.Stats(); s.Trips != 0 || s.Failures != 0 {
				t.Errorf("%+v", s)
			}
			m.Set(t)
		})
	}
}

// A bad tag is told from a key that may not encrypt also where both are general errors.
func TestBadTagOfKeyThatOnlyDecrypts(t *testing.T) {
	tok, _, _ := newFaulty(t, "softhsm2", otherCodes()["kryoptic"])
	k := generate(t, tok, "k", keystore.KeyUsage{Decrypt: true})
	bad := keystore.Sealed{IV: make([]byte, 12), Ciphertext: []byte("text"), Tag: make([]byte, 16)}
	if _, err := k.Decrypt(patient(t), 1, bad, nil); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Error(err)
	}
}

// One key that the token fails for, however often it is asked for, does not put the
// token out of service.
func TestOneBadKeyDoesNotTrip(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	bad, good := generate(t, tok, "bad", both), generate(t, tok, "good", both)
	m.Set(t, "object bad C_EncryptInit,C_DecryptInit CKR_GENERAL_ERROR")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if _, err := bad.Encrypt(patient(t), 1, []byte("p"), nil); err == nil || errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("the bad one: %v", err)
				}
			}
		})
	}
	for range 50 {
		seal(t, good, "p", "")
	}
	wg.Wait()
	if s := tok.Stats(); s.Trips != 0 || s.Failures == 0 {
		t.Errorf("%+v", s)
	}
}

// Where a token copies no keys, they are disabled all the same.
func TestDisableWithoutCopies(t *testing.T) {
	tok, m, _ := newFaulty(t, "softhsm2", nil)
	k := generate(t, tok, "k", both)
	for _, code := range []string{"CKR_ATTRIBUTE_VALUE_INVALID", "CKR_FUNCTION_NOT_SUPPORTED", "CKR_TEMPLATE_INCONSISTENT"} {
		m.Set(t, "fail C_CopyObject "+code)
		if err := tok.SetEnabled(patient(t), "k", false); err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); !errors.Is(err, keystore.ErrKeyDisabled) {
			t.Errorf("%s: disabled: %v", code, err)
		}
		if err := tok.SetEnabled(patient(t), "k", true); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		seal(t, k, "p", "")
	}
	m.Set(t, "fail C_CopyObject CKR_DEVICE_ERROR")
	if err := tok.SetEnabled(patient(t), "k", false); err == nil {
		t.Error("a token that fails changed a key in place")
	}
}

// Keys of a vault: a handle that cannot be read any more is got anew, and of a root
// key that is withdrawn or gone nothing is opened within a second, whatever the codes.
func TestVaultWithOtherCodes(t *testing.T) {
	const root = "hyok.root.test"
	kills := map[string]func(*testing.T, keystore.URI){
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
	for name, behaviours := range otherCodes() {
		for how, kill := range kills {
			t.Run(name+" "+how, func(t *testing.T) {
				tok, m, u := newFaulty(t, "softhsm2", behaviours)
				v := openVault(t, tok)
				wrapped, fresh := material(t, v, "wrapped", keystore.SpecHMAC384), material(t, v, "fresh", keystore.SpecHMAC384)
				owned := resident(t, v, "resident", keystore.SpecHMAC384)
				if err := errors.Join(useAny(t, v, &wrapped), useAny(t, v, &owned)); err != nil {
					t.Fatal(err)
				}
				m.Set(t, append(behaviours, "renumber 1 CKR_GENERAL_ERROR")...)
				if err := errors.Join(useAny(t, v, &wrapped), useAny(t, v, &owned)); err != nil {
					t.Errorf("with other handles: %v", err)
				}
				kill(t, u)
				dead := time.Now()
				err := useAny(t, v, &wrapped)
				for err == nil && time.Since(dead) < 5*time.Second {
					err = useAny(t, v, &wrapped)
				}
				if !errors.Is(err, keystore.ErrRootKey) {
					t.Errorf("the root key is %s: %v", how, err)
				}
				if err := useAny(t, v, &fresh); !errors.Is(err, keystore.ErrRootKey) {
					t.Errorf("a key that is unwrapped now: %v", err)
				}
				if err := useAny(t, v, &owned); err != nil {
					t.Errorf("the resident key: %v", err)
				}
				if n := tok.Stats().Trips; n != 0 {
					t.Errorf("the breaker opened %d times", n)
				}
			})
		}
	}
}

// Tokens that compare the templates of a pair, as opencryptoki does, make all pairs.
func TestPairsOfTokenThatComparesTemplates(t *testing.T) {
	tok, _, _ := newFaulty(t, "generic", []string{"pairs typed", "refuse-attribute 0x171 CKR_GENERAL_ERROR"}) // 0x171: CKA_COPYABLE
	v := openVault(t, tok)
	for i, spec := range []keystore.Spec{keystore.SpecP256, keystore.SpecP384, keystore.SpecRSA2048, keystore.SpecEd25519} {
		m := material(t, v, fmt.Sprint("wrapped-", i), spec)
		own := resident(t, v, fmt.Sprint("resident-", i), spec)
		if _, _, err := v.GenerateDataKeyPair(patient(t), spec); err != nil {
			t.Errorf("%s: a data key pair: %v", spec, err)
		}
		if spec == keystore.SpecEd25519 {
			continue // which useAny does not know
		}
		if err := errors.Join(useAny(t, v, &m), useAny(t, v, &own)); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// SoftHSM2's profile is nobody else's, also where none is named.
func TestProfileOfAnotherMake(t *testing.T) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	m.Set(t, "model Another%20HSM")
	for _, name := range []string{"", "softhsm2"} {
		o := tokentest.Options(u)
		o.Profile = profileNamed(t, name)
		_, err := keystore.Open(patient(t), &modules, o)
		if err == nil || keystore.MayPass(err) || !strings.Contains(err.Error(), "Another HSM") || !strings.Contains(err.Error(), "generic") {
			t.Errorf("profile %q: %v", name, err)
		}
	}
	tok := reopened(t, u, func(o *keystore.Options) { o.Profile = profileNamed(t, "generic") })
	seal(t, generate(t, tok, "k", both), "p", "")
}

// The text that a module wants in C_Initialize comes from the URI, in this process and
// in another one, also when the module is initialized again.
func TestModuleParameters(t *testing.T) { isolations(t, testModuleParameters) }

func testModuleParameters(t *testing.T, isolation func(*keystore.Options)) {
	m := tokentest.NewFaulty(t)
	u := m.Token(t, &modules)
	m.Set(t, "parameters configdir='/x'%20flags=readOnly")
	if _, err := keystore.Open(patient(t), &modules, tokentest.Options(u)); err == nil {
		t.Fatal("opened without parameters")
	}
	u, err := keystore.ParseURI(u.String() + "&module-parameters=configdir%3D%27%2Fx%27%20flags%3DreadOnly")
	if err != nil || u.ModuleParameters != "configdir='/x' flags=readOnly" {
		t.Fatalf("%v: %q", err, u.ModuleParameters)
	}
	tok := reopened(t, u, isolation)
	k := generate(t, tok, "k", both)
	m.Set(t, "parameters configdir='/x'%20flags=readOnly", "dead CKR_DEVICE_ERROR until-initialize")
	for range 5 {
		if _, err := k.Encrypt(patient(t), 1, []byte("p"), nil); err == nil {
			t.Error("a dead token encrypted")
		}
	}
	m.Set(t, "parameters configdir='/x'%20flags=readOnly")
	eventually(t, "the token is back", func() bool { return encrypt(t, tok, "k") == nil })
	if n := tok.Stats().Resets; n == 0 {
		t.Error("the module was not initialized again")
	}
	other := u
	other.ModuleParameters = "configdir='/y'"
	if _, err := keystore.Open(patient(t), &modules, tokentest.Options(other)); err == nil {
		t.Error("one module with two texts")
	}
}
