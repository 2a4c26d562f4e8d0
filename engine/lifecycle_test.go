package engine_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

const (
	day           = 24 * time.Hour
	replicaRegion = "eu-west-1"
	settlingTime  = time.Second // after ReplicateKey or UpdatePrimaryRegion
)

// key makes a key in the usual Region.
func (f *fixture) key(change ...func(*kms.CreateKeyInput)) *types.KeyMetadata {
	f.t.Helper()
	in := new(kms.CreateKeyInput)
	for _, c := range change {
		c(in)
	}
	out, err := f.client().CreateKey(f.t.Context(), in)
	if err != nil {
		f.t.Fatal(err)
	}
	return out.KeyMetadata
}

func multiRegion(in *kms.CreateKeyInput) { in.MultiRegion = aws.Bool(true) }

func external(in *kms.CreateKeyInput) { in.Origin = types.OriginTypeExternal }

func signing(s types.KeySpec) func(*kms.CreateKeyInput) {
	return func(in *kms.CreateKeyInput) { in.KeySpec, in.KeyUsage = s, types.KeyUsageTypeSignVerify }
}

// replicate replicates a key of the usual Region into others, and waits until the
// replicas can be used.
func (f *fixture) replicate(id *string, regions ...string) {
	f.t.Helper()
	for _, r := range regions {
		_, err := f.client().ReplicateKey(f.t.Context(), &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String(r)})
		f.ok(err)
	}
	f.clock.advance(settlingTime)
}

// describe returns the metadata of a key, nil if there is none.
func (f *fixture) describe(region string, id *string) *types.KeyMetadata {
	f.t.Helper()
	out, err := f.in(region).DescribeKey(f.t.Context(), &kms.DescribeKeyInput{KeyId: id})
	if err != nil {
		wantCode(f.t, err, "NotFoundException")
		return nil
	}
	return out.KeyMetadata
}

// wantState fails unless a key is in a state.
func (f *fixture) wantState(region string, id *string, want types.KeyState) {
	f.t.Helper()
	m := f.describe(region, id)
	if m == nil {
		f.t.Fatalf("the key in %s is no more, want it %s", region, want)
	}
	if m.KeyState != want || m.Enabled != (want == types.KeyStateEnabled) {
		f.t.Fatalf("the key in %s is %s (enabled: %t), want %s", region, m.KeyState, m.Enabled, want)
	}
}

// run runs a subtest, which what the fixture finds wrong meanwhile fails.
func (f *fixture) run(name string, test func(*testing.T)) {
	f.t.(*testing.T).Run(name, func(t *testing.T) {
		outer := f.t
		f.t = t
		defer func() { f.t = outer }()
		test(t)
	})
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// schedule schedules the deletion of a key.
func (f *fixture) schedule(region string, id *string, days int32) *kms.ScheduleKeyDeletionOutput {
	f.t.Helper()
	out, err := f.in(region).ScheduleKeyDeletion(f.t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(days)})
	f.ok(err)
	return out
}

var greeting = []byte("hello")

// encryptIn encrypts the greeting.
func (f *fixture) encryptIn(region string, id *string) []byte {
	f.t.Helper()
	out, err := f.in(region).Encrypt(f.t.Context(), &kms.EncryptInput{KeyId: id, Plaintext: greeting})
	f.ok(err)
	return out.CiphertextBlob
}

// wantGreeting fails unless a blob decrypts to the greeting, with a material if
// one is named.
func (f *fixture) wantGreeting(region string, blob []byte, material *string) {
	f.t.Helper()
	out, err := f.in(region).Decrypt(f.t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	f.ok(err)
	if !bytes.Equal(out.Plaintext, greeting) {
		f.t.Fatal("the ciphertext decrypts to another text")
	}
	if material != nil && *material != aws.ToString(out.KeyMaterialId) {
		f.t.Fatalf("decrypted with material %s, want %s", aws.ToString(out.KeyMaterialId), *material)
	}
}

func TestEnableAndDisable(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	id := f.key().KeyId
	blob := f.encryptIn(region, id)
	for range 2 { // twice is as good as once
		_, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
		f.ok(err)
		f.wantState(region, id, types.KeyStateDisabled)
	}
	f.reopen()
	c = f.client()
	f.wantState(region, id, types.KeyStateDisabled)
	_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, err, "DisabledException")
	for range 2 {
		_, err = c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})
		f.ok(err)
		f.wantState(region, id, types.KeyStateEnabled)
	}
	f.wantGreeting(region, blob, nil)

	_, err = c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: aws.String("alias/none")})
	wantCode(t, err, "InvalidArnException")
	_, err = f.in(replicaRegion).DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
	wantCode(t, err, "NotFoundException")
}

func TestUpdateKeyDescription(t *testing.T) {
	f := newEngine(t)
	id := f.key(func(in *kms.CreateKeyInput) { in.Description = aws.String("before") }).KeyId
	for _, description := range []string{"after", ""} {
		_, err := f.client().UpdateKeyDescription(t.Context(), &kms.UpdateKeyDescriptionInput{KeyId: id, Description: aws.String(description)})
		f.ok(err)
		f.reopen()
		if got := f.describe(region, id).Description; got == nil || *got != description {
			t.Fatalf("the description is %q, want %q", aws.ToString(got), description)
		}
	}
}

func TestGetKeyLastUsage(t *testing.T) {
	f := newEngine(t)
	began := f.clock.now()
	f.clock.advance(time.Hour)
	k := f.key(multiRegion)
	f.replicate(k.KeyId, replicaRegion)
	last := func(region string) *kms.GetKeyLastUsageOutput {
		t.Helper()
		out, err := f.in(region).GetKeyLastUsage(t.Context(), &kms.GetKeyLastUsageInput{KeyId: k.KeyId})
		f.ok(err)
		return out
	}

	unused := last(region)
	if u := unused.KeyLastUsage; u == nil || *u != (types.KeyLastUsageData{}) {
		t.Fatalf("a key that was never used tells %+v, want an empty object", u)
	}
	if *unused.KeyId != *k.KeyId || !unused.KeyCreationDate.Equal(*k.CreationDate) || unused.TrackingStartDate.Before(began) || unused.TrackingStartDate.After(*k.CreationDate) {
		t.Fatalf("last usage %+v of a key created at %v", unused, k.CreationDate)
	}

	f.clock.advance(time.Hour)
	_, err := f.client().Encrypt(engine.WithRequestID(t.Context(), "request-1"), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: greeting})
	f.ok(err)
	used := last(region).KeyLastUsage
	if used.Operation != types.KeyLastUsageTrackingOperationEncrypt || !used.Timestamp.Equal(f.clock.now()) || aws.ToString(used.KmsRequestId) != "request-1" || aws.ToString(used.CloudTrailEventId) == "" {
		t.Fatalf("last usage is %+v", used)
	}
	if other := last(replicaRegion).KeyLastUsage; *other != (types.KeyLastUsageData{}) {
		t.Fatalf("the replica was used too: %+v", other)
	}

	// A failure is no use.
	f.clock.advance(time.Hour)
	_, err = f.client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: []byte("not a ciphertext"), KeyId: k.KeyId})
	wantCode(t, err, "InvalidCiphertextException")
	f.sweep()
	f.reopen()
	if after := last(region).KeyLastUsage; !after.Timestamp.Equal(*used.Timestamp) || *after.CloudTrailEventId != *used.CloudTrailEventId || *after.KmsRequestId != "request-1" {
		t.Fatalf("last usage is %+v after a restart, was %+v", after, used)
	}

	_, err = f.client().GetKeyLastUsage(t.Context(), &kms.GetKeyLastUsageInput{KeyId: aws.String("alias/any")})
	wantCode(t, err, "InvalidArnException")
}
