package engine

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const (
	day = 24 * time.Hour

	// The waiting period of a deletion, in days.
	leastDeletionWindow = 7
	mostDeletionWindow  = 30
)

func (c *Client) scheduleKeyDeletion(ctx context.Context, in *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	window := int32(mostDeletionWindow)
	if in.PendingWindowInDays != nil {
		window = *in.PendingWindowInDays
	}
	if window < leastDeletionWindow || window > mostDeletionWindow {
		return nil, invalid("PendingWindowInDays must be between %d and %d", leastDeletionWindow, mostDeletionWindow)
	}
	family, release, err := c.take(ctx, "ScheduleKeyDeletion", in.KeyId, anyKind)
	if err != nil {
		return nil, err
	}
	defer release()
	k, now := family[0], c.engine.now()
	k.scheduleDeletion(window, now)
	if err := c.engine.commitKeys(ctx, k); err != nil {
		return nil, err
	}
	out := &kms.ScheduleKeyDeletionOutput{
		KeyId: aws.String(k.arn()), KeyState: c.engine.state.stateOf(k, now), PendingWindowInDays: aws.Int32(window),
	}
	if !k.PendingReplicas {
		out.DeletionDate = aws.Time(k.DeleteAt)
	}
	return out, nil
}

// scheduleDeletion begins the waiting period, or has it wait for the replicas.
func (k *key) scheduleDeletion(window int32, now time.Time) {
	k.DeleteWindow = window
	if k.isPrimary() && len(k.MultiRegion.Replicas) > 0 {
		k.PendingReplicas = true
		return
	}
	k.PendingReplicas = false
	k.DeleteAt = now.Add(time.Duration(window) * day)
}

func (c *Client) cancelKeyDeletion(ctx context.Context, in *kms.CancelKeyDeletionInput) (*kms.CancelKeyDeletionOutput, error) {
	k, err := c.edit(ctx, "CancelKeyDeletion", in.KeyId, func(k *key, _ *batch) error {
		k.PendingReplicas, k.DeleteAt, k.DeleteWindow = false, time.Time{}, 0
		// A key that never had its material is pending import again, and would
		// have to be enabled after the import if it were disabled too.
		k.Disabled = k.Disabled || !k.awaitsFirstImport()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.CancelKeyDeletionOutput{KeyId: aws.String(k.arn())}, nil
}
