package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

func TestScheduleKeyDeletionWindow(t *testing.T) {
	f := newEngine(t)
	for _, test := range []struct {
		asked *int32
		days  int32 // 0: refused
	}{
		{nil, 30}, {aws.Int32(7), 7}, {aws.Int32(30), 30}, {aws.Int32(6), 0}, {aws.Int32(31), 0}, {aws.Int32(0), 0}, {aws.Int32(-7), 0},
	} {
		k := f.key()
		out, err := f.client().ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: k.KeyId, PendingWindowInDays: test.asked})
		if test.days == 0 {
			wantCode(t, err, "ValidationException")
			f.wantState(region, k.KeyId, types.KeyStateEnabled)
			continue
		}
		f.ok(err)
		date := f.clock.now().Add(time.Duration(test.days) * day)
		if *out.KeyId != *k.Arn || out.KeyState != types.KeyStatePendingDeletion || *out.PendingWindowInDays != test.days || !out.DeletionDate.Equal(date) {
			t.Fatalf("scheduled %+v, want %d days until %v", out, test.days, date)
		}
		m := f.describe(region, k.KeyId)
		if m.KeyState != types.KeyStatePendingDeletion || m.DeletionDate == nil || !m.DeletionDate.Equal(date) || m.PendingDeletionWindowInDays != nil {
			t.Fatalf("described as %+v", m)
		}
	}
}

func TestCancelKeyDeletion(t *testing.T) {
	f := newEngine(t)
	k := f.key()
	blob := f.encryptIn(region, k.KeyId)
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7*day - time.Millisecond)
	f.sweep()
	f.reopen()
	out, err := f.client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: k.KeyId})
	f.ok(err)
	if *out.KeyId != *k.Arn {
		t.Fatalf("cancelled for %s", *out.KeyId)
	}
	f.wantState(region, k.KeyId, types.KeyStateDisabled)
	if m := f.describe(region, k.KeyId); m.DeletionDate != nil {
		t.Fatalf("a deletion date is left: %v", m.DeletionDate)
	}
	f.clock.advance(30 * day)
	f.sweep()
	_, err = f.client().EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: k.KeyId})
	f.ok(err)
	f.wantGreeting(region, blob, nil)

	// One without material waits for its import again, and is enabled by it.
	e := f.key(external)
	f.schedule(region, e.KeyId, 7)
	_, err = f.client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: e.KeyId})
	f.ok(err)
	f.wantState(region, e.KeyId, types.KeyStatePendingImport)
	_, err = f.AddImported(t.Context(), account, *e.KeyId, region)
	f.ok(err)
	f.wantState(region, e.KeyId, types.KeyStateEnabled)
}

// A key is gone the moment its time has come, even before the worker comes by,
// and for good afterwards, with all that was its own.
func TestDeletion(t *testing.T) {
	f := newEngine(t)
	k, kept := f.key(external), f.key()
	_, err := f.AddImported(t.Context(), account, *k.KeyId, region)
	f.ok(err)
	blob := f.encryptIn(region, k.KeyId)
	alias := aws.String("alias/name")
	_, err = f.client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: alias, TargetKeyId: k.KeyId})
	f.ok(err)
	_, err = f.client().CreateGrant(t.Context(), newGrant(k.KeyId))
	f.ok(err)
	_, err = f.client().GetParametersForImport(t.Context(), parametersInput(k.KeyId))
	f.ok(err)
	f.sweep() // stores the last use
	if aliases, grants, imports := f.Records(account, region, *k.KeyId); aliases != 1 || grants != 1 || imports != 1 {
		t.Fatalf("%d aliases, %d grants and %d import tokens, want one of each", aliases, grants, imports)
	}
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7 * day)
	gone := func() {
		t.Helper()
		if m := f.describe(region, k.KeyId); m != nil {
			t.Fatalf("a deleted key is %s", m.KeyState)
		}
		_, err := f.client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: k.KeyId})
		wantCode(t, err, "NotFoundException")
		_, err = f.client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
		if err == nil {
			t.Fatal("a deleted key decrypts")
		}
		list, err := f.client().ListKeys(t.Context(), &kms.ListKeysInput{})
		f.ok(err)
		if len(list.Keys) != 1 || *list.Keys[0].KeyId != *kept.KeyId {
			t.Fatalf("keys are listed: %v", list.Keys)
		}
	}
	gone()
	for range 2 {
		f.sweep()
		gone()
		if aliases, grants, imports := f.Records(account, region, *k.KeyId); aliases+grants+imports > 0 {
			t.Fatalf("%d aliases, %d grants and %d import tokens of a deleted key are left", aliases, grants, imports)
		}
		f.reopen()
	}
	if aliases, grants, imports := f.Records(account, region, *k.KeyId); aliases+grants+imports > 0 {
		t.Fatal("a restart brought back what belonged to a deleted key")
	}
	f.wantState(region, kept.KeyId, types.KeyStateEnabled)
	_, err = f.client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: alias, TargetKeyId: kept.KeyId}) // it is free again
	f.ok(err)
}

// residents returns the ids of the key materials that are objects of the token.
func (f *fixture) residents() []string {
	f.t.Helper()
	ids, err := f.config.Vault.Residents(f.t.Context())
	f.ok(err)
	return ids
}

// Material that is an object of the token is destroyed there with its key.
func TestDeletionDestroysResidentMaterial(t *testing.T) {
	f := newEngine(t)
	before := f.residents()
	k := f.key(signing(types.KeySpecEccNistEdwards25519))
	if len(f.residents()) != len(before)+1 {
		t.Fatal("the material of an Ed25519 key is not in the token")
	}
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7 * day)
	if len(f.residents()) != len(before)+1 {
		t.Fatal("the material is destroyed before the worker came by")
	}
	f.sweep()
	if got := f.residents(); !slices.Equal(got, before) {
		t.Fatalf("the token still has %v", got)
	}
}

// What related keys share is destroyed with the last of them.
func TestDeletionOfRelatedKeysSharesResidentMaterial(t *testing.T) {
	f := newEngine(t)
	before := len(f.residents())
	k := f.key(signing(types.KeySpecEccNistEdwards25519), multiRegion)
	f.replicate(k.KeyId, replicaRegion)
	if n := len(f.residents()); n != before+1 {
		t.Fatalf("%d objects in the token, want one more than %d", n, before)
	}
	f.schedule(replicaRegion, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.sweep()
	if n := len(f.residents()); n != before+1 {
		t.Fatal("the material of the primary key is destroyed with its replica")
	}
	f.wantState(region, k.KeyId, types.KeyStateEnabled)
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.sweep()
	if n := len(f.residents()); n != before {
		t.Fatal("the material is left in the token")
	}
}

// A process that ends between deleting a key and destroying its material leaves
// the latter to the next.
func TestReconcileDestroysLeftovers(t *testing.T) {
	f := newEngine(t)
	before := len(f.residents())
	k, kept := f.key(signing(types.KeySpecEccNistEdwards25519)), f.key(signing(types.KeySpecEccNistEdwards25519))
	f.ok(f.IntendToDestroy(t.Context(), account, region, *k.KeyId))
	if n := len(f.residents()); n != before+2 {
		t.Fatalf("%d objects in the token, want 2 more than %d", n, before)
	}
	for range 2 { // the second start finds nothing to do
		f.reopen()
		if n := len(f.residents()); n != before+1 {
			t.Fatalf("%d objects in the token after a restart, want 1 more than %d", n, before)
		}
	}
	if f.describe(region, kept.KeyId) == nil {
		t.Fatal("a key that was not deleted is gone")
	}
}

// What the token does not destroy when a key is deleted is destroyed by the next
// start.
func TestDeletionIsFinishedLater(t *testing.T) {
	f := newEngine(t)
	before := len(f.residents())
	k := f.key(signing(types.KeySpecEccNistEdwards25519))
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.ok(f.config.Vault.Close())
	if err := f.Sweep(t.Context()); err == nil {
		t.Fatal("the token could not be reached, and the worker does not mind")
	}
	if f.describe(region, k.KeyId) != nil {
		t.Fatal("the key is still there")
	}
	f.openVault()
	if n := len(f.residents()); n != before+1 {
		t.Fatalf("%d objects in the token, want one more than %d", n, before)
	}
	f.reopen()
	if n := len(f.residents()); n != before {
		t.Fatalf("%d objects in the token after a restart, want %d", n, before)
	}
}

// openVault opens the vault in the place of one that was closed. The engine uses
// it once it is opened again.
func (f *fixture) openVault() {
	f.t.Helper()
	v, err := f.config.Token.OpenVault(f.t.Context(), keystore.VaultOptions{Name: "test"})
	f.ok(err)
	f.config.Vault = v
}

// An object that somebody else destroyed in the token does not hinder a deletion.
func TestDeletionOfDestroyedMaterial(t *testing.T) {
	f := newEngine(t)
	before := f.residents()
	k := f.key(signing(types.KeySpecEccNistEdwards25519))
	for _, id := range f.residents() {
		if !slices.Contains(before, id) {
			f.ok(f.config.Vault.Destroy(t.Context(), keystore.Material{ID: id, Spec: keystore.SpecEd25519}))
		}
	}
	f.schedule(region, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.sweep()
	if f.describe(region, k.KeyId) != nil {
		t.Fatal("the key is still there")
	}
}

// The waiting period of a primary key begins when the last replica is deleted,
// not when its deletion is scheduled.
func TestDeletionOfPrimaryWaitsForReplicas(t *testing.T) {
	f := newEngine(t)
	const third = "us-east-1"
	k := f.key(multiRegion)
	f.replicate(k.KeyId, replicaRegion, third)
	out := f.schedule(region, k.KeyId, 10)
	if out.KeyState != types.KeyStatePendingReplicaDeletion || out.DeletionDate != nil || *out.PendingWindowInDays != 10 {
		t.Fatalf("scheduled %+v", out)
	}
	m := f.describe(region, k.KeyId)
	if m.KeyState != types.KeyStatePendingReplicaDeletion || m.DeletionDate != nil || aws.ToInt32(m.PendingDeletionWindowInDays) != 10 {
		t.Fatalf("described as %+v", m)
	}
	f.schedule(replicaRegion, k.KeyId, 7)
	f.schedule(third, k.KeyId, 8)
	f.clock.advance(7 * day)
	f.sweep()
	f.wantState(region, k.KeyId, types.KeyStatePendingReplicaDeletion)
	if replicas := f.describe(region, k.KeyId).MultiRegionConfiguration.ReplicaKeys; len(replicas) != 1 || *replicas[0].Region != third {
		t.Fatalf("replicas are %v, want that in %s", replicas, third)
	}
	f.reopen()
	f.clock.advance(day)
	f.sweep()
	m = f.describe(region, k.KeyId)
	if m.KeyState != types.KeyStatePendingDeletion || m.PendingDeletionWindowInDays != nil || !m.DeletionDate.Equal(f.clock.now().Add(10*day)) {
		t.Fatalf("after the last replica: %+v", m)
	}
	f.clock.advance(10*day - time.Millisecond)
	f.sweep()
	f.wantState(region, k.KeyId, types.KeyStatePendingDeletion)
	f.clock.advance(time.Millisecond)
	f.sweep()
	if f.describe(region, k.KeyId) != nil {
		t.Fatal("the primary key is still there")
	}
}

func TestCancelDeletionOfPrimaryWithReplicas(t *testing.T) {
	f := newEngine(t)
	k := f.key(multiRegion)
	f.replicate(k.KeyId, replicaRegion)
	f.schedule(region, k.KeyId, 10)
	_, err := f.client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: k.KeyId})
	f.ok(err)
	f.wantState(region, k.KeyId, types.KeyStateDisabled)
	f.schedule(replicaRegion, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.sweep()
	f.wantState(region, k.KeyId, types.KeyStateDisabled)
	if m := f.describe(region, k.KeyId); m.PendingDeletionWindowInDays != nil || len(m.MultiRegionConfiguration.ReplicaKeys) != 0 {
		t.Fatalf("described as %+v", m)
	}
}

// Operations on related keys see a replica whose time has come as gone, whether
// or not the worker came by.
func TestReplicaWhoseTimeHasCome(t *testing.T) {
	f := newEngine(t)
	k := f.key(multiRegion)
	f.replicate(k.KeyId, replicaRegion)
	blob := f.encryptIn(replicaRegion, k.KeyId)
	f.schedule(replicaRegion, k.KeyId, 7)
	f.clock.advance(7 * day)
	f.replicate(k.KeyId, replicaRegion) // again
	f.wantState(replicaRegion, k.KeyId, types.KeyStateEnabled)
	f.wantGreeting(replicaRegion, blob, nil)
	f.schedule(replicaRegion, k.KeyId, 7)
	f.clock.advance(7 * day)
	if out := f.schedule(region, k.KeyId, 7); out.KeyState != types.KeyStatePendingDeletion {
		t.Fatalf("the primary key is %s though its replica is gone", out.KeyState)
	}
}
