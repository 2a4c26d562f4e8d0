package engine

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) listKeyRotations(_ context.Context, in *kms.ListKeyRotationsInput) (*kms.ListKeyRotationsOutput, error) {
	const op = "ListKeyRotations"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := keptHere(k); err != nil {
		return nil, err
	}
	if !k.rotates() {
		return nil, neverRotates()
	}
	if err := c.permitted(op, k); err != nil {
		return nil, err
	}
	p, err := newPage(c, op+"/"+k.ID, in.Limit, in.Marker, 100, 1000)
	if err != nil {
		return nil, err
	}
	materials := k.rotations(in.IncludeKeyMaterial == types.IncludeKeyMaterialAllKeyMaterial)
	if p.after != "" {
		i := slices.IndexFunc(materials, func(m *material) bool { return m.ID == p.after })
		if i < 0 { // it waited for rotation, and was deleted
			return nil, &types.InvalidMarkerException{Message: aws.String("The key material of the marker is no longer there.")}
		}
		materials = materials[i+1:]
	}
	out := &kms.ListKeyRotationsOutput{Rotations: []types.RotationsListEntry{}}
	if len(materials) > p.limit {
		materials, out.Truncated = materials[:p.limit], true
		out.NextMarker = p.marker(materials[p.limit-1].ID)
	}
	now := c.engine.now()
	family := append([]*key{k}, c.engine.state.related(k)...)
	for _, m := range materials {
		out.Rotations = append(out.Rotations, rotationEntry(m, family, now))
	}
	return out, nil
}

// rotations returns the materials that rotations made current, in that order, or
// all: also the first, and those that wait for rotation.
func (k *key) rotations(all bool) []*material {
	var list []*material
	for i := range k.Materials {
		if m := &k.Materials[i]; all || m.Rotated != "" {
			list = append(list, m)
		}
	}
	return list
}

// rotationEntry describes material of the first key of a family.
func rotationEntry(m *material, family []*key, now time.Time) types.RotationsListEntry {
	k := family[0]
	entry := types.RotationsListEntry{
		KeyId: aws.String(k.ID), KeyMaterialId: aws.String(m.ID), KeyMaterialState: types.KeyMaterialStateNonCurrent, RotationType: m.Rotated,
	}
	switch {
	case m.ID == k.Current:
		entry.KeyMaterialState = types.KeyMaterialStateCurrent
	case m.Since.IsZero() && isImportedEverywhere(m.ID, family, now):
		entry.KeyMaterialState = types.KeyMaterialStatePendingRotation
	case m.Since.IsZero() && len(family) > 1:
		entry.KeyMaterialState = types.KeyMaterialStatePendingMultiRegionImportAndRotation
	case m.Since.IsZero():
		entry.KeyMaterialState = types.KeyMaterialStatePendingRotation
	}
	if m.Rotated != "" {
		entry.RotationDate = aws.Time(m.Since)
	}
	if k.Origin == types.OriginTypeExternal {
		describeImported(&entry, m, now)
	}
	return entry
}

func describeImported(entry *types.RotationsListEntry, m *material, now time.Time) {
	if m.Description != "" {
		entry.KeyMaterialDescription = aws.String(m.Description)
	}
	entry.ImportState = types.ImportStatePendingImport
	if !m.isThere(now) {
		return
	}
	entry.ImportState = types.ImportStateImported
	entry.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	if !m.ValidTo.IsZero() {
		entry.ExpirationModel = types.ExpirationModelTypeKeyMaterialExpires
		entry.ValidTo = aws.Time(m.ValidTo)
	}
}
