package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// find returns the key that a KeyId parameter names: key id, key ARN, alias name
// or alias ARN.
func (c *Client) find(op string, keyID *string) (*key, error) {
	n, err := c.parseKeyName(aws.ToString(keyID))
	if err != nil {
		return nil, err
	}
	return c.findNamed(op, n)
}

// findKey is find for the operations that take no alias.
func (c *Client) findKey(op string, keyID *string) (*key, error) {
	n, err := c.parseKeyName(aws.ToString(keyID))
	if err != nil {
		return nil, err
	}
	if n.alias != "" {
		return nil, &types.InvalidArnException{Message: aws.String("Key Aliases are not supported for this operation.")}
	}
	return c.findNamed(op, n)
}

func (c *Client) findNamed(op string, n keyName) (*key, error) {
	if n.account != c.caller.Account {
		return nil, c.denied(op, n)
	}
	ref := newKeyRef(n.account, n.region, n.id)
	if n.alias != "" {
		a := c.engine.state.alias(n.account, n.region, n.alias)
		if a == nil {
			return nil, notFound("Alias %s is not found.", resourceARN(n.account, n.region, n.alias))
		}
		ref, n.id = a.target(), a.KeyID
	}
	k := c.engine.state.key(ref, c.engine.now())
	if k == nil {
		return nil, notFound("Key '%s' does not exist", resourceARN(n.account, n.region, "key/"+n.id))
	}
	if !k.lets(op) {
		return nil, c.denied(op, keyName{account: k.Account, region: k.Region, id: k.ID})
	}
	return k, nil
}

// denied is the answer to who names a key of another account, or wants to manage an
// AWS managed one. Key policies that would allow it are not evaluated.
func (c *Client) denied(op string, n keyName) error {
	resource := "key/" + n.id
	if n.alias != "" {
		resource = n.alias
	}
	arn := resourceARN(n.account, n.region, resource)
	return &smithy.GenericAPIError{
		Code:    codeAccessDenied,
		Message: "User: " + c.caller.ARN + " is not authorized to perform: kms:" + op + " on resource: " + arn + " because no resource-based policy allows the kms:" + op + " action",
		Fault:   smithy.FaultClient,
	}
}

// usable returns the key that a KeyId parameter names if an operation is what the
// key is for and its state permits it. AWS KMS looks at them in this order.
func (c *Client) usable(op string, keyID *string, usage types.KeyUsageType) (*key, error) {
	k, err := c.find(op, keyID)
	if err != nil {
		return nil, err
	}
	if k.Usage != usage {
		return nil, invalidUsage("%s key usage is %s which is not valid for %s.", k.arn(), k.Usage, op)
	}
	return k, c.permitted(op, k)
}

func (c *Client) permitted(op string, k *key) error {
	return permits(op, k, c.engine.state.stateOf(k, c.engine.now()))
}

// edit changes the key that a KeyId parameter names, which may not be an alias:
// change gets a copy of the key as it is when nobody else can change it, and the
// batch that it is committed with. It returns the key as committed.
func (c *Client) edit(ctx context.Context, op string, keyID *string, change func(*key, *batch) error) (k *key, err error) {
	err = c.locked(ctx, op, keyID, func(present *key, b *batch) error {
		k = present.clone()
		if err := change(k, b); err != nil {
			return err
		}
		b.putKey(k)
		return nil
	})
	return k, err
}

// locked commits what do puts into the batch. do gets the key that a KeyId
// parameter names, which may not be an alias, as it is when nobody else can change
// it, if its state permits the operation.
func (c *Client) locked(ctx context.Context, op string, keyID *string, do func(*key, *batch) error) error {
	named, err := c.findKey(op, keyID)
	if err != nil {
		return err
	}
	unlock, err := c.engine.locks.lock(ctx, named.family())
	if err != nil {
		return err
	}
	defer unlock()
	present, err := c.findKey(op, keyID) // as it is now
	if err != nil {
		return err
	}
	if err := c.permitted(op, present); err != nil {
		return err
	}
	b := new(batch)
	if err := do(present, b); err != nil {
		return err
	}
	return c.engine.commit(ctx, b)
}
