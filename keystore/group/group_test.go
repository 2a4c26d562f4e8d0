package group_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
)

func TestMembersTakeTurns(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	k := r.find("k")
	usage, disabled, err := k.Permissions(patient(t))
	if usage != both || disabled || err != nil {
		t.Errorf("%+v, disabled %v, %v", usage, disabled, err)
	}
	s := r.mustEncrypt("k")
	s.Tag[0] ^= 1
	if _, err := r.decrypt(patient(t), "k", s); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Errorf("a wrong tag: %v", err)
	}
	if _, err := k.Decrypt(patient(t), 9, s, nil); !errors.Is(err, group.ErrVersionNotFound) {
		t.Errorf("a version that never was: %v", err)
	}
	if _, err := r.group.Find(patient(t), "nobody"); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("a key that never was: %v", err)
	}
	if s := r.group.Stats(); s.Usable != 2 || s.Quarantined != 0 || s.ProofsFailed != 0 {
		t.Errorf("%+v", s)
	}
}

// A key may be in one member alone, and unknown to it when it is asked for; another
// that hangs does not delay the search.
func TestKeyOfOneMember(t *testing.T) {
	r := newPair(t).open(0, 1)
	r.put(1, "k", both, 1)
	r.modules[0].Set(t, "hang C_FindObjectsInit")
	eventually(t, "it is found", func() bool { // the last search is fresh for a while
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := r.group.Find(ctx, "k")
		return err == nil
	})
	r.served("k", 1)
}

// Tokens of different make seal differently, and prove themselves to each other.
func TestMembersOfDifferentMake(t *testing.T) {
	r := newRig(t, "luna", "softhsm2")
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.close()
	r.open(1, 0).served("k", 0, 1)
}

func TestFailover(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	s := r.mustEncrypt("k")
	codes := map[string]uint{
		"HOST_MEMORY": 0x2, "SLOT_ID_INVALID": 0x3, "GENERAL_ERROR": 0x5, "FUNCTION_FAILED": 0x6, "DEVICE_ERROR": 0x30, "DEVICE_MEMORY": 0x31, "DEVICE_REMOVED": 0x32,
		"KEY_HANDLE_INVALID": 0x60, "OBJECT_HANDLE_INVALID": 0x82, "SESSION_CLOSED": 0xb0, "SESSION_HANDLE_INVALID": 0xb3,
		"TOKEN_NOT_PRESENT": 0xe0, "USER_NOT_LOGGED_IN": 0x101, "CRYPTOKI_NOT_INITIALIZED": 0x190,
	}
	for name, code := range codes {
		t.Run(name, func(t *testing.T) {
			r.modules[0].Set(t, fmt.Sprintf("fail any %#x", code))
			for range 8 {
				if _, _, err := r.encrypt(patient(t), "k"); err != nil {
					t.Fatalf("encrypt: %v", err)
				}
				if _, err := r.decrypt(patient(t), "k", s); err != nil {
					t.Fatalf("decrypt: %v", err)
				}
			}
			r.modules[0].Set(t)
			r.served("k", 0, 1)
		})
	}
	if r.group.Stats().Failovers == 0 {
		t.Error("nothing ever failed over")
	}
}

// A member that hangs costs the first requests a hedge; the others do not try it.
func TestMemberHangs(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	before := r.group.Stats()
	r.modules[0].Set(t, "hang any")
	for range 300 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if _, _, err := r.encrypt(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	eventually(t, "a member is passed over", func() bool { return r.group.Stats().PassedOver == 1 })
	s := r.group.Stats()
	if n := s.Hedges - before.Hedges; n > 40 {
		t.Errorf("%d of 300 requests were hedged", n)
	}
	r.modules[0].Set(t)
	r.served("k", 0, 1)
}

func TestMemberLeavesAndReturns(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.fell(0)
	eventually(t, "it has left", func() bool { return r.group.Stats().Usable == 1 })
	r.served("k", 1)
	if _, err := r.group.Find(patient(t), "nobody"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a key that may be in the member that is away: %v", err)
	}
	r.heal(0)
	r.served("k", 0, 1)
	r.fell(0)
	r.fell(1)
	eventually(t, "all have left", func() bool { return r.group.Stats().Usable == 0 })
	if _, _, err := r.encrypt(patient(t), "k"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("nobody is there: %v", err)
	}
	for _, m := range r.group.Health() {
		if m.Health.State != keystore.Unavailable {
			t.Errorf("%s is %v", m.Name, m.Health.State)
		}
	}
	for _, line := range []string{"a token has left the group", "a token is in the group"} {
		eventually(t, "the log says: "+line, func() bool { return strings.Contains(r.log.String(), line) })
	}
}

// A version that one member has is served by that; encryption uses it once all
// have it.
func TestRotation(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.putVersion(0, "k", 2, 9)
	r.refresh()
	if n := r.find("k").Newest(); n != 1 {
		t.Errorf("encryption uses version %d, which one member lacks", n)
	}
	k := r.find("k")
	s, err := k.Encrypt(patient(t), 2, []byte("plaintext"), nil)
	if err != nil || k.Token() != r.tokens[0].Name() {
		t.Fatalf("by %s: %v", k.Token(), err)
	}
	r.fell(1)
	eventually(t, "one member has left", func() bool { return r.group.Stats().Usable == 1 })
	if n := r.find("k").Newest(); n != 2 {
		t.Errorf("with one member encryption uses version %d", n)
	}
	r.heal(1)
	r.putVersion(1, "k", 2, 9)
	r.refresh()
	eventually(t, "encryption uses version 2", func() bool { return r.find("k").Newest() == 2 && r.group.Stats().Usable == 2 })
	r.served("k", 0, 1)
	if _, err := r.find("k").Decrypt(patient(t), 2, s, nil); err != nil {
		t.Error(err)
	}
}

// A group of one is its token: no look, no proof, no call that the token would not
// get anyway.
func TestGroupOfOne(t *testing.T) {
	r := newRig(t, "softhsm2")
	r.put(0, "k", both, 7)
	r.open(0)
	r.mustEncrypt("k")
	encryptions, looks := r.modules[0].Count(t, "C_EncryptInit"), r.modules[0].Count(t, "C_DecryptInit")
	const n = 3 // fewer than earn a session copy
	for range n {
		r.mustEncrypt("k")
	}
	if got := r.modules[0].Count(t, "C_EncryptInit") - encryptions; got != n {
		t.Errorf("%d encryptions for %d", got, n)
	}
	if got := r.modules[0].Count(t, "C_DecryptInit"); got != looks {
		t.Errorf("%d decryptions for none", got-looks)
	}
	k := r.find("k")
	if _, err := k.Decrypt(patient(t), math.MaxUint32, keystore.Sealed{IV: make([]byte, 12), Tag: make([]byte, 16)}, nil); !errors.Is(err, group.ErrVersionNotFound) {
		t.Errorf("a version that never was: %v", err)
	}
	r.destroy(0, "k")
	eventually(t, "it is refused", func() bool {
		_, _, err := r.encrypt(patient(t), "k")
		return errors.Is(err, keystore.ErrKeyNotFound)
	})
}
