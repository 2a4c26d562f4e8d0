package group_test

import (
	"errors"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

func (r *rig) refused(what error, id string) {
	r.t.Helper()
	if _, _, err := r.encrypt(patient(r.t), id); !errors.Is(err, what) {
		r.t.Errorf("encrypt: %v, not %v", err, what)
	}
}

// What a member has forbidden holds on however often the group starts without it,
// and whatever is written meanwhile.
func TestAbsentMemberForbids(t *testing.T) {
	r := newPair(t)
	r.putAll("disabled", both)
	r.putAll("destroyed", both)
	r.open(0, 1).served("disabled", 0, 1)
	r.served("destroyed", 0, 1)
	r.setEnabled(1, "disabled", false)
	r.destroy(1, "destroyed")
	for id, what := range map[string]error{"disabled": keystore.ErrKeyDisabled, "destroyed": keystore.ErrKeyNotFound} {
		eventually(t, "it is refused", func() bool { _, _, err := r.encrypt(patient(t), id); return errors.Is(err, what) })
	}
	r.close()
	for _, id := range []string{"first", "second"} {
		r.openWithout([]int{1}, 0)
		r.refused(keystore.ErrKeyDisabled, "disabled")
		r.refused(keystore.ErrKeyNotFound, "destroyed")
		if _, disabled, err := r.find("disabled").Permissions(patient(t)); err != nil || !disabled {
			t.Errorf("it is said to be disabled: %v, %v", disabled, err)
		}
		r.put(0, id, both, 7)
		r.refresh()
		r.mustEncrypt(id) // so that there is something to write
		r.close()
	}
	r.open(0, 1)
	r.refused(keystore.ErrKeyDisabled, "disabled")
	r.refused(keystore.ErrKeyNotFound, "destroyed")
}

// A version that no member has that is open may be in one that is not: nothing of it
// is forgotten.
func TestNothingIsForgottenWithoutAMember(t *testing.T) {
	r := newPair(t)
	r.putAll("k", both)
	r.open(0, 1).served("k", 0, 1)
	r.destroy(0, "k")
	eventually(t, "it is refused", func() bool { _, _, err := r.encrypt(patient(t), "k"); return errors.Is(err, keystore.ErrKeyNotFound) })
	r.close()
	for _, open := range [][]int{{0}, {}} { // the other one, or none is there
		absent := []int{1}
		if len(open) == 0 {
			absent = []int{0, 1}
		}
		r.refresh()
		r.openWithout(absent, open...)
		r.group.Refresh(patient(t))
		if _, _, err := r.encrypt(patient(t), "k"); err == nil {
			t.Error("it is served")
		}
		r.close()
	}
	r.open(0, 1)
	r.refused(keystore.ErrKeyNotFound, "k")
}
