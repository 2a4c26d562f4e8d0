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
	err := c.setRotation(ctx, "EnableKeyRotation", in.KeyId, rotation{Enabled: true, Period: period, Next: next})
	return &kms.EnableKeyRotationOutput{}, err
}

func (c *Client) disableKeyRotation(ctx context.Context, in *kms.DisableKeyRotationInput) (*kms.DisableKeyRotationOutput, error) {
	err := c.setRotation(ctx, "DisableKeyRotation", in.KeyId, rotation{})
	return &kms.DisableKeyRotationOutput{}, err
}

// setRotation changes the automatic rotation of a key and of all that are related
// to it. As at AWS KMS, it can be disabled where it never was possible.
func (c *Client) setRotation(ctx context.Context, op string, keyID *string, to rotation) error {
	family, release, err := c.take(ctx, op, keyID, madeHere)
	if err != nil {
		return err
	}
	defer release()
	switch k := family[0]; {
	case !k.rotates() && to.Enabled:
		return neverRotates()
	case !k.rotates():
		return nil
	}
	if err := requirePrimary(family[0]); err != nil {
		return err
	}
	for _, k := range family {
		to.OnDemand = k.Rotation.OnDemand
		k.Rotation = to
	}
	return c.engine.commitKeys(ctx, family...)
}

// madeHere refuses keys whose material KMS did not make, so that it cannot replace
// it by itself.
func madeHere(k *key) error {
	if k.Origin != types.OriginTypeAwsKms {
		return wrongOrigin(k)
	}
	return nil
}

// keptHere refuses keys whose material is in a custom key store, where it never
// changes.
func keptHere(k *key) error {
	if k.StoreID != "" {
		return wrongOrigin(k)
	}
	return nil
}

func wrongOrigin(k *key) error {
	return unsupported("%s origin is %s which is not valid for this operation.", k.arn(), k.Origin)
}

// neverRotates is the answer for asymmetric and HMAC keys. AWS KMS gives no reason.
func neverRotates() error { return unsupported("") }

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
		return nil, wrongOrigin(k)
	}
	if err := c.permitted(op, k); err != nil {
		return nil, err
	}
	out := &kms.GetKeyRotationStatusOutput{KeyId: aws.String(k.arn())}
	if k.Rotation.Enabled && !k.isPendingDeletion() {
		out.KeyRotationEnabled = true
		out.NextRotationDate = aws.Time(k.Rotation.Next)
		out.RotationPeriodInDays = aws.Int32(k.Rotation.Period)
	}
	return out, nil
}
