package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) sign(context.Context, *kms.SignInput) (*kms.SignOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) verify(context.Context, *kms.VerifyInput) (*kms.VerifyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) getPublicKey(context.Context, *kms.GetPublicKeyInput) (*kms.GetPublicKeyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) generateMac(context.Context, *kms.GenerateMacInput) (*kms.GenerateMacOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) verifyMac(context.Context, *kms.VerifyMacInput) (*kms.VerifyMacOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) deriveSharedSecret(context.Context, *kms.DeriveSharedSecretInput) (*kms.DeriveSharedSecretOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) encapsulate(context.Context, *kms.EncapsulateInput) (*kms.EncapsulateOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) decapsulate(context.Context, *kms.DecapsulateInput) (*kms.DecapsulateOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) encryptRSA(*key, types.EncryptionAlgorithmSpec, *kms.EncryptInput) ([]byte, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) decryptRSA(context.Context, *key, types.EncryptionAlgorithmSpec, sealedInput) ([]byte, error) {
	return nil, unsupported("not built yet")
}
