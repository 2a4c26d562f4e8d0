package engine_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A clock that jumps over the end of a waiting period destroys no key: set right,
// the key is pending deletion as before, and can be saved. One that goes there
// steadily does.
func TestClockJumpDestroysNothing(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	made, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := made.KeyMetadata.KeyId
	sealed, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: id, Plaintext: []byte("precious")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
	var elapsed time.Duration
	var out strings.Builder
	f.Distrust(func() time.Duration { return elapsed }, slog.New(slog.NewTextHandler(&out, nil)))
	pass := func(d time.Duration) { f.clock.advance(d); elapsed += d }
	sweep := func() {
		t.Helper()
		if err := f.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pass(2 * time.Hour)
	sweep()
	if f.HoldsBack() {
		t.Error("the clock is not believed after two hours")
	}
	f.clock.advance(30 * 24 * time.Hour)
	sweep()
	if !f.HoldsBack() || !strings.Contains(out.String(), "keys are due") {
		t.Errorf("the jump is not noticed:\n%s", &out)
	}
	f.clock.advance(-30 * 24 * time.Hour)
	sweep()
	got, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: id})
	if err != nil || got.KeyMetadata.KeyState != types.KeyStatePendingDeletion {
		t.Fatalf("%v, %+v; want the key pending deletion", err, got)
	}
	if _, err := c.CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	if plain, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); err != nil || string(plain.Plaintext) != "precious" {
		t.Fatalf("%v, %+v", err, plain)
	}
	if _, err := c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
	pass(8 * 24 * time.Hour)
	sweep()
	f.clock.advance(-8 * 24 * time.Hour) // nothing brings it back now
	if _, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: id}); err == nil {
		t.Error("the key is still there after its waiting period")
	}
}
