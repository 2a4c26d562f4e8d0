package engine

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// settling is how long a key stays Creating or Updating. Nothing is left to do
// then, as it is all one commit; but clients are written for the KMS that takes a
// moment, and these shall see that they wait well.
const settling = time.Second

func (c *Client) replicateKey(ctx context.Context, in *kms.ReplicateKeyInput) (*kms.ReplicateKeyOutput, error) {
	family, release, err := c.take(ctx, "ReplicateKey", in.KeyId, requirePrimary)
	if err != nil {
		return nil, err
	}
	defer release()
	primary := family[0]
	if err := c.replicable(primary, *in.ReplicaRegion); err != nil {
		return nil, err
	}
	replica := c.engine.replicaOf(primary, *in.ReplicaRegion)
	replica.Description = aws.ToString(in.Description)
	if replica.Policy, err = c.newPolicy(in.Policy, in.BypassPolicyLockoutSafetyCheck, replica.arn()); err != nil {
		return nil, err
	}
	if replica.Tags, err = addTags(nil, in.Tags); err != nil {
		return nil, err
	}
	family = append(family, replica)
	relate(family, primary.MultiRegion.with(replica.Region))
	if err := c.engine.commitKeys(ctx, family...); err != nil {
		return nil, err
	}
	return c.describeReplica(ctx, replica)
}

// replicable refuses to replicate a key into a Region where that cannot be.
func (c *Client) replicable(k *key, region string) error {
	switch {
	case !k.isPrimary():
		return notPrimary(k)
	case partition(region) != partition(k.Region):
		return unsupported("%s cannot be replicated into Region %s, which is in another partition.", k.arn(), region)
	case region == k.Region || slices.Contains(k.MultiRegion.Replicas, region):
		return &types.AlreadyExistsException{Message: message("%s already exists.", []any{k.arnIn(region)})}
	}
	return nil
}

// replicaOf returns a new replica of a key. It has what related keys share; but
// imported material must be imported into each.
func (e *Engine) replicaOf(primary *key, region string) *key {
	now := e.now()
	replica := &key{
		Account: primary.Account, Region: region, ID: primary.ID, Created: now,
		Spec: primary.Spec, Usage: primary.Usage, Origin: primary.Origin, Rotation: primary.Rotation,
		Settling: types.KeyStateCreating, SettlesAt: now.Add(settling),
	}
	if primary.Origin != types.OriginTypeExternal {
		replica.Materials, replica.Current = slices.Clone(primary.Materials), primary.Current
	}
	return replica
}

// describeReplica answers who made a replica, with what they see of it in its
// Region. AWS KMS leaves out its key material, and tags that it does not have.
func (c *Client) describeReplica(ctx context.Context, replica *key) (*kms.ReplicateKeyOutput, error) {
	there := c.engine.Client(replica.Region, c.caller)
	policy, err := there.getKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: aws.String(replica.ID)})
	if err != nil {
		return nil, err
	}
	out := &kms.ReplicateKeyOutput{
		ReplicaKeyMetadata: replica.metadata(c.engine.state, c.engine.now()), ReplicaPolicy: policy.Policy,
	}
	out.ReplicaKeyMetadata.CurrentKeyMaterialId = nil
	for _, t := range replica.Tags {
		out.ReplicaTags = append(out.ReplicaTags, types.Tag{TagKey: aws.String(t.Key), TagValue: aws.String(t.Value)})
	}
	return out, nil
}

func (c *Client) updatePrimaryRegion(ctx context.Context, in *kms.UpdatePrimaryRegionInput) (*kms.UpdatePrimaryRegionOutput, error) {
	const op = "UpdatePrimaryRegion"
	family, release, err := c.take(ctx, op, in.KeyId, anyKind)
	if err != nil {
		return nil, err
	}
	defer release()
	former, region := family[0], *in.PrimaryRegion
	switch {
	case !former.isPrimary():
		return nil, notPrimary(former)
	case region == former.Region:
		return nil, invalid("%s is the primary Region of %s already.", region, former.arn())
	case !slices.Contains(former.MultiRegion.Replicas, region):
		return nil, notFound("Key '%s' does not exist", former.arnIn(region))
	}
	primary := family[slices.IndexFunc(family, func(k *key) bool { return k.Region == region })]
	if err := c.permitted(op, primary); err != nil {
		return nil, err
	}
	m := former.MultiRegion.without(region).with(former.Region)
	m.Primary = region
	relate(family, m)
	now := c.engine.now()
	for _, k := range []*key{former, primary} {
		k.Settling, k.SettlesAt = types.KeyStateUpdating, now.Add(settling)
	}
	return &kms.UpdatePrimaryRegionOutput{}, c.engine.commitKeys(ctx, family...)
}
