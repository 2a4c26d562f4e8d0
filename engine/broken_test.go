package engine_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// An engine tells that its store refuses changes, and not that a change was
// refused for want of room, which passes.
func TestBroken(t *testing.T) {
	r := newOutcomeRig(t)
	for _, test := range []struct {
		how  fate
		want bool
	}{{full, false}, {unknownLost, true}} {
		r.store.arm(0, test.how)
		if _, err := r.client().CreateKey(t.Context(), &kms.CreateKeyInput{}); err == nil {
			t.Errorf("%s: a key is made", test.how)
		}
		r.store.disarm()
		if r.Broken() != test.want {
			t.Errorf("%s: broken is %v", test.how, r.Broken())
		}
	}
	r.restart()
	if r.Broken() {
		t.Error("broken after a restart")
	}
	if _, err := r.client().CreateKey(t.Context(), &kms.CreateKeyInput{}); err != nil {
		t.Error(err)
	}
}
