package group_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
)

func (r *rig) quarantined(t *testing.T, i int, key string) {
	t.Helper()
	eventually(t, "it is in quarantine", func() bool { return r.group.Stats().Quarantined == 1 })
	for _, m := range r.group.Health() {
		if (m.Name == r.tokens[i].Name()) != (m.Health.State == keystore.Unavailable) {
			t.Errorf("%s: %+v", m.Name, m.Health)
		}
		if m.Name == r.tokens[i].Name() && !strings.Contains(m.Health.Reason, key) {
			t.Errorf("the reason names no key: %s", m.Health.Reason)
		}
	}
	eventually(t, "the log says so", func() bool {
		log := r.log.String()
		return strings.Contains(log, "has another key than the rest") && strings.Contains(log, r.tokens[i].Name())
	})
}

// A member with another key is not used, whichever way round it shows, until it has
// the right one.
func TestDifferingKey(t *testing.T) {
	for name, usage := range map[string]keystore.KeyUsage{"both": both, "encrypt only": {Encrypt: true}} {
		t.Run(name, func(t *testing.T) {
			r := newPair(t)
			r.put(0, "k", both, 1)
			r.put(1, "k", usage, 2)
			r.putAll("good", both)
			r.open(0, 1)
			r.quarantined(t, 1, "k")
			r.served("good", 0)
			r.served("k", 0)
			if s := r.group.Stats(); s.ProofsFailed == 0 {
				t.Errorf("%+v", s)
			}
			r.group.Refresh(patient(t))
			r.served("k", 0)
			r.destroy(1, "k")
			r.put(1, "k", both, 1)
			r.refresh()
			r.group.Refresh(patient(t))
			r.served("k", 0, 1)
			r.served("good", 0, 1)
		})
	}
}

// While the true member is down, one that differs is not taken for it after a
// restart.
func TestReferenceSurvivesRestart(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.close()
	r.destroy(1, "k")
	r.put(1, "k", both, 2)
	r.refresh()
	r.fell(0)
	r.openAsIs(1, 0)
	if _, _, err := r.encrypt(patient(t), "k"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("the wrong key was used: %v", err)
	}
	r.heal(0)
	eventually(t, "the true one serves", func() bool { _, _, err := r.encrypt(patient(t), "k"); return err == nil })
	r.served("k", 0)
	r.close()
	// Nothing remembered: the first one is right.
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	r.open(1, 0).served("k", 1)
}

// A key that is replaced in a member while the group is at work never seals what
// the others cannot open.
func TestReplacedKeySealsNothing(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	right, err := r.tokens[0].Find(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	r.destroy(1, "k")
	r.put(1, "k", both, 2)
	check := func() {
		s, _, err := r.encrypt(patient(t), "k")
		if err != nil && !errors.Is(err, keystore.ErrKeyNotFound) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		if _, err := right.Decrypt(patient(t), 1, s, []byte("context")); err != nil {
			t.Fatalf("sealed with another key: %v", err)
		}
	}
	eventually(t, "the other key is found", func() bool { check(); return r.group.Stats().Quarantined == 1 })
	for range 20 {
		check()
	}
}

// Members that lose their sessions prove their keys anew.
func TestProofAfterSessionLoss(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	before := r.tokens[1].Losses()
	opened := r.modules[1].Count(t, "C_DecryptInit")
	r.modules[1].Set(t, "lose-sessions 1", "renumber 1")
	eventually(t, "the loss is noticed", func() bool { r.mustEncrypt("k"); return r.tokens[1].Losses() > before })
	eventually(t, "the known answer was opened", func() bool { return r.modules[1].Count(t, "C_DecryptInit") > opened })
	r.served("k", 0, 1)
}

// Keys that cannot be proven are used as they are; that a ciphertext is invalid is
// believed when nobody opens it.
func TestKeysThatCannotBeProven(t *testing.T) {
	r := newPair(t)
	r.putAll("seals", keystore.KeyUsage{Encrypt: true})
	r.putAll("opens", keystore.KeyUsage{Decrypt: true})
	r.putAll("elsewhere", both) // of the same material as the rest
	r.open(0, 1)
	s := r.mustEncrypt("elsewhere")
	r.mustEncrypt("seals")
	if _, err := r.decrypt(patient(t), "seals", s); !errors.Is(err, keystore.ErrKeyUsage) {
		t.Errorf("decrypt with a key that may not: %v", err)
	}
	for range 8 {
		if _, err := r.decrypt(patient(t), "opens", s); err != nil {
			t.Fatal(err)
		}
	}
	s.Tag[0] ^= 1
	if _, err := r.decrypt(patient(t), "opens", s); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Errorf("a wrong tag: %v", err)
	}
	if r.group.Stats().Quarantined != 0 {
		t.Error("somebody is in quarantine")
	}
}

// Nor is it said that nobody could be asked while a member has yet to be proven.
func TestInvalidForAMemberThatIsNotProven(t *testing.T) {
	r := newPair(t)
	r.putAll("opens", keystore.KeyUsage{Decrypt: true})
	r.putAll("elsewhere", both) // of the same material
	r.open(0, 1)
	s := r.mustEncrypt("elsewhere")
	eventually(t, "both open", func() bool {
		k, err := r.decrypt(patient(t), "opens", s)
		if err != nil {
			t.Fatal(err)
		}
		return k.Token() == r.tokens[1].Name()
	})
	before := r.tokens[1].Losses()
	r.modules[1].Set(t, "lose-sessions 1", "delay C_EncryptInit 300") // by which the proof begins
	eventually(t, "the loss is noticed", func() bool {
		if err := r.tokens[1].Refresh(patient(t)); err != nil {
			t.Fatal(err)
		}
		return r.tokens[1].Losses() > before
	})
	s.Tag[0] ^= 1
	if _, err := r.decrypt(patient(t), "opens", s); !errors.Is(err, keystore.ErrInvalidCiphertext) {
		t.Error(err)
	}
}

func TestDamagedAnswers(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.close()
	data, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := group.OpenAnswers(r.path, nil); err == nil || !strings.Contains(err.Error(), r.path) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("%v", err)
	}
}

// A disk that takes nothing is in the log and the metrics; requests do not notice.
func TestAnswersCannotBeWritten(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	if err := r.answers.Write(); err != nil {
		t.Fatal(err)
	}
	folder := strings.TrimSuffix(r.path, "/store.json")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.putAll("new", both)
	r.refresh()
	r.served("new", 0, 1)
	eventually(t, "a write has failed", func() bool {
		return r.group.Stats().Unwritten > 0 && strings.Contains(r.log.String(), "cannot be written")
	})
	r.served("new", 0, 1)
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
}
