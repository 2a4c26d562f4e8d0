package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func (c *Client) enableKey(ctx context.Context, in *kms.EnableKeyInput) (*kms.EnableKeyOutput, error) {
	// A rotation that fell due meanwhile is the worker's to make up.
	_, err := c.edit(ctx, "EnableKey", in.KeyId, func(k *key, _ *batch) error {
		k.Disabled = false
		return nil
	})
	return &kms.EnableKeyOutput{}, err
}

func (c *Client) disableKey(ctx context.Context, in *kms.DisableKeyInput) (*kms.DisableKeyOutput, error) {
	_, err := c.edit(ctx, "DisableKey", in.KeyId, func(k *key, _ *batch) error {
		k.Disabled = true
		return nil
	})
	return &kms.DisableKeyOutput{}, err
}

func (c *Client) updateKeyDescription(ctx context.Context, in *kms.UpdateKeyDescriptionInput) (*kms.UpdateKeyDescriptionOutput, error) {
	_, err := c.edit(ctx, "UpdateKeyDescription", in.KeyId, func(k *key, _ *batch) error {
		k.Description = aws.ToString(in.Description)
		return nil
	})
	return &kms.UpdateKeyDescriptionOutput{}, err
}
