package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/tidwall/btree"
)

// AWS KMS lets only callers that are services ask by service principal. None is
// one here, so the owner of the grants may.

func (c *Client) listGrants(_ context.Context, in *kms.ListGrantsInput) (*kms.ListGrantsOutput, error) {
	const op = "ListGrants"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if in.GranteePrincipal != nil && in.GranteeServicePrincipal != nil {
		return nil, invalid("You can specify either GranteePrincipal or GranteeServicePrincipal, but not both.")
	}
	if in.GranteePrincipal != nil {
		if err := c.checkPrincipal(*in.GranteePrincipal); err != nil {
			return nil, err
		}
	}
	prefix := string(k.ref()) + "/"
	if in.GrantId != nil {
		id, err := parseGrantID(*in.GrantId)
		if err != nil {
			return nil, err
		}
		prefix += id
	}
	p, err := newPage(c, op+"/"+prefix, in.Limit, in.Marker, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &kms.ListGrantsOutput{}
	out.Grants, out.NextMarker, out.Truncated = c.grants(p, &c.engine.state.grants, prefix, func(g *grant) bool {
		return (in.GranteePrincipal == nil || g.Grantee == *in.GranteePrincipal) &&
			(in.GranteeServicePrincipal == nil || g.GranteeService == *in.GranteeServicePrincipal)
	})
	return out, nil
}

func (c *Client) listRetirableGrants(_ context.Context, in *kms.ListRetirableGrantsInput) (*kms.ListRetirableGrantsOutput, error) {
	const op = "ListRetirableGrants"
	if (in.RetiringPrincipal == nil) == (in.RetiringServicePrincipal == nil) {
		return nil, invalid("You must specify either RetiringPrincipal or RetiringServicePrincipal, but not both.")
	}
	principal := aws.ToString(in.RetiringServicePrincipal)
	if in.RetiringPrincipal != nil {
		principal = *in.RetiringPrincipal
	}
	service := in.RetiringPrincipal == nil || isServicePrincipal(principal)
	if !service {
		if err := c.checkOwnPrincipal(op, principal); err != nil {
			return nil, err
		}
	}
	p, err := newPage(c, op+"/"+principal, in.Limit, in.Marker, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &kms.ListRetirableGrantsOutput{}
	out.Grants, out.NextMarker, out.Truncated = c.grants(p, &c.engine.state.retirable, retirablePrefix(c.region, principal), func(g *grant) bool {
		// A principal sees its grants of every account's keys; a service acts for
		// the account that calls.
		return !service || g.Account == c.caller.Account
	})
	return out, nil
}

// checkOwnPrincipal returns an error unless s is a principal of the caller's
// account.
func (c *Client) checkOwnPrincipal(op, s string) error {
	a, err := c.parsePrincipal(s)
	if err != nil {
		return err
	}
	if a.AccountID != c.caller.Account {
		return &smithy.GenericAPIError{
			Code: codeAccessDenied, Message: "User: " + c.caller.ARN + " is not authorized to perform: kms:" + op + " on resource: " + s, Fault: smithy.FaultClient,
		}
	}
	return nil
}

// grants returns a page of those grants below prefix in an index of the state that
// wanted returns true for.
func (c *Client) grants(p page, index *btree.Map[string, *grant], prefix string, wanted func(*grant) bool) (list []types.GrantListEntry, next *string, truncated bool) {
	s, now := c.engine.state, c.engine.now()
	list = []types.GrantListEntry{}
	s.mu.RLock()
	defer s.mu.RUnlock()
	next, truncated = scan(p, index, prefix, func(g *grant) bool {
		if !s.isThere(g.target(), now) || !wanted(g) {
			return false
		}
		list = append(list, g.entry())
		return true
	})
	return list, next, truncated
}
