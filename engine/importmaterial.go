package engine

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/google/uuid"

	"github.com/hyok-kms/hyok/keystore"
)

const maxValidity = 365 * 24 * time.Hour // of imported material

func (c *Client) importKeyMaterial(ctx context.Context, in *kms.ImportKeyMaterialInput) (*kms.ImportKeyMaterialOutput, error) {
	const op = "ImportKeyMaterial"
	e := c.engine
	named, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := c.checkImport(named, in); err != nil {
		return nil, err
	}
	unlock, err := e.locks.lock(ctx, named.family())
	if err != nil {
		return nil, err
	}
	defer unlock()
	present, err := c.findKey(op, in.KeyId) // as it is now
	if err != nil {
		return nil, err
	}
	if err := c.importable(op, present); err != nil {
		return nil, err
	}
	token, err := e.importTokenFor(present, in.ImportToken)
	if err != nil {
		return nil, err
	}
	k, b := present.clone(), new(batch)
	made, undo, err := e.importInto(ctx, k, b, token, in.EncryptedKeyMaterial)
	if err != nil {
		return nil, err
	}
	id, gone, err := c.place(ctx, k, in, made)
	if err != nil {
		undo()
		return nil, err
	}
	after := e.destroyAfter(k, b, gone, time.Time{})
	b.putKey(k)
	if err := e.commitMaterial(ctx, b, undo); err != nil {
		return nil, err
	}
	if err := after(ctx); err != nil {
		// The import is done; the worker tries again to destroy what it replaced.
		e.log.ErrorContext(ctx, "replaced key material could not be destroyed yet", "key", k.ID, "error", err)
	}
	out := &kms.ImportKeyMaterialOutput{KeyId: aws.String(k.arn())}
	if k.rotates() {
		out.KeyMaterialId = aws.String(id)
	}
	return out, nil
}

// checkImport refuses parameters that do not go together.
func (c *Client) checkImport(k *key, in *kms.ImportKeyMaterialInput) error {
	if k.Origin != types.OriginTypeExternal {
		return wrongOrigin(k)
	}
	now := c.engine.now()
	expires := in.ExpirationModel != types.ExpirationModelTypeKeyMaterialDoesNotExpire
	switch {
	case expires && in.ValidTo == nil:
		return invalid("A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES")
	case !expires && in.ValidTo != nil:
		return invalid("ValidTo is not valid when ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE.")
	case expires && !in.ValidTo.After(now):
		return invalid("ValidTo must be in the future.")
	case expires && in.ValidTo.Sub(now) > maxValidity:
		return invalid("ValidTo must be at most 365 days from now.")
	case k.Spec != types.KeySpecSymmetricDefault && (in.ImportType != "" || in.KeyMaterialId != nil || in.KeyMaterialDescription != nil):
		return invalid("ImportType, KeyMaterialId and KeyMaterialDescription are valid only for symmetric encryption keys.")
	case in.ImportType == types.ImportTypeNewKeyMaterial && in.KeyMaterialId != nil:
		return invalid("KeyMaterialId is not valid when ImportType is NEW_KEY_MATERIAL.")
	}
	return nil
}

// importTokenFor returns what an import token stands for, if it is one for the
// key.
func (e *Engine) importTokenFor(k *key, token []byte) (*importToken, error) {
	e.state.mu.RLock()
	t := e.state.imports[importTokenID(token)]
	e.state.mu.RUnlock()
	switch {
	case t == nil || t.target() != k.ref():
		return nil, &types.InvalidImportTokenException{}
	case !e.now().Before(t.Expires):
		return nil, &types.ExpiredImportTokenException{}
	}
	return t, nil
}

// importInto brings encrypted material into the token for a key; see generate for
// what it returns.
func (e *Engine) importInto(ctx context.Context, k *key, b *batch, t *importToken, encrypted []byte) (made keystore.Material, undo func(), err error) {
	sp, _ := specOf(k.Spec)
	algorithm, err := importAlgorithm(t.Algorithm)
	if err != nil {
		return made, nil, err
	}
	i := intent{Material: uuid.NewString(), Spec: sp.material}
	if undo, err = e.intendMain(ctx, i, b); err != nil {
		return made, nil, err
	}
	made, err = e.vault.ImportEncrypted(ctx, i.Material, sp.material, t.Wrapping, algorithm, encrypted, usesOf(k)...)
	if err != nil {
		undo()
	}
	var wrong *keystore.MaterialError
	switch {
	case errors.As(err, &wrong):
		return made, nil, incorrectMaterial("The key material cannot be that of a key of the key spec %s: %s.", k.Spec, wrong.Reason)
	case errors.Is(err, keystore.ErrInvalidCiphertext):
		return made, nil, &types.InvalidCiphertextException{Message: message(undecryptable, nil)}
	case err != nil:
		return made, nil, fmt.Errorf("import key material: %w", err)
	}
	e.noteWrap(b, &made)
	return made, undo, nil
}

// undecryptable says the same of all that does not decrypt: why not is of use to
// guess at what does.
const undecryptable = "The key material could not be decrypted with the wrapping key and the wrapping algorithm of the import token."

// place makes imported material part of the key: as its first, as one that it had
// before, or as one to rotate to. It returns the material that it replaces.
func (c *Client) place(ctx context.Context, k *key, in *kms.ImportKeyMaterialInput, made keystore.Material) (id string, gone []keystore.Material, err error) {
	id, err = c.engine.importedID(ctx, k.ID, made)
	if err != nil {
		return "", nil, err
	}
	made.Digest = nil // in the database it would tell who reads it whether a guess at the material is right
	c.adoptFromPrimary(k)
	m := k.material(id)
	switch {
	case c.expectsNew(k, in.ImportType):
		if m != nil {
			return "", nil, incorrectMaterial("The key material is associated with %s already.", k.arn())
		}
		if m, err = c.addImported(k, id); err != nil {
			return "", nil, err
		}
	case m == nil:
		return "", nil, incorrectMaterial("The key material is not one that was imported into %s before.", k.arn())
	}
	if in.KeyMaterialId != nil && *in.KeyMaterialId != id {
		return "", nil, incorrectMaterial("The key material is not that of the KeyMaterialId in the request.")
	}
	if m.Vault != nil {
		gone = append(gone, *m.Vault)
	}
	m.Vault, m.ValidTo = &made, time.Time{}
	if in.ValidTo != nil {
		m.ValidTo = in.ValidTo.UTC().Truncate(time.Millisecond)
	}
	if in.KeyMaterialDescription != nil {
		m.Description = *in.KeyMaterialDescription
	}
	return id, gone, nil
}

func incorrectMaterial(format string, args ...any) error {
	return &types.IncorrectKeyMaterialException{Message: message(format, args)}
}

// expectsNew reports whether material is imported that the key never had.
func (c *Client) expectsNew(k *key, asked types.ImportType) bool {
	if asked != "" {
		return asked == types.ImportTypeNewKeyMaterial
	}
	return len(k.Materials) == 0
}

// addImported adds a material that the key never had.
func (c *Client) addImported(k *key, id string) (*material, error) {
	now := c.engine.now()
	switch {
	case k.MultiRegion != nil && !k.isPrimary():
		// Related keys have the same material: it is new at the primary key only.
		return nil, incorrectMaterial("The key material must be imported into the primary key in %s first.", k.MultiRegion.Primary)
	case k.Current == "":
		k.addFirst(material{ID: id})
		k.Materials[0].Since = now
		return &k.Materials[0], nil
	case k.Spec != types.KeySpecSymmetricDefault:
		return nil, incorrectMaterial("The key material of %s cannot change: the same must be imported again.", k.arn())
	}
	if waiting := k.pending(); waiting != nil {
		return nil, invalidState("New key material (id: %s) cannot be imported into KMS key %s, because another key material (id: %s) is pending rotation.", id, k.arn(), waiting.ID)
	}
	k.Materials = append(k.Materials, material{ID: id})
	return &k.Materials[len(k.Materials)-1], nil
}

// pending returns the material that the next rotation on demand makes current, or
// nil.
func (k *key) pending() *material {
	i := slices.IndexFunc(k.Materials, func(m material) bool { return m.Since.IsZero() })
	if i < 0 {
		return nil
	}
	return &k.Materials[i]
}

// adoptFromPrimary adds to a replica of a multi-Region key what its primary has
// had imported since, as material that is still to be imported here.
func (c *Client) adoptFromPrimary(k *key) {
	if k.MultiRegion == nil || k.isPrimary() {
		return
	}
	primary := c.engine.state.key(newKeyRef(k.Account, k.MultiRegion.Primary, k.ID), c.engine.now())
	if primary == nil {
		return
	}
	own := k.Materials
	k.Materials, k.Current = nil, primary.Current
	for _, m := range primary.Materials {
		m.Vault, m.ValidTo, m.Description = nil, time.Time{}, ""
		if i := slices.IndexFunc(own, func(o material) bool { return o.ID == m.ID }); i >= 0 {
			m.Vault, m.ValidTo, m.Description = own[i].Vault, own[i].ValidTo, own[i].Description
		}
		k.Materials = append(k.Materials, m)
	}
}

// importedID is the KeyMaterialId of imported material: equal for equal material
// of one key id. It is keyed by the token, so that nobody can try out what the
// material is by an id.
func (e *Engine) importedID(ctx context.Context, keyID string, m keystore.Material) (string, error) {
	text := append([]byte("hyok imported material\x00"+keyID+"\x00"), m.Digest...)
	sum, err := e.vault.MAC(ctx, &e.meta.Digests, crypto.SHA256, text)
	if err != nil {
		return "", fmt.Errorf("compute the id of key material: %w", err)
	}
	return hex.EncodeToString(sum), nil
}

func (c *Client) deleteImportedKeyMaterial(ctx context.Context, in *kms.DeleteImportedKeyMaterialInput) (*kms.DeleteImportedKeyMaterialOutput, error) {
	const op = "DeleteImportedKeyMaterial"
	named, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := c.importable(op, named); err != nil {
		return nil, err
	}
	var deleted string
	err = c.engine.changeKey(ctx, named.ref(), func(k *key, b *batch) (func(context.Context) error, error) {
		if err := c.importable(op, k); err != nil {
			return nil, err
		}
		m, err := k.toDelete(in.KeyMaterialId)
		if err != nil || m == nil {
			return nil, err
		}
		deleted = m.ID
		return c.engine.destroyAfter(k, b, c.giveUp(k, m, b), time.Time{}), nil
	})
	if err != nil {
		return nil, err
	}
	out := &kms.DeleteImportedKeyMaterialOutput{KeyId: aws.String(named.arn())}
	if named.rotates() && deleted != "" {
		out.KeyMaterialId = aws.String(deleted)
	}
	return out, nil
}

// toDelete returns the material that DeleteImportedKeyMaterial means, nil if the
// key has none.
func (k *key) toDelete(id *string) (*material, error) {
	if id == nil {
		return k.current(), nil
	}
	if k.Spec != types.KeySpecSymmetricDefault {
		return nil, invalid("KeyMaterialId is valid only for symmetric encryption keys.")
	}
	m := k.material(*id)
	if m == nil {
		return nil, notFound("Key material %s is not associated with %s.", quote(*id), k.arn())
	}
	return m, nil
}

// giveUp takes material from the key. Material that never was current is
// forgotten as well, at the replicas of a primary key too.
func (c *Client) giveUp(k *key, m *material, b *batch) []keystore.Material {
	var gone []keystore.Material
	if m.Vault != nil {
		gone = append(gone, *m.Vault)
	}
	if !m.Since.IsZero() {
		m.Vault, m.ValidTo = nil, time.Time{}
		return gone
	}
	id := m.ID
	k.forget(id)
	if !k.isPrimary() {
		return gone
	}
	for _, region := range k.MultiRegion.Replicas {
		replica := c.engine.state.key(newKeyRef(k.Account, region, k.ID), c.engine.now())
		if replica == nil {
			continue
		}
		if old := replica.material(id); old != nil {
			if old.Vault != nil {
				gone = append(gone, *old.Vault)
			}
			changed := replica.clone()
			changed.forget(id)
			b.putKey(changed)
		}
	}
	return gone
}

func (k *key) forget(id string) {
	k.Materials = slices.DeleteFunc(k.Materials, func(m material) bool { return m.ID == id })
}
