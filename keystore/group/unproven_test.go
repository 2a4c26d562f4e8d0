package group_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

// A key that may only encrypt is not taken on trust while the member is away that
// could tell whether it is the right one.
func TestKeyThatMayOnlyEncryptIsNotTrusted(t *testing.T) {
	r := newPair(t)
	seals := keystore.KeyUsage{Encrypt: true}
	r.put(0, "k", both, 7)
	r.put(1, "k", seals, 7)
	r.putAll("seals", seals)
	r.open(0, 1)
	for _, id := range []string{"k", "seals"} {
		seen := map[string]bool{}
		eventually(t, "both seal", func() bool {
			_, k, err := r.encrypt(patient(t), id)
			if err != nil {
				t.Fatal(err)
			}
			seen[k.Token()] = true
			return len(seen) == 2
		})
	}
	eventually(t, "the first is known to open nothing with the other", func() bool {
		r.mustEncrypt("seals")
		return strings.Contains(r.log.String(), `"token":"token-a","key":"seals"`)
	})
	r.close()
	r.destroy(1, "k")
	r.put(1, "k", seals, 9)
	r.refresh()
	r.fell(0)
	r.openAsIs(0, 1)
	for range 8 {
		r.refused(keystore.ErrUnavailable, "k")
	}
	r.mustEncrypt("seals") // nobody could ever tell
	r.heal(0)
	eventually(t, "the other key is found", func() bool { _, _, _ = r.encrypt(patient(t), "k"); return r.group.Stats().Quarantined == 1 })
	eventually(t, "the right one seals", func() bool {
		_, k, err := r.encrypt(patient(t), "k")
		return err == nil && k.Token() == r.tokens[0].Name()
	})
}

// That a ciphertext is invalid is not believed of a key that cannot be proven while
// a member was not asked.
func TestInvalidOnlyIfAllSaySo(t *testing.T) {
	r := newPair(t)
	r.putAll("elsewhere", both)
	r.put(0, "opens", keystore.KeyUsage{Decrypt: true}, 7)
	r.put(1, "opens", keystore.KeyUsage{Decrypt: true}, 9)
	r.open(0, 1)
	s := r.mustEncrypt("elsewhere")
	eventually(t, "one opens it", func() bool {
		_, err := r.decrypt(patient(t), "opens", s)
		if errors.Is(err, keystore.ErrInvalidCiphertext) {
			t.Fatal(err)
		}
		return err == nil
	})
	r.modules[0].Set(t, "fail C_DecryptInit,C_Decrypt 0x5")
	for range 8 {
		if _, err := r.decrypt(patient(t), "opens", s); err == nil || errors.Is(err, keystore.ErrInvalidCiphertext) {
			t.Errorf("one fails: %v", err)
		}
	}
	r.fell(0)
	if _, err := r.decrypt(patient(t), "opens", s); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("one is away: %v", err)
	}
}

// A member that lost a key which it never proved does not speak for one that has it
// and is away.
func TestKeyIsInTheMemberThatIsAway(t *testing.T) {
	r := newPair(t)
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprint("k", i))
		r.putAll(ids[i], both)
	}
	r.refresh()
	for _, id := range ids {
		r.destroy(1, id)
	}
	r.fell(0)
	r.openAsIs(0, 1)
	for _, id := range ids {
		r.refused(keystore.ErrUnavailable, id)
	}
}
