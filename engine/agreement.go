package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// deriveSharedSecret computes the raw shared secret of ECDH (SP 800-56A,
// section 5.7.1.2): the x coordinate, as long as the field.
func (c *Client) deriveSharedSecret(ctx context.Context, in *kms.DeriveSharedSecretInput) (*kms.DeriveSharedSecretOutput, error) {
	if in.Recipient != nil {
		return nil, unsupportedRecipient()
	}
	k, err := c.usable("DeriveSharedSecret", in.KeyId, types.KeyUsageTypeKeyAgreement)
	if err != nil {
		return nil, err
	}
	if sp, _ := specOf(k.Spec); !slices.Contains(sp.agreement, in.KeyAgreementAlgorithm) {
		return nil, invalidUsage("Algorithm %s is incompatible with key spec %s.", in.KeyAgreementAlgorithm, k.Spec)
	}
	if err := c.checkGrantTokens(in.GrantTokens); err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	v, err := c.engine.vaultOf(k)
	if err != nil {
		return nil, err
	}
	secret, err := v.SharedSecret(ctx, k.current().Vault, in.PublicKey)
	switch {
	case errors.Is(err, keystore.ErrInvalidPublicKey):
		return nil, invalid("") // as AWS KMS says it
	case err != nil:
		return nil, c.materialError(k, err)
	}
	k.noteUse(ctx, types.KeyLastUsageTrackingOperationDeriveSharedSecret, c.engine.now())
	return &kms.DeriveSharedSecretOutput{
		KeyAgreementAlgorithm: in.KeyAgreementAlgorithm, KeyId: aws.String(k.arn()), KeyOrigin: k.Origin, SharedSecret: secret,
	}, nil
}

// encapsulate is for ML-KEM keys alone, which are not served, so that no key can
// be of the right usage.
func (c *Client) encapsulate(_ context.Context, in *kms.EncapsulateInput) (*kms.EncapsulateOutput, error) {
	k, err := c.find("Encapsulate", in.KeyId)
	if err != nil {
		return nil, err
	}
	return nil, unsupported("%s key spec is %s: ML-KEM is not supported.", k.arn(), k.Spec)
}

func (c *Client) decapsulate(_ context.Context, in *kms.DecapsulateInput) (*kms.DecapsulateOutput, error) {
	k, err := c.find("Decapsulate", in.KeyId)
	if err != nil {
		return nil, err
	}
	return nil, unsupported("%s key spec is %s: ML-KEM is not supported.", k.arn(), k.Spec)
}
