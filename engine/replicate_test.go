package engine_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func TestReplicateKey(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := f.key(multiRegion, func(in *kms.CreateKeyInput) {
		in.Description = aws.String("primary")
		in.Tags = []types.Tag{{TagKey: aws.String("of"), TagValue: aws.String("the primary")}}
	})
	f.enableRotation(k.KeyId, aws.Int32(180))
	next := f.clock.now().Add(180 * day)
	old := f.encryptIn(region, k.KeyId)
	_, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	f.ok(err)
	blob := f.encryptIn(region, k.KeyId)

	tags := []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}}
	out, err := c.ReplicateKey(ctx, &kms.ReplicateKeyInput{
		KeyId: k.KeyId, ReplicaRegion: aws.String(replicaRegion), Description: aws.String("replica"), Tags: tags,
	})
	f.ok(err)
	m := out.ReplicaKeyMetadata
	if *m.KeyId != *k.KeyId || *m.Arn != "arn:aws:kms:"+replicaRegion+":"+account+":key/"+*k.KeyId || *m.Description != "replica" || m.KeyState != types.KeyStateCreating || m.Enabled {
		t.Fatalf("the replica is %+v", m)
	}
	if m.KeySpec != k.KeySpec || m.KeyUsage != k.KeyUsage || m.Origin != k.Origin || m.CurrentKeyMaterialId != nil {
		t.Fatalf("the replica is %+v", m)
	}
	if !reflect.DeepEqual(out.ReplicaTags, tags) || aws.ToString(out.ReplicaPolicy) == "" {
		t.Fatalf("tags %v and policy %q of the replica", out.ReplicaTags, aws.ToString(out.ReplicaPolicy))
	}
	want := &types.MultiRegionConfiguration{
		MultiRegionKeyType: types.MultiRegionKeyTypeReplica,
		PrimaryKey:         &types.MultiRegionKey{Arn: k.Arn, Region: aws.String(region)},
		ReplicaKeys:        []types.MultiRegionKey{{Arn: m.Arn, Region: aws.String(replicaRegion)}},
	}
	if !reflect.DeepEqual(m.MultiRegionConfiguration, want) {
		t.Fatalf("the replica is related as %+v", m.MultiRegionConfiguration)
	}
	want.MultiRegionKeyType = types.MultiRegionKeyTypePrimary
	primary := f.describe(region, k.KeyId)
	if !reflect.DeepEqual(primary.MultiRegionConfiguration, want) || *primary.Description != "primary" || primary.KeyState != types.KeyStateEnabled {
		t.Fatalf("the primary is %+v", primary)
	}

	// It cannot be used at once, but shortly after.
	_, err = f.in(replicaRegion).GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: types.DataKeySpecAes256})
	wantCode(t, err, "KMSInvalidStateException")
	f.reopen()
	f.wantState(replicaRegion, k.KeyId, types.KeyStateCreating)
	f.clock.advance(settlingTime)
	f.wantState(replicaRegion, k.KeyId, types.KeyStateEnabled)
	for _, b := range [][]byte{old, blob} {
		f.wantGreeting(replicaRegion, b, nil)
	}
	f.wantGreeting(region, f.encryptIn(replicaRegion, k.KeyId), aws.String(f.materialOf(region, k.KeyId)))
	f.wantRotation(replicaRegion, k.KeyId, 180, next)

	// What is not shared stays each key's own.
	_, err = f.in(replicaRegion).DisableKey(ctx, &kms.DisableKeyInput{KeyId: k.KeyId})
	f.ok(err)
	f.wantState(region, k.KeyId, types.KeyStateEnabled)
}

func TestReplicateKeyDefaults(t *testing.T) {
	f := newEngine(t)
	k := f.key(multiRegion, func(in *kms.CreateKeyInput) { in.Description = aws.String("primary") })
	out, err := f.client().ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: k.KeyId, ReplicaRegion: aws.String(replicaRegion)})
	f.ok(err)
	if d := out.ReplicaKeyMetadata.Description; d == nil || *d != "" {
		t.Fatal("a replica takes over the description of its primary")
	}
	if out.ReplicaTags != nil {
		t.Fatalf("tags %v, want none", out.ReplicaTags)
	}
}

func TestReplicateKeyRefused(t *testing.T) {
	f := newEngine(t)
	single, multi := f.key().KeyId, f.key(multiRegion).KeyId
	f.replicate(multi, replicaRegion)
	for _, test := range []struct {
		name, from string
		id         *string
		to, code   string
	}{
		{"a single-Region key", region, single, replicaRegion, "UnsupportedOperationException"},
		{"a replica", replicaRegion, multi, "us-east-1", "UnsupportedOperationException"},
		{"where a replica is", region, multi, replicaRegion, "AlreadyExistsException"},
		{"where the primary is", region, multi, region, "AlreadyExistsException"},
		{"another partition", region, multi, "cn-north-1", "UnsupportedOperationException"},
		{"no Region", region, multi, "elsewhere", "ValidationException"},
		{"an alias", region, aws.String("alias/a"), replicaRegion, "InvalidArnException"},
	} {
		f.run(test.name, func(t *testing.T) {
			_, err := f.in(test.from).ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: test.id, ReplicaRegion: aws.String(test.to)})
			wantCode(t, err, test.code)
		})
	}
	f.schedule(replicaRegion, multi, 7)
	_, err := f.client().ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: multi, ReplicaRegion: aws.String(replicaRegion)})
	wantCode(t, err, "AlreadyExistsException")
}

// A replica of a key with imported material waits for its own import.
func TestReplicateImportedKey(t *testing.T) {
	f := newEngine(t)
	id := f.key(multiRegion, external).KeyId
	_, err := f.client().ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String(replicaRegion)})
	wantCode(t, err, "KMSInvalidStateException")
	_, err = f.AddImported(t.Context(), account, *id, region)
	f.ok(err)
	f.replicate(id, replicaRegion)
	f.wantState(replicaRegion, id, types.KeyStatePendingImport)
	if m := f.describe(replicaRegion, id); m.CurrentKeyMaterialId != nil || m.ExpirationModel != "" {
		t.Fatalf("a replica without material is %+v", m)
	}
}

func TestUpdatePrimaryRegion(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	const third = "us-east-1"
	k := f.key(multiRegion)
	f.replicate(k.KeyId, replicaRegion, third)
	blob := f.encryptIn(region, k.KeyId)
	for _, test := range []struct{ to, code string }{
		{region, "ValidationException"}, {"us-west-2", "NotFoundException"},
	} {
		_, err := c.UpdatePrimaryRegion(ctx, &kms.UpdatePrimaryRegionInput{KeyId: k.KeyId, PrimaryRegion: aws.String(test.to)})
		wantCode(t, err, test.code)
	}
	_, err := f.in(third).UpdatePrimaryRegion(ctx, &kms.UpdatePrimaryRegionInput{KeyId: k.KeyId, PrimaryRegion: aws.String(replicaRegion)})
	wantCode(t, err, "UnsupportedOperationException")
	_, err = c.UpdatePrimaryRegion(ctx, &kms.UpdatePrimaryRegionInput{KeyId: f.key().KeyId, PrimaryRegion: aws.String(replicaRegion)})
	wantCode(t, err, "UnsupportedOperationException")

	_, err = c.UpdatePrimaryRegion(ctx, &kms.UpdatePrimaryRegionInput{KeyId: k.KeyId, PrimaryRegion: aws.String(replicaRegion)})
	f.ok(err)
	f.wantState(region, k.KeyId, types.KeyStateUpdating)
	f.wantState(replicaRegion, k.KeyId, types.KeyStateUpdating)
	f.wantState(third, k.KeyId, types.KeyStateEnabled)
	f.wantGreeting(replicaRegion, blob, nil) // use goes on meanwhile
	f.reopen()
	f.clock.advance(settlingTime)
	for _, r := range []string{region, replicaRegion, third} {
		f.wantState(r, k.KeyId, types.KeyStateEnabled)
		m := f.describe(r, k.KeyId).MultiRegionConfiguration
		var replicas []string
		for _, rk := range m.ReplicaKeys {
			replicas = append(replicas, *rk.Region)
		}
		if *m.PrimaryKey.Region != replicaRegion || !slices.Equal(replicas, []string{region, third}) || (m.MultiRegionKeyType == types.MultiRegionKeyTypePrimary) != (r == replicaRegion) {
			t.Fatalf("seen from %s the keys are related as %+v", r, m)
		}
	}

	// The roles are real: the new primary controls rotation and deletes last.
	_, err = f.in(replicaRegion).RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	f.ok(err)
	_, err = f.client().RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: k.KeyId})
	wantCode(t, err, "UnsupportedOperationException")
	if out := f.schedule(region, k.KeyId, 7); out.KeyState != types.KeyStatePendingDeletion {
		t.Fatalf("the former primary is %s", out.KeyState)
	}
	if out := f.schedule(replicaRegion, k.KeyId, 7); out.KeyState != types.KeyStatePendingReplicaDeletion {
		t.Fatalf("the new primary is %s", out.KeyState)
	}
}

// Both keys must be enabled for the primary Region to change.
func TestUpdatePrimaryRegionNeedsAnEnabledReplica(t *testing.T) {
	f := newEngine(t)
	id := f.key(multiRegion).KeyId
	f.replicate(id, replicaRegion)
	in := &kms.UpdatePrimaryRegionInput{KeyId: id, PrimaryRegion: aws.String(replicaRegion)}
	_, err := f.in(replicaRegion).DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: id})
	f.ok(err)
	_, err = f.client().UpdatePrimaryRegion(t.Context(), in)
	wantCode(t, err, "DisabledException")
	f.schedule(replicaRegion, id, 7)
	_, err = f.client().UpdatePrimaryRegion(t.Context(), in)
	wantCode(t, err, "KMSInvalidStateException")
	f.wantState(region, id, types.KeyStateEnabled)
}
