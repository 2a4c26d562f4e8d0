package group_test

import (
	"os"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// remembered returns the file of the known answers as it would be written now.
func (r *rig) remembered() string {
	r.t.Helper()
	if err := r.answers.Write(); err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// A member that has lost sight of its keys revokes nothing: requests are served by the
// other, nothing is written of it, and it is in the group again when it sees them.
func TestMemberLosesSightOfItsKeys(t *testing.T) {
	for name, lose := range map[string]func(r *rig, i int) (giveBack func()){
		"storage away": func(r *rig, i int) func() {
			folder, err := softhsm.Folder(r.tokens[i].Info().Serial)
			if err == nil {
				err = os.Rename(folder, folder+".away")
			}
			if err != nil {
				r.t.Fatal(err)
			}
			return func() {
				if err := os.Rename(folder+".away", folder); err != nil {
					r.t.Fatal(err)
				}
			}
		},
		"searches find nothing": func(r *rig, i int) func() {
			r.modules[i].Set(r.t, "find-nothing", "renumber 1", "lose-sessions 1")
			return func() { r.modules[i].Set(r.t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPair(t)
			ids := []string{"k", "another"}
			for _, id := range ids {
				r.putAll(id, both)
			}
			r.open(0, 1)
			for _, id := range ids {
				r.served(id, 0, 1)
			}
			s, before := r.mustEncrypt("k"), r.remembered()
			check := func() {
				t.Helper()
				for _, id := range ids {
					r.mustEncrypt(id)
				}
				if _, err := r.decrypt(patient(t), "k", s); err != nil {
					t.Fatal(err)
				}
			}
			for _, i := range []int{1, 0} {
				giveBack := lose(r, i)
				eventually(t, "it is out of service", func() bool { check(); return !r.tokens[i].Available() })
				for range 50 {
					check()
				}
				if now := r.remembered(); now != before {
					t.Errorf("what is remembered has changed: %s", now)
				}
				if why := r.group.Lacks(); why != "" {
					t.Errorf("the group is said to lack its keys: %s", why)
				}
				giveBack()
				eventually(t, "it is back", r.tokens[i].Available)
				r.served("k", 0, 1)
			}
			r.destroy(0, "k")
			eventually(t, "a kill is one as ever", func() bool { _, _, err := r.encrypt(patient(t), "k"); return err != nil })
			r.refused(keystore.ErrKeyNotFound, "k")
		})
	}
}
