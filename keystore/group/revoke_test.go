package group_test

import (
	"errors"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
)

// Whatever another program takes from one member is refused by all, until it is
// given back there.
func TestRevokedInOneMember(t *testing.T) {
	cases := map[string]struct {
		revoke, undo func(r *rig)
		encrypt      error // what callers get; nil: it still works
		decrypt      error
	}{
		"disabled": {
			func(r *rig) { r.setEnabled(1, "k", false) }, func(r *rig) { r.setEnabled(1, "k", true) },
			keystore.ErrKeyDisabled, keystore.ErrKeyDisabled,
		},
		"encrypt withdrawn": {
			func(r *rig) { r.permit(1, "k", keystore.KeyUsage{Decrypt: true}) }, func(r *rig) { r.permit(1, "k", both) },
			keystore.ErrKeyUsage, nil,
		},
		"decrypt withdrawn": {
			func(r *rig) { r.permit(1, "k", keystore.KeyUsage{Encrypt: true}) }, func(r *rig) { r.permit(1, "k", both) },
			nil, keystore.ErrKeyUsage,
		},
		"destroyed": {
			func(r *rig) { r.destroy(1, "k") }, func(r *rig) { r.put(1, "k", both, 7) },
			keystore.ErrKeyNotFound, keystore.ErrKeyNotFound,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newPair(t)
			r.putAll("k", both)
			r.open(0, 1).served("k", 0, 1)
			s := r.mustEncrypt("k")
			answers := func() (enc, dec error) {
				_, _, enc = r.encrypt(patient(t), "k")
				_, dec = r.decrypt(patient(t), "k", s)
				return enc, dec
			}
			refused := func() bool {
				enc, dec := answers()
				return errors.Is(enc, c.encrypt) && errors.Is(dec, c.decrypt)
			}
			stays := func(when string) {
				t.Helper()
				for range 20 {
					if enc, dec := answers(); !errors.Is(enc, c.encrypt) || !errors.Is(dec, c.decrypt) {
						t.Fatalf("%s: encrypt: %v, decrypt: %v", when, enc, dec)
					}
				}
			}
			c.revoke(r)
			eventually(t, "it is refused", refused)
			stays("refused once")
			r.close()
			r.open(0, 1)
			stays("after a restart")
			// Even if the one who says so cannot be asked any more.
			r.fell(1)
			eventually(t, "it has left", func() bool { return r.group.Stats().Usable == 1 })
			stays("without the member")
			r.heal(1)
			c.undo(r)
			r.refresh()
			eventually(t, "it is served again", func() bool { enc, dec := answers(); return enc == nil && dec == nil })
			r.served("k", 0, 1)
		})
	}
}

func (r *rig) setEnabled(i int, id string, enabled bool) {
	r.t.Helper()
	if err := r.others[i].SetEnabled(patient(r.t), id, enabled); err != nil {
		r.t.Fatal(err)
	}
}

// A member that was never seen to have the right key, since it was disabled there
// before, does not give it back by destroying it.
func TestDisabledThenDestroyed(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.setEnabled(1, "k", false)
	r.open(0, 1)
	eventually(t, "it is refused", func() bool { _, _, err := r.encrypt(patient(t), "k"); return errors.Is(err, keystore.ErrKeyDisabled) })
	r.destroy(1, "k")
	gone := func() bool {
		_, _, err := r.encrypt(patient(t), "k")
		if err == nil {
			t.Fatal("it is served again")
		}
		return errors.Is(err, keystore.ErrKeyNotFound)
	}
	eventually(t, "it is known to be destroyed", gone)
	r.refresh()
	gone()
	r.close()
	r.open(0, 1)
	r.refused(keystore.ErrKeyNotFound, "k")
	r.put(1, "k", both, 7)
	r.refresh()
	eventually(t, "it is served again", func() bool { _, _, err := r.encrypt(patient(t), "k"); return err == nil })
	r.served("k", 0, 1)
}

// Of a key that has other versions it is the version that is not found.
func TestVersionDestroyedInOneMember(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	for i := range 2 {
		r.putVersion(i, "k", 2, 9)
	}
	r.open(0, 1).served("k", 0, 1)
	s, err := r.find("k").Encrypt(patient(t), 1, []byte("plaintext"), nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both tokens have proven version 1", func() bool {
		k := r.find("k")
		if _, err := k.Decrypt(patient(t), 1, s, nil); err != nil {
			t.Fatal(err)
		}
		return k.Token() == r.tokens[1].Name()
	})
	if err := r.others[1].Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.others[1].DestroyKey(patient(t), "k", 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is refused", func() bool {
		_, err := r.find("k").Decrypt(patient(t), 1, s, nil)
		return errors.Is(err, group.ErrVersionNotFound)
	})
	r.served("k", 0, 1)
}

// An older version is used also while the member cannot be asked in which the newest
// one was destroyed.
func TestNewestDestroyedInAMemberThatIsAway(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	for i := range 2 {
		r.putVersion(i, "k", 2, 9)
	}
	r.open(0, 1).served("k", 0, 1)
	s := r.mustEncrypt("k")
	if err := r.others[1].Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.others[1].DestroyKey(patient(t), "k", 2); err != nil {
		t.Fatal(err)
	}
	refused := func() bool {
		_, err := r.find("k").Decrypt(patient(t), 2, s, []byte("context"))
		return errors.Is(err, group.ErrVersionNotFound)
	}
	eventually(t, "it is refused", refused)
	r.fell(1)
	eventually(t, "it has left", func() bool { return r.group.Stats().Usable == 1 })
	r.mustEncrypt("k")
	if n := r.find("k").Newest(); n != 1 {
		t.Errorf("encryption uses version %d", n)
	}
	if !refused() {
		t.Error("the version that was destroyed is served")
	}
}

// A member that is taken out of the group forbids nothing any more; if it comes
// back without the key, that is as intended.
func TestRemovedMemberForbidsNothing(t *testing.T) {
	r := newRig(t, "softhsm2", "softhsm2", "softhsm2")
	r.putAll("k", both)
	r.open(0, 1, 2).served("k", 0, 1, 2)
	r.destroy(2, "k")
	eventually(t, "it is refused", func() bool {
		_, _, err := r.encrypt(patient(t), "k")
		return errors.Is(err, keystore.ErrKeyNotFound)
	})
	r.close()
	r.open(0, 1).served("k", 0, 1)
	r.close()
	r.open(0, 1, 2).served("k", 0, 1)
}

// Once a key is gone from all members it is forgotten: another may be made under
// its id.
func TestDestroyedEverywhere(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	for i := range 2 {
		r.destroy(i, "k")
	}
	eventually(t, "it is refused", func() bool {
		_, _, err := r.encrypt(patient(t), "k")
		return errors.Is(err, keystore.ErrKeyNotFound)
	})
	r.refresh()
	r.group.Refresh(patient(t))
	for i := range 2 {
		r.put(i, "k", both, 99)
	}
	r.refresh()
	r.served("k", 0, 1)
	if s := r.group.Stats(); s.ProofsFailed != 0 {
		t.Errorf("%+v", s)
	}
}
