package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) getKeyLastUsage(_ context.Context, in *kms.GetKeyLastUsageInput) (*kms.GetKeyLastUsageOutput, error) {
	k, err := c.findKey("GetKeyLastUsage", in.KeyId)
	if err != nil {
		return nil, err
	}
	tracked := c.engine.meta.Created
	if k.Created.After(tracked) {
		tracked = k.Created
	}
	return &kms.GetKeyLastUsageOutput{
		KeyCreationDate: aws.Time(k.Created), KeyId: aws.String(k.ID), KeyLastUsage: k.used.latest().describe(), TrackingStartDate: aws.Time(tracked),
	}, nil
}

// describe is the use as KMS tells of it: empty if there was none. Who uses the
// engine without request ids finds none here.
func (u *lastUsage) describe() *types.KeyLastUsageData {
	if u == nil {
		return &types.KeyLastUsageData{}
	}
	d := &types.KeyLastUsageData{Operation: u.Operation, Timestamp: aws.Time(u.At), CloudTrailEventId: aws.String(u.EventID)}
	if u.RequestID != "" {
		d.KmsRequestId = aws.String(u.RequestID)
	}
	return d
}
