package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// tokenCodes are the return values that lie in the token, its driver or the way to
// it, by their names in PKCS#11.
func tokenCodes() map[string]int {
	return map[string]int{
		"SESSION_HANDLE_INVALID": 0xb3, "SESSION_CLOSED": 0xb0, "USER_NOT_LOGGED_IN": 0x101,
		"OBJECT_HANDLE_INVALID": 0x82, "KEY_HANDLE_INVALID": 0x60,
		"DEVICE_REMOVED": 0x32, "DEVICE_ERROR": 0x30, "DEVICE_MEMORY": 0x31, "TOKEN_NOT_PRESENT": 0xe0, "SLOT_ID_INVALID": 0x03,
		"GENERAL_ERROR": 0x05, "FUNCTION_FAILED": 0x06, "HOST_MEMORY": 0x02, "CRYPTOKI_NOT_INITIALIZED": 0x190,
	}
}

// tokenFunctions are the functions that hyok calls for external keys.
func tokenFunctions() []string {
	return []string{
		"C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_Login",
		"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue",
		"C_GenerateRandom", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt",
		"C_GenerateKey", "C_SetAttributeValue", "C_CopyObject", "C_DestroyObject", "any",
	}
}

// witness has another module open on a token, which no fault reaches.
type witness struct {
	tok    *keystore.Token
	key    *keystore.Key // "k"
	sealed keystore.Sealed
}

func newWitness(t *testing.T, u keystore.URI) *witness {
	t.Helper()
	u.ModulePath = tokentest.Module(t)
	w := &witness{tok: tokentest.Open(t, &modules, tokentest.Options(u))}
	k, err := w.tok.Find(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	w.key, w.sealed = k, seal(t, k, "known", "")
	return w
}

// check uses the token as requests do. Errors may come from the token alone, and no
// answer may be wrong.
func (w *witness) check(ctx context.Context, t *testing.T, tok *keystore.Token) (healthy bool) {
	k, err := tok.Find(ctx, "k")
	if err != nil {
		return w.excuse(t, "find", err)
	}
	sealed, err := k.Encrypt(ctx, 1, []byte("text"), []byte("aad"))
	if err != nil {
		return w.excuse(t, "encrypt", err)
	}
	if text, err := w.key.Decrypt(ctx, 1, sealed, []byte("aad")); err != nil || string(text) != "text" {
		t.Errorf("what was encrypted does not open: %v", err)
	}
	text, err := k.Decrypt(ctx, 1, w.sealed, nil)
	if err != nil {
		return w.excuse(t, "decrypt", err)
	}
	if !bytes.Equal(text, []byte("known")) {
		t.Errorf("it decrypted to %q", text)
	}
	usage, disabled, err := k.Permissions(ctx)
	if err != nil {
		return w.excuse(t, "permissions", err)
	}
	if usage != both || disabled {
		t.Errorf("permissions: %v, disabled %v", usage, disabled)
	}
	info, err := tok.Describe(ctx, "k")
	if err != nil {
		return w.excuse(t, "describe", err)
	}
	if info.Disabled || len(info.Versions) != 1 {
		t.Errorf("it is described as %+v", info)
	}
	return true
}

// excuse accepts that a call failed if the token is to blame. It is always false.
func (w *witness) excuse(t *testing.T, what string, err error) bool {
	var te *keystore.TokenError
	if !errors.As(err, &te) && !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrBusy) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: %v", what, err)
	}
	return false
}

// change makes and changes keys. What it reports as done must be so.
func (w *witness) change(ctx context.Context, t *testing.T, tok *keystore.Token, id string) (healthy bool) {
	if err := tok.GenerateKey(ctx, id, both); err != nil {
		return w.excuse(t, "generate", err)
	}
	if _, err := w.tok.Describe(ctx, id); err != nil {
		t.Errorf("a key was said to be made: %v", err)
	}
	if err := tok.SetEnabled(ctx, id, false); err != nil {
		return w.excuse(t, "disable", err)
	}
	if info, err := w.tok.Describe(ctx, id); err != nil || !info.Disabled {
		t.Errorf("a key was said to be disabled: %+v, %v", info, err)
	}
	if err := tok.DestroyKey(ctx, id, 0); err != nil {
		return w.excuse(t, "destroy", err)
	}
	if _, err := w.tok.Describe(ctx, id); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("a key was said to be destroyed: %v", err)
	}
	return true
}

// Each return value at each function: nothing is wrong while it lasts, and all is
// well after it, without a restart.
func TestRecovery(t *testing.T) { isolations(t, testRecovery) }

func testRecovery(t *testing.T, isolation func(*keystore.Options)) {
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(3), isolation)
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	made := 0
	for _, function := range tokenFunctions() {
		for name, code := range tokenCodes() {
			m.Set(t, fmt.Sprintf("fail %s %#x", function, code))
			for range 6 {
				w.check(patient(t), t, tok)
			}
			made++
			w.change(patient(t), t, tok, fmt.Sprintf("new-%d", made))
			m.Set(t)
			made++
			last := fmt.Sprintf("after-%d", made)
			eventually(t, name+" at "+function+" is over", func() bool { return w.check(patient(t), t, tok) })
			if !w.change(patient(t), t, tok, last) {
				t.Errorf("%s at %s: keys cannot be changed after it", name, function)
			}
			if t.Failed() {
				t.Fatalf("%s at %s", name, function)
			}
		}
	}
}

// The same under load, each fault for the next calls only.
func TestRecoveryUnderLoad(t *testing.T) { isolations(t, testRecoveryUnderLoad) }

func testRecoveryUnderLoad(t *testing.T, isolation func(*keystore.Options)) {
	tok, m, u := newFaulty(t, "softhsm2", nil, sessions(4), background, isolation)
	generate(t, tok, "k", both)
	w := newWitness(t, u)
	ctx, stop := context.WithCancel(patient(t))
	var users sync.WaitGroup
	var rounds, good atomic.Int64
	for range 4 {
		users.Go(func() {
			for ctx.Err() == nil {
				if w.check(patient(t), t, tok) {
					good.Add(1)
				}
				rounds.Add(1)
			}
		})
	}
	for name, code := range tokenCodes() {
		for _, function := range []string{"C_EncryptInit", "C_Decrypt", "C_GetAttributeValue", "any"} {
			m.Set(t, fmt.Sprintf("fail %s %#x count 12", function, code))
			was := rounds.Load()
			eventually(t, "all have met the fault", func() bool { return rounds.Load() > was+12 })
			m.Set(t)
			before := good.Load()
			eventually(t, name+" at "+function+" is over", func() bool { return good.Load() > before+8 })
		}
	}
	stop()
	users.Wait()
}
