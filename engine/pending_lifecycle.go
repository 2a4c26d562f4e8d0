package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func (c *Client) enableKey(context.Context, *kms.EnableKeyInput) (*kms.EnableKeyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) disableKey(context.Context, *kms.DisableKeyInput) (*kms.DisableKeyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) scheduleKeyDeletion(context.Context, *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) cancelKeyDeletion(context.Context, *kms.CancelKeyDeletionInput) (*kms.CancelKeyDeletionOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) enableKeyRotation(context.Context, *kms.EnableKeyRotationInput) (*kms.EnableKeyRotationOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) disableKeyRotation(context.Context, *kms.DisableKeyRotationInput) (*kms.DisableKeyRotationOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) getKeyRotationStatus(context.Context, *kms.GetKeyRotationStatusInput) (*kms.GetKeyRotationStatusOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) listKeyRotations(context.Context, *kms.ListKeyRotationsInput) (*kms.ListKeyRotationsOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) rotateKeyOnDemand(context.Context, *kms.RotateKeyOnDemandInput) (*kms.RotateKeyOnDemandOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) replicateKey(context.Context, *kms.ReplicateKeyInput) (*kms.ReplicateKeyOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) updatePrimaryRegion(context.Context, *kms.UpdatePrimaryRegionInput) (*kms.UpdatePrimaryRegionOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) getKeyLastUsage(context.Context, *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	return nil, unsupported("not built yet")
}

func (c *Client) updateKeyDescription(context.Context, *kms.UpdateKeyDescriptionInput) (*kms.UpdateKeyDescriptionOutput, error) {
	return nil, unsupported("not built yet")
}
