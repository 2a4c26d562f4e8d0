package engine

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

// The number of aliases of a key is not bounded: AWS's quota of 50 is one that
// customers have raised, and here nobody could.

func (c *Client) createAlias(ctx context.Context, in *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	const op = "CreateAlias"
	err := c.moveAlias(ctx, op, in.AliasName, in.TargetKeyId, func(old *alias, target *key) (*alias, error) {
		now := c.engine.now()
		a := &alias{Account: target.Account, Region: target.Region, Name: *in.AliasName, KeyID: target.ID, Created: now, Updated: now}
		if old != nil {
			return nil, &types.AlreadyExistsException{Message: message("An alias with the name %s already exists", []any{a.arn()})}
		}
		return a, nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.CreateAliasOutput{}, nil
}

func (c *Client) updateAlias(ctx context.Context, in *kms.UpdateAliasInput) (*kms.UpdateAliasOutput, error) {
	const op = "UpdateAlias"
	err := c.moveAlias(ctx, op, in.AliasName, in.TargetKeyId, func(old *alias, target *key) (*alias, error) {
		if old == nil {
			return nil, c.noAlias(*in.AliasName)
		}
		if err := c.interchangeable(old, target); err != nil {
			return nil, err
		}
		a := *old
		a.KeyID, a.Updated = target.ID, c.engine.now()
		return &a, nil
	})
	if err != nil {
		return nil, err
	}
	return &kms.UpdateAliasOutput{}, nil
}

func (c *Client) deleteAlias(ctx context.Context, in *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	name := aws.ToString(in.AliasName)
	if err := checkAliasName(name); err != nil {
		return nil, err
	}
	a, unlock, err := c.lockAlias(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if a == nil {
		return nil, c.noAlias(name)
	}
	b := new(batch)
	b.dropAlias(a)
	if err := c.engine.commit(ctx, b); err != nil {
		return nil, err
	}
	return &kms.DeleteAliasOutput{}, nil
}

// moveAlias commits the alias that move returns. move gets the alias of this name
// as it is, nil if there is none, and the key that it is to name; neither can be
// changed or deleted meanwhile.
func (c *Client) moveAlias(ctx context.Context, op string, name, targetID *string, move func(*alias, *key) (*alias, error)) error {
	if err := checkAliasName(aws.ToString(name)); err != nil {
		return err
	}
	target, err := c.findTarget(op, targetID)
	if err != nil {
		return err
	}
	old, unlock, err := c.lockAlias(ctx, *name, target.family())
	if err != nil {
		return err
	}
	defer unlock()
	if target, err = c.findTarget(op, targetID); err != nil { // as it is now
		return err
	}
	if err := c.permitted(op, target); err != nil {
		return err
	}
	a, err := move(old, target)
	if err != nil {
		return err
	}
	b := new(batch)
	b.putAlias(a)
	return c.engine.commit(ctx, b)
}

// findTarget returns the key that an alias is to name.
func (c *Client) findTarget(op string, targetID *string) (*key, error) {
	n, err := c.parseKeyName(aws.ToString(targetID))
	if err != nil {
		return nil, err
	}
	if n.alias != "" {
		return nil, invalid("Aliases must refer to keys. Not aliases")
	}
	return c.findNamed(op, n)
}

// lockAlias locks a name, together with other locks, and returns the alias that
// has it, or nil. The key that the alias names is locked as well, since the
// aliases of a key go with it.
func (c *Client) lockAlias(ctx context.Context, name string, others ...string) (a *alias, unlock func(), err error) {
	s, ref := c.engine.state, "alias/"+aliasRef(c.caller.Account, c.region, name)
	for {
		before := s.alias(c.caller.Account, c.region, name)
		locks := append([]string{ref}, others...)
		if before != nil {
			locks = append(locks, familyOf(before.Account, before.KeyID))
		}
		if unlock, err = c.engine.locks.lock(ctx, locks...); err != nil {
			return nil, nil, err
		}
		now := s.alias(c.caller.Account, c.region, name)
		if now == nil || before != nil && now.KeyID == before.KeyID {
			return c.alias(name), unlock, nil
		}
		unlock() // it names another key by now
	}
}

// alias returns the caller's alias of a name, or nil. The aliases of a key whose
// time has come are gone with it.
func (c *Client) alias(name string) *alias {
	a := c.engine.state.alias(c.caller.Account, c.region, name)
	if a == nil || c.engine.state.key(a.target(), c.engine.now()) == nil {
		return nil
	}
	return a
}

func (c *Client) noAlias(name string) error {
	return notFound("Alias %s is not found.", resourceARN(c.caller.Account, c.region, name))
}

// checkAliasName checks the form of an alias name; its length and most of its
// characters are checked with the rest of the input.
func checkAliasName(name string) error {
	switch {
	case !strings.HasPrefix(name, aliasPrefix):
		return invalid(`Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`)
	case strings.HasPrefix(name, reservedAliasPrefix):
		// AWS KMS gives no reason: the prefix is for the aliases of AWS managed keys.
		return &smithy.GenericAPIError{Code: "NotAuthorizedException", Fault: smithy.FaultClient}
	case name == aliasPrefix || strings.Contains(name, ":"):
		return &types.InvalidAliasNameException{Message: message("%s contains invalid characters for an alias", []any{quote(name)})}
	}
	return nil
}

// interchangeable returns an error unless who uses an alias can use another key
// in the place of the present one.
func (c *Client) interchangeable(a *alias, target *key) error {
	present := c.engine.state.key(a.target(), c.engine.now())
	if present == nil {
		return c.noAlias(a.Name)
	}
	if present.kind() != target.kind() || present.Usage != target.Usage {
		return invalid("The alias %s cannot be changed from a key with KeySpec %s and KeyUsage %s to one with KeySpec %s and KeyUsage %s: "+
			"both must be symmetric, asymmetric or HMAC keys, of the same key usage.", a.arn(), present.Spec, present.Usage, target.Spec, target.Usage)
	}
	return nil
}

// The kinds of keys that are used in one way.
type keyKind int

const (
	kindSymmetric keyKind = iota
	kindAsymmetric
	kindHMAC
)

func (k *key) kind() keyKind {
	sp, _ := specOf(k.Spec)
	switch {
	case sp.isSymmetric():
		return kindSymmetric
	case sp.isPair():
		return kindAsymmetric
	}
	return kindHMAC
}
