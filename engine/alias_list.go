package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) listAliases(_ context.Context, in *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	const op = "ListAliases"
	s := c.engine.state
	listing, items, prefix := op, &s.aliases, aliasRef(c.caller.Account, c.region, "")
	if in.KeyId != nil {
		k, err := c.findKey(op, in.KeyId)
		if err != nil {
			return nil, err
		}
		listing, items, prefix = op+"/"+k.ID, &s.keyAliases, string(k.ref())+"/"
	}
	p, err := newPage(c, listing, in.Limit, in.Marker, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &kms.ListAliasesOutput{Aliases: []types.AliasListEntry{}}
	now := c.engine.now()
	if c.engine.managedKeys && in.KeyId == nil {
		items = s.withPredefined(c.caller.Account, c.region)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out.NextMarker, out.Truncated = scan(p, items, prefix, func(a *alias) bool {
		if a.KeyID != "" && !s.isThere(a.target(), now) {
			return false
		}
		out.Aliases = append(out.Aliases, a.entry())
		return true
	})
	return out, nil
}

func (a *alias) entry() types.AliasListEntry {
	if a.KeyID == "" { // predefined
		return types.AliasListEntry{AliasArn: aws.String(a.arn()), AliasName: aws.String(a.Name)}
	}
	return types.AliasListEntry{
		AliasArn: aws.String(a.arn()), AliasName: aws.String(a.Name), TargetKeyId: aws.String(a.KeyID),
		CreationDate: aws.Time(a.Created), LastUpdatedDate: aws.Time(a.Updated),
	}
}
