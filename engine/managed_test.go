package engine_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

func managedKeys(c *engine.Config) { c.ManagedKeys = true }

// aliasesOf returns all aliases of a caller, in pages of two.
func aliasesOf(t *testing.T, c *engine.Client) map[string]types.AliasListEntry {
	t.Helper()
	all, names := map[string]types.AliasListEntry{}, []string(nil)
	pages := kms.NewListAliasesPaginator(c, &kms.ListAliasesInput{Limit: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Aliases {
			all[*a.AliasName] = a
			names = append(names, *a.AliasName)
		}
	}
	if !slices.IsSorted(names) || len(names) != len(all) {
		t.Errorf("aliases %q, want each once and in order", names)
	}
	return all
}

const s3Alias = "alias/aws/s3"

func describeManaged(t *testing.T, c *engine.Client, name string) *types.KeyMetadata {
	t.Helper()
	out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

// TestManagedKeysAreOff sees nothing of AWS managed keys unless they are configured.
func TestManagedKeysAreOff(t *testing.T) {
	f := newEngine(t)
	_, err := f.client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(s3Alias)})
	wantCode(t, err, "NotFoundException")
	if all := aliasesOf(t, f.client()); len(all) > 0 {
		t.Errorf("aliases %v", all)
	}
}

// TestManagedKey describes a predefined alias as Terraform's provider does: it lists
// the aliases, finds one without a key, describes that, and lists again.
func TestManagedKey(t *testing.T) {
	f := newEngine(t, managedKeys)
	c, ctx := f.client(), t.Context()
	own := f.key().KeyId
	_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/aws-own"), TargetKeyId: own})
	f.ok(err)
	before := aliasesOf(t, c)
	if a := before[s3Alias]; a.TargetKeyId != nil || a.CreationDate != nil || aws.ToString(a.AliasArn) != "arn:aws:kms:"+region+":"+account+":"+s3Alias {
		t.Errorf("the predefined alias is %+v", a)
	}
	if *before["alias/aws-own"].TargetKeyId != *own || len(before) < 10 {
		t.Errorf("aliases %v", before)
	}
	byARN := describeManaged(t, c, *before[s3Alias].AliasArn)
	m := describeManaged(t, c, s3Alias)
	if *m.KeyId != *byARN.KeyId || m.KeyManager != types.KeyManagerTypeAws || m.KeyState != types.KeyStateEnabled || m.Origin != types.OriginTypeAwsKms ||
		*m.Description != "Default key that protects my S3 objects when no other key is defined" {
		t.Errorf("the key is %+v", m)
	}
	if a := aliasesOf(t, c)[s3Alias]; aws.ToString(a.TargetKeyId) != *m.KeyId || a.CreationDate == nil {
		t.Errorf("the alias is %+v", a)
	}
	f.wantRotation(region, m.KeyId, 365, f.clock.now().Add(365*day))
	blob := f.encryptIn(region, aws.String(s3Alias))
	f.clock.advance(366 * day)
	f.sweep()
	if now := f.materialOf(region, m.KeyId); now == *m.CurrentKeyMaterialId {
		t.Error("it did not rotate within a year")
	}
	f.wantGreeting(region, blob, m.CurrentKeyMaterialId)
	policy, err := c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: m.KeyId})
	f.ok(err)
	if !strings.Contains(*policy.Policy, `"kms:ViaService": "s3.eu-central-1.amazonaws.com"`) {
		t.Errorf("the policy is %s", *policy.Policy)
	}
	_, err = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/aws/nothing")})
	refused(t, err, "NotFoundException", "alias/aws/nothing is not found.")
}

// TestManagedKeysAreNotManaged refuses what the policies of AWS managed keys let
// nobody do.
func TestManagedKeysAreNotManaged(t *testing.T) {
	f := newEngine(t, managedKeys)
	c, ctx := f.client(), t.Context()
	m := describeManaged(t, c, s3Alias)
	id, tags := m.KeyId, []types.Tag{{TagKey: aws.String("k"), TagValue: aws.String("v")}}
	grant := func(id *string) error {
		_, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String(bob), Operations: []types.GrantOperation{types.GrantOperationDecrypt}})
		return err
	}
	for op, err := range map[string]error{
		"ScheduleKeyDeletion":  second(c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: id})),
		"CancelKeyDeletion":    second(c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: id})),
		"DisableKey":           second(c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})),
		"EnableKey":            second(c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})),
		"EnableKeyRotation":    second(c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: id})),
		"DisableKeyRotation":   second(c.DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: id})),
		"RotateKeyOnDemand":    second(c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: id})),
		"PutKeyPolicy":         second(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String("{}")})),
		"UpdateKeyDescription": second(c.UpdateKeyDescription(ctx, &kms.UpdateKeyDescriptionInput{KeyId: id, Description: aws.String("d")})),
		"TagResource":          second(c.TagResource(ctx, &kms.TagResourceInput{KeyId: id, Tags: tags})),
		"UntagResource":        second(c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: id, TagKeys: []string{"k"}})),
		"CreateAlias":          second(c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/own"), TargetKeyId: id})),
		"ReplicateKey":         second(c.ReplicateKey(ctx, &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String("us-east-1")})),
		"UpdatePrimaryRegion":  second(c.UpdatePrimaryRegion(ctx, &kms.UpdatePrimaryRegionInput{KeyId: id, PrimaryRegion: aws.String("us-east-1")})),
		"CreateGrant":          grant(id),
	} {
		refused(t, err, "AccessDeniedException", "kms:"+op+" on resource: "+*m.Arn+" because no resource-based policy allows the kms:"+op+" action")
	}
	for _, err := range []error{
		second(c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: aws.String(s3Alias)})),
		second(c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: aws.String(s3Alias), TargetKeyId: f.key().KeyId})),
	} {
		wantCode(t, err, "NotAuthorizedException")
	}
	f.wantState(region, id, types.KeyStateEnabled)
	// EBS works by grants.
	f.ok(grant(describeManaged(t, c, "alias/aws/ebs").KeyId))
	_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: aws.String(s3Alias), KeySpec: types.DataKeySpecAes256})
	f.ok(err)
	_, err = c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: id})
	f.ok(err)
}

// second is the error of what an operation returns.
func second[T any](_ T, err error) error { return err }

// TestManagedKeyIsMadeOnce has many describe the same alias at once.
func TestManagedKeyIsMadeOnce(t *testing.T) {
	f := newEngine(t, managedKeys)
	const callers = 16
	ids := make([]string, callers)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			out, err := f.client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(s3Alias)})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = *out.KeyMetadata.KeyId
		})
	}
	all.Wait()
	keys, err := f.client().ListKeys(t.Context(), &kms.ListKeysInput{})
	f.ok(err)
	if slices.Sort(ids); ids[0] != ids[callers-1] || len(keys.Keys) != 1 {
		t.Errorf("described %q, listed %d keys", ids, len(keys.Keys))
	}
	for _, other := range []*engine.Client{f.in(replicaRegion), f.as(foreignAccount, region)} {
		if m := describeManaged(t, other, s3Alias); *m.KeyId == ids[0] {
			t.Errorf("%s is the key of another account or Region", *m.Arn)
		}
	}
	f.config.ManagedKeys = false
	f.reopen()
	if m := describeManaged(t, f.client(), s3Alias); *m.KeyId != ids[0] || m.KeyManager != types.KeyManagerTypeAws {
		t.Errorf("later the key is %+v", m)
	}
	if all := aliasesOf(t, f.client()); len(all) != 1 {
		t.Errorf("later the aliases are %v", all)
	}
}
