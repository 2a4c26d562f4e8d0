package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) revokeGrant(ctx context.Context, in *kms.RevokeGrantInput) (*kms.RevokeGrantOutput, error) {
	err := c.locked(ctx, "RevokeGrant", in.KeyId, func(k *key, b *batch) error {
		g, err := c.grantOf(k.ref(), aws.ToString(in.GrantId))
		if err != nil {
			return err
		}
		if aws.ToBool(in.DryRun) {
			return dryRunSucceeds()
		}
		b.dropGrant(g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.RevokeGrantOutput{}, nil
}

func (c *Client) retireGrant(ctx context.Context, in *kms.RetireGrantInput) (*kms.RetireGrantOutput, error) {
	g, err := c.findRetirable(in)
	if err != nil {
		return nil, err
	}
	if !c.mayRetire(g) {
		return nil, c.denied("RetireGrant", keyName{account: g.Account, region: g.Region, id: g.KeyID})
	}
	unlock, err := c.engine.locks.lock(ctx, familyOf(g.Account, g.KeyID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := c.findRetirable(in); err != nil { // it may be gone by now
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, dryRunSucceeds()
	}
	b := new(batch)
	b.dropGrant(g)
	if err := c.engine.commit(ctx, b); err != nil {
		return nil, err
	}
	return &kms.RetireGrantOutput{}, nil
}

// findRetirable returns the grant that is named by a token of it, or by its id
// and key, which may belong to another account: the grant says who may retire it.
func (c *Client) findRetirable(in *kms.RetireGrantInput) (*grant, error) {
	byToken, byID := in.GrantToken != nil, in.GrantId != nil && in.KeyId != nil
	if byToken == byID || byToken && (in.GrantId != nil || in.KeyId != nil) {
		return nil, invalid("Grant token OR (grant ID, key ID) must be specified")
	}
	if byToken {
		if g := c.grantOfToken(*in.GrantToken); g != nil {
			return g, nil
		}
		return nil, invalidGrantToken()
	}
	n, err := c.parseKeyName(*in.KeyId)
	if err != nil {
		return nil, err
	}
	if n.account == c.caller.Account {
		k, err := c.findKey("RetireGrant", in.KeyId)
		if err != nil {
			return nil, err
		}
		return c.grantOf(k.ref(), *in.GrantId)
	}
	g, err := c.grantOf(newKeyRef(n.account, n.region, n.id), *in.GrantId)
	if err != nil { // without telling what another account has
		return nil, c.denied("RetireGrant", n)
	}
	return g, nil
}

// mayRetire reports whether the caller may retire a grant: as its retiring
// principal, as its grantee if it says so, or as the account that owns the key,
// of which every identity counts, since no IAM policy is asked.
func (c *Client) mayRetire(g *grant) bool {
	if g.Account == c.caller.Account || g.Retiring != "" && c.caller.is(g.Retiring) {
		return true
	}
	return g.Grantee != "" && c.caller.is(g.Grantee) && slices.Contains(g.Operations, types.GrantOperationRetireGrant)
}

// grantOf returns a grant of a key.
func (c *Client) grantOf(k keyRef, id string) (*grant, error) {
	id, err := parseGrantID(id)
	if err != nil {
		return nil, err
	}
	g := c.engine.state.grant(id, c.engine.now())
	if g == nil || g.target() != k {
		return nil, notFound("Grant ID %s not found", id)
	}
	return g, nil
}

func parseGrantID(id string) (string, error) {
	if len(id) != grantDigits || !isHex(id) {
		return "", &types.InvalidGrantIdException{Message: message("Invalid grant ID %s", []any{quote(id)})}
	}
	return strings.ToLower(id), nil
}
