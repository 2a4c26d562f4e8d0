package engine

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/google/uuid"
)

func (c *Client) createKey(ctx context.Context, in *kms.CreateKeyInput) (*kms.CreateKeyOutput, error) {
	k, err := c.draftKey(in)
	if err != nil {
		return nil, err
	}
	if k.StoreID != "" {
		return c.createKeyInStore(ctx, k)
	}
	return c.createKeyHere(ctx, k)
}

// createKeyHere makes a key whose material is in the main token, or is yet to be
// imported.
func (c *Client) createKeyHere(ctx context.Context, k *key) (*kms.CreateKeyOutput, error) {
	if sp, _ := specOf(k.Spec); isSlow(sp.material) {
		ctx = Patient(ctx)
	}
	b, undo := new(batch), func() {}
	if k.Origin != types.OriginTypeExternal {
		m, u, err := c.engine.generate(ctx, k, b)
		if err != nil {
			return nil, err
		}
		undo = u
		k.addFirst(m)
	}
	b.putKey(k)
	if err := c.engine.commitMaterial(ctx, b, undo); err != nil {
		return nil, err
	}
	return &kms.CreateKeyOutput{KeyMetadata: k.metadata(c.engine.state, c.engine.now())}, nil
}

// addFirst makes m the first material of a key.
func (k *key) addFirst(m material) {
	m.Since = k.Created
	k.Materials, k.Current = []material{m}, m.ID
}

// draftKey returns the key that in describes, without material.
func (c *Client) draftKey(in *kms.CreateKeyInput) (*key, error) {
	k := &key{
		Account: c.caller.Account, Region: c.region, ID: uuid.NewString(), Created: c.engine.now(),
		Description: aws.ToString(in.Description), Origin: in.Origin, Usage: in.KeyUsage,
		StoreID: aws.ToString(in.CustomKeyStoreId), XksKeyID: aws.ToString(in.XksKeyId),
	}
	if k.Origin == "" {
		k.Origin = types.OriginTypeAwsKms
	}
	var err error
	if k.Spec, err = keySpecOf(in); err != nil {
		return nil, err
	}
	if err := k.settleUsage(); err != nil {
		return nil, err
	}
	if err := checkOrigin(k, in); err != nil {
		return nil, err
	}
	if aws.ToBool(in.MultiRegion) {
		k.ID = multiRegionPrefix + strings.ReplaceAll(k.ID, "-", "")
		k.MultiRegion = &multiRegion{Primary: k.Region}
	}
	if k.Policy, err = c.newPolicy(in.Policy, in.BypassPolicyLockoutSafetyCheck, k.arn()); err != nil {
		return nil, err
	}
	k.Tags, err = addTags(nil, in.Tags)
	return k, err
}

// keySpecOf returns the key spec that is asked for by either of its names.
func keySpecOf(in *kms.CreateKeyInput) (types.KeySpec, error) {
	//nolint:staticcheck // the older name is deprecated, and served.
	older := in.CustomerMasterKeySpec
	switch {
	case older != "" && in.KeySpec != "":
		return "", invalid("You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case older != "":
		return types.KeySpec(older), nil
	case in.KeySpec != "":
		return in.KeySpec, nil
	}
	return types.KeySpecSymmetricDefault, nil
}

// settleUsage fills in the usage of a key that CreateKey does not say, and checks
// one that it says.
func (k *key) settleUsage() error {
	sp, served := specOf(k.Spec)
	if !served {
		return unsupported("KeySpec %s is not supported.", k.Spec)
	}
	if k.Usage == "" {
		if k.Usage = sp.standard; k.Usage == "" {
			return invalid("You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
		}
	}
	if !sp.permits(k.Usage) {
		return invalid("KeyUsage %s is not compatible with KeySpec %s", k.Usage, k.Spec)
	}
	return nil
}

// checkOrigin refuses what does not go together with where the material of a
// key comes from.
func checkOrigin(k *key, in *kms.CreateKeyInput) error {
	custom := k.Origin == types.OriginTypeAwsCloudhsm || k.Origin == types.OriginTypeExternalKeyStore
	switch {
	case custom && k.StoreID == "":
		return invalid("CustomKeyStoreId is required for a KMS key with Origin %s.", k.Origin)
	case !custom && k.StoreID != "":
		return invalid("CustomKeyStoreId is not valid for a KMS key with Origin %s.", k.Origin)
	case k.Origin == types.OriginTypeExternalKeyStore && k.XksKeyID == "":
		return invalid("XksKeyId is required for a KMS key with Origin %s.", k.Origin)
	case k.Origin != types.OriginTypeExternalKeyStore && k.XksKeyID != "":
		return invalid("XksKeyId is not valid for a KMS key with Origin %s.", k.Origin)
	case custom && k.Spec != types.KeySpecSymmetricDefault:
		return unsupported("KeySpec %s is not supported in a custom key store.", k.Spec)
	case custom && aws.ToBool(in.MultiRegion):
		return unsupported("Multi-Region keys are not supported in a custom key store.")
	}
	return nil
}

func (c *Client) describeKey(ctx context.Context, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	if err := c.ensureManaged(ctx, in.KeyId); err != nil {
		return nil, err
	}
	k, err := c.find("DescribeKey", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := c.checkGrantTokens(in.GrantTokens); err != nil {
		return nil, err
	}
	return &kms.DescribeKeyOutput{KeyMetadata: k.metadata(c.engine.state, c.engine.now())}, nil
}

func (c *Client) listKeys(_ context.Context, in *kms.ListKeysInput) (*kms.ListKeysOutput, error) {
	p, err := newPage(c, "ListKeys", in.Limit, in.Marker, 100, 1000)
	if err != nil {
		return nil, err
	}
	out := &kms.ListKeysOutput{Keys: []types.KeyListEntry{}}
	now := c.engine.now()
	s := c.engine.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	prefix := string(newKeyRef(c.caller.Account, c.region, ""))
	out.NextMarker, out.Truncated = scan(p, &s.keys, prefix, func(k *key) bool {
		if k.isGone(now) {
			return false
		}
		out.Keys = append(out.Keys, types.KeyListEntry{KeyArn: aws.String(k.arn()), KeyId: aws.String(k.ID)})
		return true
	})
	return out, nil
}
