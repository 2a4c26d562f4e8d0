package engine_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (f *fixture) enableRotation(id *string, period *int32) {
	f.t.Helper()
	_, err := f.client().EnableKeyRotation(f.t.Context(), &kms.EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: period})
	f.ok(err)
}

// wantRotation fails unless the rotation of a key is on, with a period and date.
func (f *fixture) wantRotation(region string, id *string, period int32, next time.Time) {
	f.t.Helper()
	out, err := f.in(region).GetKeyRotationStatus(f.t.Context(), &kms.GetKeyRotationStatusInput{KeyId: id})
	f.ok(err)
	if !out.KeyRotationEnabled || *out.KeyId != arnOfKey(region, id) || aws.ToInt32(out.RotationPeriodInDays) != period || out.NextRotationDate == nil || !out.NextRotationDate.Equal(next) || out.OnDemandRotationStartDate != nil {
		f.t.Fatalf("rotation status %+v, want a period of %d days and next %v", out, period, next)
	}
}

func (f *fixture) wantNoRotation(region string, id *string) {
	f.t.Helper()
	out, err := f.in(region).GetKeyRotationStatus(f.t.Context(), &kms.GetKeyRotationStatusInput{KeyId: id})
	f.ok(err)
	if out.KeyRotationEnabled || *out.KeyId != arnOfKey(region, id) || out.RotationPeriodInDays != nil || out.NextRotationDate != nil || out.OnDemandRotationStartDate != nil {
		f.t.Fatalf("rotation status %+v, want it off", out)
	}
}

// arnOfKey is the ARN of a key of the account.
func arnOfKey(region string, id *string) string {
	return "arn:aws:kms:" + region + ":" + account + ":key/" + *id
}

// materialOf is the current key material of a key.
func (f *fixture) materialOf(region string, id *string) string {
	f.t.Helper()
	return aws.ToString(f.describe(region, id).CurrentKeyMaterialId)
}

func (f *fixture) rotations(region string, in *kms.ListKeyRotationsInput) []types.RotationsListEntry {
	f.t.Helper()
	out, err := f.in(region).ListKeyRotations(f.t.Context(), in)
	f.ok(err)
	if out.Truncated || out.NextMarker != nil {
		f.t.Fatalf("the list goes on: %+v", out)
	}
	return out.Rotations
}

func TestAutomaticRotation(t *testing.T) {
	f := newEngine(t)
	start := f.clock.now()
	id := f.key().KeyId
	f.wantNoRotation(region, id)
	first := f.materialOf(region, id)
	old := f.encryptIn(region, id)
	f.enableRotation(id, nil)
	f.wantRotation(region, id, 365, start.Add(365*day))

	f.clock.advance(365*day - time.Millisecond)
	f.sweep()
	if f.materialOf(region, id) != first {
		t.Fatal("rotated too early")
	}
	f.clock.advance(time.Millisecond)
	f.sweep()
	f.sweep() // once is enough
	second := f.materialOf(region, id)
	if second == first || len(second) != 64 {
		t.Fatalf("the material is %q after a rotation, was %q", second, first)
	}
	f.wantRotation(region, id, 365, start.Add(730*day))
	f.reopen()
	f.wantRotation(region, id, 365, start.Add(730*day))
	f.wantGreeting(region, old, &first)
	f.wantGreeting(region, f.encryptIn(region, id), &second)

	got := f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id})
	if len(got) != 1 || got[0].RotationType != types.RotationTypeAutomatic || !got[0].RotationDate.Equal(start.Add(365*day)) || *got[0].KeyMaterialId != second || *got[0].KeyId != *id {
		t.Fatalf("rotations are %+v", got)
	}
}

func TestRotationPeriod(t *testing.T) {
	f := newEngine(t)
	id := f.key().KeyId
	f.enableRotation(id, aws.Int32(90))
	f.wantRotation(region, id, 90, f.clock.now().Add(90*day))
	f.clock.advance(30 * day)
	f.enableRotation(id, aws.Int32(2560)) // the new period begins at once
	f.wantRotation(region, id, 2560, f.clock.now().Add(2560*day))
	_, err := f.client().DisableKeyRotation(t.Context(), &kms.DisableKeyRotationInput{KeyId: id})
	f.ok(err)
	f.wantNoRotation(region, id)
	f.clock.advance(3000 * day)
	first := f.materialOf(region, id)
	f.sweep()
	if f.materialOf(region, id) != first {
		t.Fatal("rotated though rotation is off")
	}
	f.enableRotation(id, nil)
	f.wantRotation(region, id, 365, f.clock.now().Add(365*day))
	for _, period := range []int32{89, 2561, 0} {
		_, err := f.client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: aws.Int32(period)})
		wantCode(t, err, "ValidationException")
	}
	f.wantRotation(region, id, 365, f.clock.now().Add(365*day))
}

// Rotation is suspended while a key is disabled or pending deletion: what fell
// due is made up once it is enabled, and what did not keeps its date.
func TestSuspendedRotation(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	for _, test := range []struct {
		name            string
		suspend, resume func(*testing.T, *string)
	}{
		{"disabled", func(_ *testing.T, id *string) {
			_, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
			f.ok(err)
			f.wantRotation(region, id, 90, f.clock.now().Add(90*day))
		}, func(*testing.T, *string) {}},
		{"pending deletion", func(_ *testing.T, id *string) {
			// Almost to the end of the period, for the waiting period is the shorter.
			f.clock.advance(80 * day)
			f.schedule(region, id, 30)
			f.wantNoRotation(region, id)
		}, func(_ *testing.T, id *string) {
			_, err := c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: id})
			f.ok(err)
		}},
	} {
		f.run(test.name, func(t *testing.T) {
			id := f.key().KeyId
			f.enableRotation(id, aws.Int32(90))
			due := f.clock.now().Add(90 * day)
			first := f.materialOf(region, id)
			test.suspend(t, id)
			f.clock.advance(due.Sub(f.clock.now()) + 5*day)
			f.sweep()
			test.resume(t, id)
			f.sweep()
			if f.materialOf(region, id) != first {
				t.Fatal("rotated while suspended")
			}
			_, err := c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})
			f.ok(err)
			f.sweep()
			if f.materialOf(region, id) == first {
				t.Fatal("the rotation was not made up")
			}
			f.wantRotation(region, id, 90, f.clock.now().Add(90*day))
		})
	}
	f.run("not due", func(t *testing.T) {
		id := f.key().KeyId
		f.enableRotation(id, aws.Int32(90))
		due := f.clock.now().Add(90 * day)
		first := f.materialOf(region, id)
		_, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
		f.ok(err)
		f.clock.advance(30 * day)
		_, err = c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})
		f.ok(err)
		f.sweep()
		if f.materialOf(region, id) != first {
			t.Fatal("rotated though nothing was due")
		}
		f.wantRotation(region, id, 90, due)
	})
}

// Which kinds of key have which part in rotation.
func TestRotationByKind(t *testing.T) {
	f := newEngine(t)
	hmac := func(in *kms.CreateKeyInput) {
		in.KeySpec, in.KeyUsage = types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac
	}
	const ok, unsupported, invalid = "", "UnsupportedOperationException", "KMSInvalidStateException"
	for _, test := range []struct {
		name                            string
		kind                            []func(*kms.CreateKeyInput)
		imported                        bool
		enable, disable, onDemand, list string
	}{
		{"symmetric", nil, false, ok, ok, ok, ok},
		{"asymmetric", []func(*kms.CreateKeyInput){signing(types.KeySpecEccNistP256)}, false, unsupported, ok, unsupported, unsupported},
		{"HMAC", []func(*kms.CreateKeyInput){hmac}, false, unsupported, ok, unsupported, unsupported},
		{"imported", []func(*kms.CreateKeyInput){external}, true, unsupported, unsupported, invalid, ok},
		{"to be imported", []func(*kms.CreateKeyInput){external}, false, unsupported, unsupported, invalid, ok},
	} {
		f.run(test.name, func(t *testing.T) {
			c, ctx, id := f.client(), t.Context(), f.key(test.kind...).KeyId
			if test.imported {
				_, err := f.AddImported(ctx, account, *id, region)
				f.ok(err)
			}
			check := func(err error, code string) {
				t.Helper()
				if code == ok {
					f.ok(err)
				} else {
					wantCode(t, err, code)
				}
			}
			_, err := c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: id})
			check(err, test.enable)
			_, err = c.DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: id})
			check(err, test.disable)
			_, err = c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
			check(err, test.onDemand)
			_, err = c.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: id})
			check(err, test.list)
			f.wantNoRotation(region, id)
		})
	}
}

func TestRotateKeyOnDemand(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	id := f.key().KeyId
	f.enableRotation(id, aws.Int32(100))
	due := f.clock.now().Add(100 * day)
	materials := []string{f.materialOf(region, id)}
	blobs := [][]byte{f.encryptIn(region, id)}
	for range 25 {
		f.clock.advance(time.Hour)
		out, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
		f.ok(err)
		if *out.KeyId != arnOfKey(region, id) {
			t.Fatalf("rotated %s", *out.KeyId)
		}
		materials = append(materials, f.materialOf(region, id))
		blobs = append(blobs, f.encryptIn(region, id))
	}
	f.wantRotation(region, id, 100, due) // the schedule stays
	f.reopen()
	c = f.client()
	_, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	wantCode(t, err, "LimitExceededException")
	for i, b := range blobs {
		f.wantGreeting(region, b, &materials[i])
	}
	f.clock.advance(100 * day)
	f.sweep() // automatic rotation is not counted
	got := f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id})
	if len(got) != 26 {
		t.Fatalf("%d rotations, want 26", len(got))
	}
	for i, r := range got[:25] {
		if r.RotationType != types.RotationTypeOnDemand || *r.KeyMaterialId != materials[i+1] || r.KeyMaterialState != types.KeyMaterialStateNonCurrent {
			t.Fatalf("rotation %d is %+v", i, r)
		}
	}
	if last := got[25]; last.RotationType != types.RotationTypeAutomatic || last.KeyMaterialState != types.KeyMaterialStateCurrent {
		t.Fatalf("the last rotation is %+v", last)
	}
}

func TestListKeyRotations(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	id := f.key().KeyId
	first := f.materialOf(region, id)
	if got := f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id}); len(got) != 0 {
		t.Fatalf("a new key has rotations %+v", got)
	}
	for range 3 {
		_, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
		f.ok(err)
	}
	all := f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial})
	if len(all) != 4 {
		t.Fatalf("%d materials, want 4", len(all))
	}
	if e := all[0]; *e.KeyMaterialId != first || e.RotationDate != nil || e.RotationType != "" || e.KeyMaterialState != types.KeyMaterialStateNonCurrent ||
		e.ImportState != "" || e.ExpirationModel != "" || e.ValidTo != nil || e.KeyMaterialDescription != nil {
		t.Fatalf("the first material is %+v", e)
	}
	if only := f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialRotationsOnly}); len(only) != 3 {
		t.Fatalf("%d rotations, want 3", len(only))
	}

	var paged []string
	in := &kms.ListKeyRotationsInput{KeyId: id, Limit: aws.Int32(3), IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial}
	for range 2 {
		out, err := c.ListKeyRotations(ctx, in)
		f.ok(err)
		for _, e := range out.Rotations {
			paged = append(paged, *e.KeyMaterialId)
		}
		if out.Truncated != (out.NextMarker != nil) || out.Truncated != (len(paged) == 3) {
			t.Fatalf("after %d entries: truncated %t", len(paged), out.Truncated)
		}
		in.Marker = out.NextMarker
	}
	for i, e := range all {
		if paged[i] != *e.KeyMaterialId {
			t.Fatalf("paged %v", paged)
		}
	}

	out, err := c.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: id, Limit: aws.Int32(1)})
	f.ok(err)
	for _, marker := range []*string{aws.String("none of ours"), out.NextMarker} {
		_, err := c.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: f.key().KeyId, Marker: marker})
		wantCode(t, err, "InvalidMarkerException")
	}
}

// Imported material that waits for rotation becomes current on demand.
func TestRotateImportedMaterial(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	id := f.key(external).KeyId
	first, err := f.AddImported(ctx, account, *id, region)
	f.ok(err)
	old := f.encryptIn(region, id)
	_, err = c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	wantCode(t, err, "KMSInvalidStateException")
	second, err := f.AddImported(ctx, account, *id, region)
	f.ok(err)
	if f.materialOf(region, id) != first {
		t.Fatal("the material is current before the rotation")
	}
	all := &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial}
	waiting := f.rotations(region, all)
	if len(waiting) != 2 || waiting[1].KeyMaterialState != types.KeyMaterialStatePendingRotation || waiting[1].RotationDate != nil || waiting[1].RotationType != "" ||
		waiting[1].ImportState != types.ImportStateImported || waiting[1].ExpirationModel != types.ExpirationModelTypeKeyMaterialDoesNotExpire {
		t.Fatalf("materials before the rotation: %+v", waiting)
	}
	if len(f.rotations(region, &kms.ListKeyRotationsInput{KeyId: id})) != 0 {
		t.Fatal("a rotation is listed before there was any")
	}
	f.clock.advance(time.Hour)
	_, err = c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	f.ok(err)
	f.reopen()
	f.wantGreeting(region, old, &first)
	f.wantGreeting(region, f.encryptIn(region, id), &second)
	got := f.rotations(region, all)
	if len(got) != 2 || got[0].KeyMaterialState != types.KeyMaterialStateNonCurrent || got[1].KeyMaterialState != types.KeyMaterialStateCurrent ||
		got[1].RotationType != types.RotationTypeOnDemand || !got[1].RotationDate.Equal(f.clock.now()) {
		t.Fatalf("materials after the rotation: %+v", got)
	}
}

// Related keys rotate at the primary, together.
func TestRotationOfMultiRegionKeys(t *testing.T) {
	f := newEngine(t)
	ctx := t.Context()
	id := f.key(multiRegion).KeyId
	f.replicate(id, replicaRegion)
	first := f.materialOf(replicaRegion, id)
	f.enableRotation(id, aws.Int32(90))
	due := f.clock.now().Add(90 * day)
	f.wantRotation(replicaRegion, id, 90, due)

	replica := f.in(replicaRegion)
	_, err := replica.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: id})
	wantCode(t, err, "UnsupportedOperationException")
	_, err = replica.DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: id})
	wantCode(t, err, "UnsupportedOperationException")
	_, err = replica.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	wantCode(t, err, "UnsupportedOperationException")

	f.clock.advance(90 * day)
	f.sweep()
	second := f.materialOf(region, id)
	if second == first || f.materialOf(replicaRegion, id) != second {
		t.Fatalf("materials are %s and %s after the rotation of %s", second, f.materialOf(replicaRegion, id), first)
	}
	f.wantRotation(replicaRegion, id, 90, f.clock.now().Add(90*day))
	f.wantGreeting(region, f.encryptIn(replicaRegion, id), &second)

	_, err = f.client().RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	f.ok(err)
	third := f.materialOf(region, id)
	f.reopen()
	if f.materialOf(replicaRegion, id) != third || third == second {
		t.Fatal("a rotation on demand did not reach the replica")
	}
	if got := f.rotations(replicaRegion, &kms.ListKeyRotationsInput{KeyId: id}); len(got) != 2 {
		t.Fatalf("rotations of the replica: %+v", got)
	}

	// The primary's state alone says whether they rotate.
	_, err = f.client().DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
	f.ok(err)
	f.clock.advance(90 * day)
	f.sweep()
	if f.materialOf(replicaRegion, id) != third {
		t.Fatal("a replica rotated though its primary is disabled")
	}
	_, err = f.client().EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})
	f.ok(err)
	_, err = f.in(replicaRegion).DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
	f.ok(err)
	f.sweep()
	fourth := f.materialOf(region, id)
	if fourth == third || f.materialOf(replicaRegion, id) != fourth {
		t.Fatal("the rotation was not made up in both Regions")
	}
	_, err = f.client().DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: id})
	f.ok(err)
	f.wantNoRotation(replicaRegion, id)
}

// Imported material of related keys waits until it is imported into all of them.
func TestRotateImportedMaterialOfMultiRegionKeys(t *testing.T) {
	f := newEngine(t)
	ctx := t.Context()
	id := f.key(multiRegion, external).KeyId
	_, err := f.AddImported(ctx, account, *id, region)
	f.ok(err)
	f.replicate(id, replicaRegion)
	f.wantState(replicaRegion, id, types.KeyStatePendingImport)
	_, err = f.AddImported(ctx, account, *id, replicaRegion)
	f.ok(err)
	waiting, err := f.AddImported(ctx, account, *id, region)
	f.ok(err)
	all := &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial}
	if got := f.rotations(region, all); got[1].KeyMaterialState != types.KeyMaterialStatePendingMultiRegionImportAndRotation {
		t.Fatalf("materials are %+v", got)
	}
	_, err = f.client().RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	wantCode(t, err, "KMSInvalidStateException")

	everywhere, err := f.AddImported(ctx, account, *id, region, replicaRegion)
	f.ok(err)
	got := f.rotations(region, all)
	if *got[1].KeyMaterialId != waiting || got[1].KeyMaterialState != types.KeyMaterialStatePendingMultiRegionImportAndRotation || got[2].KeyMaterialState != types.KeyMaterialStatePendingRotation {
		t.Fatalf("materials are %+v", got)
	}
	_, err = f.client().RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})
	f.ok(err)
	if f.materialOf(region, id) != everywhere || f.materialOf(replicaRegion, id) != everywhere {
		t.Fatal("the material that is imported everywhere is not current everywhere")
	}
}
