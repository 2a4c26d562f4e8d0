package engine

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const usualRotationPeriod = 365 // days

func (c *Client) enableKeyRotation(ctx context.Context, in *kms.EnableKeyRotationInput) (*kms.EnableKeyRotationOutput, error) {
	period := int32(usualRotationPeriod)
	if in.RotationPeriodInDays != nil {
		period = *in.RotationPeriodInDays // its limits are in the service model
	}
	next := c.engine.now().Add(time.Duration(period) * day)
	err := c.setRotation(ctx, "EnableKeyRotation", in.KeyId, func(r *rotation) {
		r.Enabled, r.Period, r.Next = true, period, next
	})
	return &kms.EnableKeyRotationOutput{}, err
}

func (c *Client) disableKeyRotation(ctx context.Context, in *kms.DisableKeyRotationInput) (*kms.DisableKeyRotationOutput, error) {
	err := c.setRotation(ctx, "DisableKeyRotation", in.KeyId, func(r *rotation) {
		r.Enabled, r.Period, r.Next = false, 0, time.Time{}
	})
	return &kms.DisableKeyRotationOutput{}, err
}

// setRotation changes the automatic rotation of a key and of all that are related
// to it.
func (c *Client) setRotation(ctx context.Context, op string, keyID *string, set func(*rotation)) error {
	family, release, err := c.take(ctx, op, keyID, rotatesAutomatically)
	if err != nil {
		return err
	}
	defer release()
	if err := requirePrimary(family[0]); err != nil {
		return err
	}
	for _, k := range family {
		set(&k.Rotation)
	}
	return c.engine.commitKeys(ctx, family...)
}

// rotatesAutomatically refuses keys of a kind whose material KMS cannot replace
// by itself.
func rotatesAutomatically(k *key) error {
	if k.Origin != types.OriginTypeAwsKms {
		return unsupported("%s origin is %s which is not valid for this operation.", k.arn(), k.Origin)
	}
	return rotatesOnDemand(k)
}

// rotatesOnDemand refuses keys of a kind whose material never changes.
func rotatesOnDemand(k *key) error {
	switch {
	case k.rotates():
		return nil
	case k.Spec != types.KeySpecSymmetricDefault:
		return unsupported("%s key spec is %s which is not valid for this operation.", k.arn(), k.Spec)
	}
	return unsupported("%s origin is %s which is not valid for this operation.", k.arn(), k.Origin)
}

// getKeyRotationStatus answers for every key but those in custom key stores:
// those whose material does not rotate by itself have a status too, which is
// false. A rotation on demand is never in progress, since it ends within its
// request.
func (c *Client) getKeyRotationStatus(_ context.Context, in *kms.GetKeyRotationStatusInput) (*kms.GetKeyRotationStatusOutput, error) {
	const op = "GetKeyRotationStatus"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if k.StoreID != "" {
		return nil, unsupported("%s origin is %s which is not valid for this operation.", k.arn(), k.Origin)
	}
	if err := c.permitted(op, k); err != nil {
		return nil, err
	}
	out := &kms.GetKeyRotationStatusOutput{KeyId: aws.String(k.ID)}
	if k.Rotation.Enabled && !k.isPendingDeletion() {
		out.KeyRotationEnabled = true
		out.NextRotationDate = aws.Time(k.Rotation.Next)
		out.RotationPeriodInDays = aws.Int32(k.Rotation.Period)
	}
	return out, nil
}
