package engine

import (
	"context"
	"crypto"
	"crypto/hmac"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) generateMac(ctx context.Context, in *kms.GenerateMacInput) (*kms.GenerateMacOutput, error) {
	k, err := c.macKey("GenerateMac", in.KeyId, in.MacAlgorithm, in.GrantTokens)
	if err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	sum, err := c.mac(ctx, k, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	k.noteUse(ctx, types.KeyLastUsageTrackingOperationGenerateMac, c.engine.now())
	return &kms.GenerateMacOutput{KeyId: aws.String(k.arn()), Mac: sum, MacAlgorithm: in.MacAlgorithm}, nil
}

func (c *Client) verifyMac(ctx context.Context, in *kms.VerifyMacInput) (*kms.VerifyMacOutput, error) {
	k, err := c.macKey("VerifyMac", in.KeyId, in.MacAlgorithm, in.GrantTokens)
	if err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	sum, err := c.mac(ctx, k, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(sum, in.Mac) {
		return nil, &types.KMSInvalidMacException{}
	}
	k.noteUse(ctx, types.KeyLastUsageTrackingOperationVerifyMac, c.engine.now())
	return &kms.VerifyMacOutput{KeyId: aws.String(k.arn()), MacAlgorithm: in.MacAlgorithm, MacValid: true}, nil
}

// macKey returns the key that a MAC operation names, if it has the algorithm.
func (c *Client) macKey(op string, keyID *string, algorithm types.MacAlgorithmSpec, grantTokens []string) (*key, error) {
	k, err := c.usable(op, keyID, types.KeyUsageTypeGenerateVerifyMac)
	if err != nil {
		return nil, err
	}
	if sp, _ := specOf(k.Spec); !slices.Contains(sp.mac, algorithm) {
		return nil, invalidUsage("Algorithm %s is incompatible with key spec %s.", algorithm, k.Spec)
	}
	return k, c.checkGrantTokens(grantTokens)
}

func (c *Client) mac(ctx context.Context, k *key, algorithm types.MacAlgorithmSpec, message []byte) ([]byte, error) {
	v, err := c.engine.vaultOf(k)
	if err != nil {
		return nil, err
	}
	sum, err := v.MAC(ctx, k.current().Vault, macHash(algorithm), message)
	if err != nil {
		return nil, c.materialError(k, err)
	}
	return sum, nil
}

func macHash(a types.MacAlgorithmSpec) crypto.Hash {
	switch a {
	case types.MacAlgorithmSpecHmacSha224:
		return crypto.SHA224
	case types.MacAlgorithmSpecHmacSha256:
		return crypto.SHA256
	case types.MacAlgorithmSpecHmacSha384:
		return crypto.SHA384
	}
	return crypto.SHA512
}
