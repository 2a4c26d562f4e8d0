package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) createAlias(context.Context, *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) updateAlias(context.Context, *kms.UpdateAliasInput) (*kms.UpdateAliasOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) deleteAlias(context.Context, *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listAliases(context.Context, *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) tagResource(context.Context, *kms.TagResourceInput) (*kms.TagResourceOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) untagResource(context.Context, *kms.UntagResourceInput) (*kms.UntagResourceOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listResourceTags(context.Context, *kms.ListResourceTagsInput) (*kms.ListResourceTagsOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) createGrant(context.Context, *kms.CreateGrantInput) (*kms.CreateGrantOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listGrants(context.Context, *kms.ListGrantsInput) (*kms.ListGrantsOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listRetirableGrants(context.Context, *kms.ListRetirableGrantsInput) (*kms.ListRetirableGrantsOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) retireGrant(context.Context, *kms.RetireGrantInput) (*kms.RetireGrantOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) revokeGrant(context.Context, *kms.RevokeGrantInput) (*kms.RevokeGrantOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) getKeyPolicy(context.Context, *kms.GetKeyPolicyInput) (*kms.GetKeyPolicyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) putKeyPolicy(context.Context, *kms.PutKeyPolicyInput) (*kms.PutKeyPolicyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listKeyPolicies(context.Context, *kms.ListKeyPoliciesInput) (*kms.ListKeyPoliciesOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) newPolicy(document *string, _ bool) (string, error) {
	return aws.ToString(document), nil
}

func addTags(old []tag, added []types.Tag) ([]tag, error) {
	for _, t := range added {
		old = append(old, tag{aws.ToString(t.TagKey), aws.ToString(t.TagValue)})
	}
	return old, nil
}
