package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// Whatever call of either token fails, and however: the target has no part of a
// key, no object is left behind, and the next try succeeds.
func TestReplicateFaults(t *testing.T) {
	from, source, _ := newFaulty(t, "softhsm2", nil)
	to, target, _ := newFaulty(t, "softhsm2", nil)
	inSource, inTarget := newRaw(t, source.Path, from), newRaw(t, target.Path, to)
	putWrappingKey(inSource, "kek", make([]byte, 32))
	putWrappingKey(inTarget, "kek", make([]byte, 32))
	s := seal(t, generate(t, from, "k", replicable), "p", "")
	for _, c := range []struct {
		at    string
		calls []string // function and how many calls of it pass before
		way   string   // label of the wrapping key
	}{
		{"source", []string{"C_CreateObject 0", "C_GenerateKey 0", "C_WrapKey 0"}, ""},
		{"source", []string{"C_WrapKey 0", "C_Encrypt 0", "C_FindObjectsInit 0", "C_FindObjectsInit 1", "C_GetAttributeValue 0", "C_OpenSession 0"}, "kek"},
		{"target", []string{"C_GenerateKeyPair 0", "C_UnwrapKey 0", "C_UnwrapKey 1", "C_DestroyObject 0"}, ""},
		{"target", []string{"C_UnwrapKey 0", "C_Decrypt 0", "C_Encrypt 0", "C_SetAttributeValue 0", "C_FindObjectsInit 0", "C_FindObjectsInit 1", "C_OpenSession 0"}, "kek"},
	} {
		for i, call := range c.calls {
			// General error, device error, session closed; each call with one of them.
			code := []string{"0x05", "0x30", "0x30", "0xb3"}[i%4]
			name := fmt.Sprintf("%s %s %s %s", c.at, call, code, c.way)
			function, skip, _ := strings.Cut(call, " ")
			m := source
			if c.at == "target" {
				m = target
			}
			count := 1
			if function == "C_OpenSession" {
				count = 2 // a session that cannot be opened is tried once more
			}
			m.Set(t, fmt.Sprintf("fail %s %s skip %s count %d", function, code, skip, count))
			done, err := keystore.Replicate(patient(t), from, to, "k", keystore.ReplicateOptions{WrappingKey: c.way})
			m.Set(t)
			var te *keystore.TokenError
			if err == nil || !errors.As(err, &te) && !errors.Is(err, keystore.ErrInvalidMaterial) || len(done) > 0 {
				t.Errorf("%s: %v, %+v", name, err, done)
			}
			if ids := keyIDs(t, to); !slices.Equal(ids, []string{"kek"}) {
				t.Errorf("%s: the target has %v", name, ids)
			}
			inTarget.expect(name+": the target", 1, false)
			inSource.expect(name+": the source", 2, true)
		}
	}
	mustReplicate(t, from, to, "k", keystore.ReplicateOptions{})
	opensIn(t, to, "k", 1, s, "p")
}

// A token that forbids a step is named, with what it forbids.
func TestReplicateForbidden(t *testing.T) {
	from, source, _ := newFaulty(t, "softhsm2", nil)
	to, target, _ := newFaulty(t, "luna", []string{"iv appended"})
	generate(t, from, "k", replicable)
	inTarget := newRaw(t, target.Path, to)
	for _, c := range []struct {
		at, behaviour string
		err           error
		saying        string
	}{
		{"source", "fail C_WrapKey 0x6a skip 1", keystore.ErrNotReplicable, "token test: key is not replicable"},
		{"source", "fail C_WrapKey 0x69 skip 1", keystore.ErrUnsupported, "wrap the key by AES key wrap"},
		{"source", "fail C_WrapKey 0x70", keystore.ErrUnsupported, "wrap a key-encryption key by RSAES-OAEP"},
		{"source", "fail C_CreateObject 0xd1", keystore.ErrUnsupported, "bring in a public key"},
		{"source", "fail C_GenerateKey 0x13", keystore.ErrUnsupported, "make a key-encryption key"},
		{"target", "fail C_GenerateKeyPair 0x70", keystore.ErrUnsupported, "make an RSA key"},
		{"target", "fail C_UnwrapKey 0x1b", keystore.ErrUnsupported, "unwrap a key-encryption key"},
		{"target", "fail C_UnwrapKey 0xd1 skip 1", keystore.ErrUnsupported, "unwrap the key by AES key wrap"},
		{"target", "fail C_UnwrapKey 0xd1 skip 2", keystore.ErrUnsupported, "unwrap the key by AES key wrap"}, // the trial passed
	} {
		m := source
		if c.at == "target" {
			m = target
		}
		behaviours := []string{c.behaviour}
		if m == target {
			behaviours = append(behaviours, "iv appended")
		}
		m.Set(t, behaviours...)
		_, err := keystore.Replicate(patient(t), from, to, "k", keystore.ReplicateOptions{})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.saying) {
			t.Errorf("%s %s: %v", c.at, c.behaviour, err)
		}
		source.Set(t)
		target.Set(t, "iv appended")
		inTarget.expect(c.behaviour, 0, false)
	}
	// A disabled key cannot be proven where the token copies no keys.
	if err := from.SetEnabled(patient(t), "k", false); err != nil {
		t.Fatal(err)
	}
	source.Set(t, "fail C_CopyObject 0x54")
	if _, err := keystore.Replicate(patient(t), from, to, "k", keystore.ReplicateOptions{}); !errors.Is(err, keystore.ErrUnsupported) || !strings.Contains(err.Error(), "enable it") {
		t.Errorf("a disabled key: %v", err)
	}
}

// A call that hangs holds up nobody for longer than the caller waits, and what it
// was about is whole or not there once it returns.
func TestReplicateHangs(t *testing.T) {
	for _, function := range []string{"C_UnwrapKey", "C_SetAttributeValue"} {
		from, _, _ := newFaulty(t, "softhsm2", nil)
		to, target, _ := newFaulty(t, "softhsm2", nil)
		s := seal(t, generate(t, from, "k", replicable), "p", "")
		target.Set(t, "hang "+function+" count 1")
		ctx, cancel := context.WithCancel(patient(t))
		failed := make(chan error, 1)
		go func() {
			_, err := keystore.Replicate(ctx, from, to, "k", keystore.ReplicateOptions{})
			failed <- err
		}()
		hangs(t, target)
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", function, err)
		}
		if ids := keyIDs(t, from); !slices.Equal(ids, []string{"k"}) { // no search waits
			t.Errorf("%s: the source has %v", function, ids)
		}
		target.Set(t)
		mustReplicate(t, from, to, "k", keystore.ReplicateOptions{}) // waits for what hung
		opensIn(t, to, "k", 1, s, "p")
		newRaw(t, target.Path, to).expect(function+": the target", 1, false)
	}
}
