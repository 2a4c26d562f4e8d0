package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/hyok-kms/hyok/keystore"
)

const importLife = 24 * time.Hour // of an import token and its wrapping key

// importToken is what an import token stands for: the wrapping key that
// GetParametersForImport made for one key.
type importToken struct {
	ID        string              `json:"id"` // 64 hexadecimal digits, the hash of the token
	Account   string              `json:"a"`
	Region    string              `json:"r"`
	KeyID     string              `json:"k"`
	Algorithm types.AlgorithmSpec `json:"al"`
	Wrapping  keystore.Material   `json:"w"`
	Expires   time.Time           `json:"e"`
}

func (t *importToken) target() keyRef { return newKeyRef(t.Account, t.Region, t.KeyID) }

// importTokenID is under what an import token is stored: its hash, so that the
// store does not hold what a caller must show.
func importTokenID(token []byte) string {
	sum := sha256.Sum256(token)
	return hex.EncodeToString(sum[:])
}

func (c *Client) getParametersForImport(ctx context.Context, in *kms.GetParametersForImportInput) (*kms.GetParametersForImportOutput, error) {
	const op = "GetParametersForImport"
	k, err := c.findKey(op, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := c.importable(op, k); err != nil {
		return nil, err
	}
	wrapping, err := wrappingSpec(k, in.WrappingAlgorithm, in.WrappingKeySpec)
	if err != nil {
		return nil, err
	}
	ctx, b := Patient(ctx), new(batch)
	made, undo, err := c.engine.makeWrapping(ctx, wrapping, b)
	if err != nil {
		return nil, err
	}
	token := []byte(randomHex(64))
	t := &importToken{
		ID: importTokenID(token), Account: k.Account, Region: k.Region, KeyID: k.ID,
		Algorithm: in.WrappingAlgorithm, Wrapping: made, Expires: c.engine.now().Add(importLife),
	}
	b.putImport(t)
	if err := c.engine.commitMaterial(ctx, b, undo); err != nil {
		return nil, err
	}
	return &kms.GetParametersForImportOutput{
		ImportToken: token, KeyId: aws.String(k.arn()), ParametersValidTo: aws.Time(t.Expires), PublicKey: bytes.Clone(made.Public),
	}, nil
}

// makeWrapping makes the wrapping key of an import token; see generate for what
// it returns.
func (e *Engine) makeWrapping(ctx context.Context, spec keystore.Spec, b *batch) (made keystore.Material, undo func(), err error) {
	if made, undo, err = e.materialOf(ctx, pairKind{spec, keystore.UseDecrypt}, b); err != nil {
		return made, nil, fmt.Errorf("make a wrapping key: %w", err)
	}
	return made, undo, nil
}

// importable returns the error of an operation on imported material with a key
// that has none, or whose state does not permit it.
func (c *Client) importable(op string, k *key) error {
	if k.Origin != types.OriginTypeExternal {
		return wrongOrigin(k)
	}
	return c.permitted(op, k)
}

// wrappingSpec returns the kind of wrapping key to make for a key's material, if
// the algorithm can wrap such material.
func wrappingSpec(k *key, algorithm types.AlgorithmSpec, wrapping types.WrappingKeySpec) (keystore.Spec, error) {
	sp, ok := specOf(types.KeySpec(wrapping))
	if !ok || wrapping == types.WrappingKeySpecSm2 {
		return "", unsupported("WrappingKeySpec %s is not supported.", wrapping)
	}
	if _, err := importAlgorithm(algorithm); err != nil {
		return "", err
	}
	isRSA := strings.HasPrefix(string(k.Spec), "RSA_")
	isECC := strings.HasPrefix(string(k.Spec), "ECC_")
	twoSteps := algorithm == types.AlgorithmSpecRsaAesKeyWrapSha1 || algorithm == types.AlgorithmSpecRsaAesKeyWrapSha256
	switch {
	case twoSteps && !isRSA && !isECC, !twoSteps && isRSA:
		return "", unsupported("The wrapping algorithm %s is not valid for key material of the key spec %s.", algorithm, k.Spec)
	case !twoSteps && k.Spec == types.KeySpecEccNistP521 && wrapping == types.WrappingKeySpecRsa2048:
		return "", unsupported("A wrapping key of the spec RSA_2048 is too short for key material of the key spec %s: use a longer one, or an RSA_AES_KEY_WRAP algorithm.", k.Spec)
	}
	return sp.material, nil
}

func importAlgorithm(a types.AlgorithmSpec) (keystore.ImportAlgorithm, error) {
	switch a {
	case types.AlgorithmSpecRsaesOaepSha1:
		return keystore.ImportOAEPSHA1, nil
	case types.AlgorithmSpecRsaesOaepSha256:
		return keystore.ImportOAEPSHA256, nil
	case types.AlgorithmSpecRsaAesKeyWrapSha1:
		return keystore.ImportKeyWrapSHA1, nil
	case types.AlgorithmSpecRsaAesKeyWrapSha256:
		return keystore.ImportKeyWrapSHA256, nil
	}
	return "", unsupported("The wrapping algorithm %s is not supported.", a)
}

// expireImports removes imported material whose time is over, and import tokens
// that nobody can use any more.
func (e *Engine) expireImports(ctx context.Context) error {
	now := e.now()
	var expired []*importToken
	e.state.mu.RLock()
	for _, t := range e.state.imports {
		if _, there := e.state.keys.Get(string(t.target())); !there || !now.Before(t.Expires) {
			expired = append(expired, t)
		}
	}
	e.state.mu.RUnlock()
	if err := e.dropImports(ctx, expired); err != nil {
		return err
	}
	var due []keyRef
	e.eachKey(func(k *key) bool {
		if k.hasExpired(now) {
			due = append(due, k.ref())
		}
		return true
	})
	for _, ref := range due {
		if err := e.removeExpired(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// dropImports removes import tokens, and their wrapping keys.
func (e *Engine) dropImports(ctx context.Context, tokens []*importToken) error {
	b := new(batch)
	var destroy []func(context.Context) error
	for _, t := range tokens {
		b.dropImport(t)
		named := &key{Account: t.Account, Region: t.Region, ID: t.KeyID} // it may be gone
		destroy = append(destroy, e.destroyAfter(named, b, []keystore.Material{t.Wrapping}, t.Expires))
	}
	if err := e.commit(ctx, b); err != nil {
		return err
	}
	var errs []error
	for _, f := range destroy {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// hasExpired reports whether the key holds imported material that may not be
// used any more.
func (k *key) hasExpired(now time.Time) bool {
	for i := range k.Materials {
		if m := &k.Materials[i]; m.Vault != nil && !m.isThere(now) {
			return true
		}
	}
	return false
}

func (e *Engine) removeExpired(ctx context.Context, ref keyRef) error {
	now := e.now()
	return e.changeKey(ctx, ref, func(k *key, b *batch) (after func(context.Context) error, err error) {
		var gone []keystore.Material
		var due time.Time // the earliest
		for i := range k.Materials {
			if m := &k.Materials[i]; m.Vault != nil && !m.isThere(now) {
				gone = append(gone, *m.Vault)
				m.Vault = nil
				if due.IsZero() || m.ValidTo.Before(due) {
					due = m.ValidTo
				}
			}
		}
		return e.destroyAfter(k, b, gone, due), nil
	})
}

// changeKey changes a key by its reference, if it is still there. after, unless
// nil, is called once the change is durable.
func (e *Engine) changeKey(ctx context.Context, ref keyRef, change func(*key, *batch) (after func(context.Context) error, err error)) error {
	present := e.state.key(ref, e.now())
	if present == nil {
		return nil
	}
	unlock, err := e.locks.lock(ctx, present.family())
	if err != nil {
		return err
	}
	defer unlock()
	if present = e.state.key(ref, e.now()); present == nil {
		return nil
	}
	k, b := present.clone(), new(batch)
	after, err := change(k, b)
	if err != nil {
		return err
	}
	b.putKey(k)
	if err := e.commit(ctx, b); err != nil || after == nil {
		return err
	}
	return after(ctx)
}
