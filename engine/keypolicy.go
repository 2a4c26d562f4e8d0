package engine

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/policy"
)

// policyName is the name of the only policy that a key has.
const policyName = "default"

func (c *Client) getKeyPolicy(_ context.Context, in *kms.GetKeyPolicyInput) (*kms.GetKeyPolicyOutput, error) {
	k, err := c.findKey("GetKeyPolicy", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	return &kms.GetKeyPolicyOutput{Policy: aws.String(k.policy()), PolicyName: aws.String(policyName)}, nil
}

func (c *Client) putKeyPolicy(ctx context.Context, in *kms.PutKeyPolicyInput) (*kms.PutKeyPolicyOutput, error) {
	_, err := c.edit(ctx, "PutKeyPolicy", in.KeyId, func(k *key, _ *batch) error {
		if err := checkPolicyName(in.PolicyName); err != nil {
			return err
		}
		var err error
		k.Policy, err = c.newPolicy(in.Policy, in.BypassPolicyLockoutSafetyCheck, k.arn())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &kms.PutKeyPolicyOutput{}, nil
}

func (c *Client) listKeyPolicies(_ context.Context, in *kms.ListKeyPoliciesInput) (*kms.ListKeyPoliciesOutput, error) {
	const op = "ListKeyPolicies"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if _, err := newPage(c, op+"/"+k.ID, in.Limit, in.Marker, 100, 1000); err != nil {
		return nil, err
	}
	return &kms.ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}

func checkPolicyName(name *string) error {
	if name != nil && *name != policyName {
		return notFound("No such policy exists")
	}
	return nil
}

// newPolicy checks the policy that the caller gives to a key, and returns it as
// it is stored: word for word, and AWS's default as nothing.
func (c *Client) newPolicy(document *string, bypassLockoutCheck bool, keyARN string) (string, error) {
	if document == nil || *document == policy.Default(c.caller.Account) {
		return "", nil
	}
	if len(*document) > policy.MaxSize {
		return "", limitExceeded("The key policy has %d bytes, more than %d.", len(*document), policy.MaxSize)
	}
	parsed, err := policy.Parse(*document)
	switch {
	case errors.Is(err, policy.ErrNotJSON):
		return "", malformedPolicy("") // as AWS KMS says it
	case err != nil:
		return "", malformedPolicy(err.Error())
	}
	if !bypassLockoutCheck && !parsed.AllowsPutKeyPolicy(c.caller.ARN, c.caller.Account, keyARN) {
		return "", malformedPolicy("The new key policy will not allow you to update the key policy in the future.")
	}
	return *document, nil
}

func malformedPolicy(text string) error {
	return &types.MalformedPolicyDocumentException{Message: aws.String(text)}
}

// policy returns the key's policy document.
func (k *key) policy() string {
	if k.Policy == "" {
		return policy.Default(k.Account)
	}
	return k.Policy
}
