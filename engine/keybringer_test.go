package engine_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// bringer brings keys into states.
type bringer struct {
	*fixture
	ctx   context.Context  // of all cells
	ready map[string]*cell // by kind and state: for all calls that do not change the state
	made  int
}

// bring returns a key of a kind in a state: one of its own, or any. Material from
// outside is really imported if it is to be imported again.
func (b *bringer) bring(kind string, state types.KeyState, own, again bool) *cell {
	b.t.Helper()
	name := kind + "/" + string(state)
	switch state {
	case types.KeyStateCreating, types.KeyStateUpdating:
		own = true // for they pass
	}
	if x := b.ready[name]; x != nil && !own {
		return x
	}
	b.made++
	x := &cell{Context: b.ctx, c: b.client(), n: b.made}
	b.create(x, kind, state, own && again)
	b.prepare(x, kind, state)
	b.move(x, kind, state)
	if !own {
		b.ready[name] = x
	}
	return x
}

// create makes an enabled key that can get into the state. One that will be
// pending import has material from outside.
func (b *bringer) create(x *cell, kind string, state types.KeyState, again bool) {
	provide := b.addImported
	if again {
		provide = b.importInto
	}
	in := new(kms.CreateKeyInput)
	switch kind {
	case signer:
		in.KeySpec, in.KeyUsage = types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify
	case agreer:
		in.KeySpec, in.KeyUsage = types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement
	case mac:
		in.KeySpec, in.KeyUsage = types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac
	}
	outside := kind == imported || state == types.KeyStatePendingImport
	if outside {
		in.Origin = types.OriginTypeExternal
	}
	needsReplica := kind == related
	switch state {
	case types.KeyStatePendingReplicaDeletion, types.KeyStateUpdating, types.KeyStateCreating:
		needsReplica = true
	case types.KeyStatePendingDeletion, types.KeyStatePendingImport, types.KeyStateUnavailable:
		needsReplica = false
	}
	in.MultiRegion = aws.Bool(needsReplica)
	x.id = b.key(func(made *kms.CreateKeyInput) { *made = *in }).KeyId
	if outside && (kind == imported || kind == symmetric) {
		provide(x, b.client())
	}
	if needsReplica && state != types.KeyStateCreating {
		b.replicate(x.id, replicaRegion)
		if kind == imported {
			provide(x, b.in(replicaRegion))
		}
	}
}

// prepare makes what operations need while the key is enabled.
func (b *bringer) prepare(x *cell, kind string, state types.KeyState) {
	switch kind {
	case symmetric, related, imported:
		if state != types.KeyStatePendingImport || kind != related {
			x.blob = b.encryptIn(region, x.id)
		}
	case agreer, signer, mac:
		x.blob = make([]byte, 32) // any, where the state refuses
		if state != types.KeyStatePendingImport {
			x.blob = b.asymmetricInput(x, kind)
		}
	}
	if kind != symmetric {
		return
	}
	if state == types.KeyStateCreating || state == types.KeyStateUpdating {
		x.c = b.in(replicaRegion) // where the key will be looked at
	}
	second, err := x.c.CreateKey(x, &kms.CreateKeyInput{})
	b.ok(err)
	x.other, x.alias = second.KeyMetadata.KeyId, fmt.Sprintf("alias/old-%d", x.n)
	_, err = x.c.CreateAlias(x, &kms.CreateAliasInput{AliasName: aws.String(x.alias), TargetKeyId: x.other})
	b.ok(err)
	x.revocable, x.retirable = strings.Repeat("0", 64), strings.Repeat("0", 64)
	if state == types.KeyStateCreating {
		return // it does not exist yet, and takes no grants once it does
	}
	for _, id := range []*string{&x.revocable, &x.retirable} {
		g, err := x.c.CreateGrant(x, newGrant(x.id))
		b.ok(err)
		*id = *g.GrantId
	}
}

// asymmetricInput returns a signature or MAC of the greeting, or the public key
// to agree with.
func (b *bringer) asymmetricInput(x *cell, kind string) []byte {
	b.t.Helper()
	switch kind {
	case signer:
		out, err := x.c.Sign(x, &kms.SignInput{KeyId: x.id, Message: greeting, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
		b.ok(err)
		return out.Signature
	case mac:
		out, err := x.c.GenerateMac(x, &kms.GenerateMacInput{KeyId: x.id, Message: greeting, MacAlgorithm: types.MacAlgorithmSpecHmacSha256})
		b.ok(err)
		return out.Mac
	}
	out, err := x.c.GetPublicKey(x, &kms.GetPublicKeyInput{KeyId: x.id})
	b.ok(err)
	return out.PublicKey
}

// move brings the enabled key into the state.
func (b *bringer) move(x *cell, kind string, state types.KeyState) {
	var err error
	switch state {
	case types.KeyStateDisabled:
		_, err = x.c.DisableKey(x, &kms.DisableKeyInput{KeyId: x.id})
	case types.KeyStatePendingDeletion, types.KeyStatePendingReplicaDeletion:
		_, err = x.c.ScheduleKeyDeletion(x, &kms.ScheduleKeyDeletionInput{KeyId: x.id})
	case types.KeyStatePendingImport:
		_, err = x.c.DeleteImportedKeyMaterial(x, &kms.DeleteImportedKeyMaterialInput{KeyId: x.id})
	case types.KeyStateUnavailable:
		err = b.MakeUnavailable(x, account, region, *x.id)
	case types.KeyStateCreating:
		_, err = b.client().ReplicateKey(x, &kms.ReplicateKeyInput{KeyId: x.id, ReplicaRegion: aws.String(replicaRegion)})
		x.c = b.in(replicaRegion)
	case types.KeyStateUpdating:
		_, err = b.client().UpdatePrimaryRegion(x, &kms.UpdatePrimaryRegionInput{KeyId: x.id, PrimaryRegion: aws.String(replicaRegion)})
		x.c = b.in(replicaRegion)
	}
	b.ok(err)
}

// addImported gives the key material as if it had been imported.
func (b *bringer) addImported(x *cell, c *engine.Client) {
	b.t.Helper()
	x.token, x.text = []byte("any"), []byte("any") // where the state refuses
	_, err := b.AddImported(x, account, *x.id, c.Options().Region)
	b.ok(err)
}

// importInto imports material as a user does: the same into every key, as related
// ones need. It also leaves in x what imports it again.
func (b *bringer) importInto(x *cell, c *engine.Client) {
	b.t.Helper()
	p, err := c.GetParametersForImport(x, parametersInput(x.id))
	b.ok(err)
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	b.ok(err)
	material := sha256.Sum256([]byte(*x.id))
	x.token = p.ImportToken
	x.text, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), material[:], nil)
	b.ok(err)
	_, err = c.ImportKeyMaterial(x, importInput(x.id, x.token, x.text))
	b.ok(err)
}

func parametersInput(id *string) *kms.GetParametersForImportInput {
	return &kms.GetParametersForImportInput{KeyId: id, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048}
}

func importInput(id *string, token, text []byte) *kms.ImportKeyMaterialInput {
	return &kms.ImportKeyMaterialInput{KeyId: id, ImportToken: token, EncryptedKeyMaterial: text, ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire}
}

func newGrant(id *string) *kms.CreateGrantInput {
	const principal = "arn:aws:iam::" + account + ":user/alice"
	return &kms.CreateGrantInput{
		KeyId: id, GranteePrincipal: aws.String(principal), RetiringPrincipal: aws.String(principal), Operations: []types.GrantOperation{types.GrantOperationEncrypt},
	}
}

const rootPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":"kms:*","Resource":"*"}]}`
