package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	mostRotationsOnDemand = 25 // of one key

	// rotatePatience is how long an automatic rotation may take: a token that
	// hangs must not keep the worker from everything else.
	rotatePatience = 10 * time.Second
)

func (c *Client) rotateKeyOnDemand(ctx context.Context, in *kms.RotateKeyOnDemandInput) (*kms.RotateKeyOnDemandOutput, error) {
	family, release, err := c.take(ctx, "RotateKeyOnDemand", in.KeyId, keptHere)
	if err != nil {
		return nil, err
	}
	defer release()
	k := family[0]
	if !k.rotates() {
		return nil, neverRotates()
	}
	if err := requirePrimary(k); err != nil {
		return nil, err
	}
	if k.Rotation.OnDemand >= mostRotationsOnDemand {
		return nil, limitExceeded("The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: %s", k.arn())
	}
	for _, r := range family {
		r.Rotation.OnDemand++
	}
	if k.Origin == types.OriginTypeExternal {
		err = c.engine.rotateToImported(ctx, family)
	} else {
		err = c.engine.rotate(ctx, family, types.RotationTypeOnDemand)
	}
	return &kms.RotateKeyOnDemandOutput{KeyId: aws.String(k.arn())}, err
}

// rotateDue rotates the material of a key whose time for it has come, and of all
// that are related to it.
func (e *Engine) rotateDue(ctx context.Context, k *key) error {
	ctx, cancel := context.WithTimeout(ctx, rotatePatience)
	defer cancel()
	unlock, err := e.locks.lock(ctx, k.family())
	if err != nil {
		return err
	}
	defer unlock()
	now := e.now()
	present := e.state.key(k.ref(), now)
	if present == nil || !present.isRotationDue(now) {
		return nil
	}
	family := e.state.copies(present)
	for _, r := range family {
		// From now rather than from when it was due: a key that was disabled
		// meanwhile rotates at once, and then after whole periods again.
		r.Rotation.Next = now.Add(time.Duration(r.Rotation.Period) * day)
	}
	if err := e.rotate(ctx, family, types.RotationTypeAutomatic); err != nil {
		return fmt.Errorf("rotate %s: %w", k.arn(), err)
	}
	e.log.InfoContext(ctx, "a key was rotated", "key", k.arn(), "material", family[0].Current)
	return nil
}

// isRotationDue reports whether the time of automatic rotation has come. It does
// not come for keys that are disabled or pending deletion, nor for replicas, which
// rotate with their primary.
func (k *key) isRotationDue(now time.Time) bool {
	return k.Rotation.Enabled && !now.Before(k.Rotation.Next) && !k.Disabled && !k.isPendingDeletion() && requirePrimary(k) == nil
}

// rotate makes new material and makes it current in all keys of a family, which
// are changed copies. Earlier material stays, to decrypt.
func (e *Engine) rotate(ctx context.Context, family []*key, how types.RotationType) error {
	b := new(batch)
	m, undo, err := e.generate(ctx, family[0], b)
	if err != nil {
		return err
	}
	m.Since, m.Rotated = e.now(), how
	for _, k := range family {
		k.Materials = append(k.Materials, m)
		k.Current = m.ID
		b.putKey(k)
	}
	return e.commitMaterial(ctx, b, undo)
}

// rotateToImported makes imported material that waits for rotation current in all
// keys of a family, which are changed copies.
func (e *Engine) rotateToImported(ctx context.Context, family []*key) error {
	now := e.now()
	id := nextImported(family, now)
	if id == "" {
		return invalidState("No available key material pending rotation for the key: %s.", family[0].arn())
	}
	for _, k := range family {
		m := k.material(id)
		m.Since, m.Rotated = now, types.RotationTypeOnDemand
		k.Current = id
	}
	return e.commitKeys(ctx, family...)
}

// nextImported returns the id of the first material that waits for rotation and
// is imported into all keys of a family; empty: there is none.
func nextImported(family []*key, now time.Time) string {
	for _, m := range family[0].Materials {
		if m.Since.IsZero() && isImportedEverywhere(m.ID, family, now) {
			return m.ID
		}
	}
	return ""
}

func isImportedEverywhere(id string, family []*key, now time.Time) bool {
	for _, k := range family {
		if m := k.material(id); m == nil || !m.isThere(now) {
			return false
		}
	}
	return true
}
