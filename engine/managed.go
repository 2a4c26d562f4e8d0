package engine

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/google/uuid"
	"github.com/tidwall/btree"

	"github.com/hyok-kms/hyok/engine/policy"
)

// Accounts have predefined aliases, alias/aws/SERVICE, for the AWS managed keys by
// which services protect what no other key is named for. As at AWS KMS, such an
// alias names no key until somebody describes it. The key is then its account's in
// its Region for good: it rotates every year, and its policy lets the account look
// at it and use it through the service, but not manage it.

// serviceOf returns the service that an alias is predefined for.
func serviceOf(alias string) (service policy.Service, ok bool) {
	name, predefined := strings.CutPrefix(alias, reservedAliasPrefix)
	if !predefined {
		return service, false
	}
	return policy.ServiceNamed(name)
}

// ensureManaged makes the AWS managed key that a KeyId parameter means by a
// predefined alias, if it was never made.
func (c *Client) ensureManaged(ctx context.Context, keyID *string) error {
	if !c.engine.managedKeys {
		return nil
	}
	n, err := c.parseKeyName(aws.ToString(keyID))
	if err != nil || n.account != c.caller.Account {
		return nil // which is said when the key is looked up
	}
	service, ok := serviceOf(n.alias)
	if !ok || c.alias(n.alias) != nil {
		return nil
	}
	present, unlock, err := c.lockAlias(ctx, n.alias)
	if err != nil {
		return err
	}
	defer unlock()
	if present != nil { // by now
		return nil
	}
	return c.makeManaged(ctx, n.alias, service)
}

// makeManaged makes an AWS managed key together with its alias, which is locked.
func (c *Client) makeManaged(ctx context.Context, name string, service policy.Service) error {
	now := c.engine.now()
	k := &key{
		Account: c.caller.Account, Region: c.region, ID: uuid.NewString(), Created: now,
		Spec: types.KeySpecSymmetricDefault, Usage: types.KeyUsageTypeEncryptDecrypt, Origin: types.OriginTypeAwsKms,
		Description: service.Description(), Managed: service.Name, Policy: service.Policy(c.caller.Account, c.region),
		Rotation: rotation{Enabled: true, Period: usualRotationPeriod, Next: now.Add(usualRotationPeriod * day)},
	}
	b := new(batch)
	m, undo, err := c.engine.generate(ctx, k, b)
	if err != nil {
		return err
	}
	k.addFirst(m)
	b.putKey(k)
	b.putAlias(&alias{Account: k.Account, Region: k.Region, Name: name, KeyID: k.ID, Created: now, Updated: now})
	if err := c.engine.commitMaterial(ctx, b, undo); err != nil {
		return err
	}
	c.engine.log.InfoContext(ctx, "an AWS managed key was made", "alias", name, "key", k.arn())
	return nil
}

// lets reports whether the policy of the key, if it is an AWS managed one, has a
// statement for an operation. That it lets services alone use the key is not asked,
// as policies are not evaluated yet; but nobody manages such a key.
func (k *key) lets(op string) bool {
	if k.Managed == "" {
		return true
	}
	service, ok := policy.ServiceNamed(k.Managed)
	return ok && service.Permits(op)
}

// withPredefined returns the aliases with those that are predefined for an account
// in a Region and name no key yet.
func (s *state) withPredefined(account, region string) *btree.Map[string, *alias] {
	s.mu.Lock()
	all := s.aliases.Copy() // copied on write, so at little cost
	s.mu.Unlock()
	for _, service := range policy.Services() {
		a := &alias{Account: account, Region: region, Name: reservedAliasPrefix + service.Name}
		if _, ok := all.Get(a.ref()); !ok {
			all.Set(a.ref(), a)
		}
	}
	return all
}
