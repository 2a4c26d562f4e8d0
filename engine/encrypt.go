package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/keystore"
)

func (c *Client) encrypt(ctx context.Context, in *kms.EncryptInput) (*kms.EncryptOutput, error) {
	k, err := c.usable("Encrypt", in.KeyId, types.KeyUsageTypeEncryptDecrypt)
	if err != nil {
		return nil, err
	}
	algorithm, err := encryptionAlgorithm(k, in.EncryptionAlgorithm)
	if err != nil {
		return nil, err
	}
	if err := c.checkGrantTokens(in.GrantTokens); err != nil {
		return nil, err
	}
	var ciphertext []byte
	if algorithm == types.EncryptionAlgorithmSpecSymmetricDefault {
		ciphertext, err = c.seal(ctx, "Encrypt", k, in.Plaintext, in.EncryptionContext, aws.ToBool(in.DryRun))
	} else {
		ciphertext, err = c.encryptRSA(k, algorithm, in)
	}
	if err != nil {
		return nil, err
	}
	k.noteUse(ctx, types.KeyLastUsageTrackingOperationEncrypt, c.engine.now())
	return &kms.EncryptOutput{CiphertextBlob: ciphertext, EncryptionAlgorithm: algorithm, KeyId: aws.String(k.arn())}, nil
}

func (c *Client) decrypt(ctx context.Context, in *kms.DecryptInput) (*kms.DecryptOutput, error) {
	if in.Recipient != nil {
		return nil, unsupportedRecipient()
	}
	opened, err := c.open(ctx, "Decrypt", sealedInput{
		permission: "Decrypt", ciphertext: in.CiphertextBlob, keyID: in.KeyId, algorithm: in.EncryptionAlgorithm, context: in.EncryptionContext,
		grantTokens: in.GrantTokens, dryRun: aws.ToBool(in.DryRun), modifiers: in.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		clear(opened.plaintext)
		return nil, dryRunSucceeds()
	}
	k := opened.key
	k.noteUse(ctx, types.KeyLastUsageTrackingOperationDecrypt, c.engine.now())
	return &kms.DecryptOutput{
		Plaintext: opened.plaintext, EncryptionAlgorithm: opened.algorithm, KeyId: aws.String(k.arn()), KeyMaterialId: opened.materialID(),
	}, nil
}

// reEncrypt looks at the source first, as AWS KMS does.
func (c *Client) reEncrypt(ctx context.Context, in *kms.ReEncryptInput) (*kms.ReEncryptOutput, error) {
	dryRun := aws.ToBool(in.DryRun)
	opened, err := c.open(ctx, "ReEncrypt", sealedInput{
		permission: "ReEncryptFrom", ciphertext: in.CiphertextBlob, keyID: in.SourceKeyId, algorithm: in.SourceEncryptionAlgorithm, context: in.SourceEncryptionContext,
		grantTokens: in.GrantTokens, dryRun: dryRun, modifiers: in.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	defer clear(opened.plaintext)
	to, err := c.usable("ReEncryptTo", in.DestinationKeyId, types.KeyUsageTypeEncryptDecrypt)
	if err != nil {
		return nil, err
	}
	algorithm, err := encryptionAlgorithm(to, in.DestinationEncryptionAlgorithm)
	if err != nil {
		return nil, err
	}
	var ciphertext []byte
	if algorithm == types.EncryptionAlgorithmSpecSymmetricDefault {
		ciphertext, err = c.seal(ctx, "ReEncrypt", to, opened.plaintext, in.DestinationEncryptionContext, dryRun)
	} else {
		ciphertext, err = c.encryptRSA(to, algorithm, &kms.EncryptInput{
			Plaintext: opened.plaintext, EncryptionContext: in.DestinationEncryptionContext, DryRun: in.DryRun,
		})
	}
	if err != nil {
		return nil, err
	}
	now := c.engine.now()
	opened.key.noteUse(ctx, types.KeyLastUsageTrackingOperationReEncrypt, now)
	to.noteUse(ctx, types.KeyLastUsageTrackingOperationReEncrypt, now)
	return &kms.ReEncryptOutput{
		CiphertextBlob: ciphertext, KeyId: aws.String(to.arn()), SourceKeyId: aws.String(opened.key.arn()),
		SourceEncryptionAlgorithm: opened.algorithm, DestinationEncryptionAlgorithm: algorithm,
		SourceKeyMaterialId: opened.materialID(), DestinationKeyMaterialId: to.currentMaterialID(),
	}, nil
}

// encryptionAlgorithm returns the algorithm that is asked for, if the key, which
// is for encryption, has it.
func encryptionAlgorithm(k *key, asked types.EncryptionAlgorithmSpec) (types.EncryptionAlgorithmSpec, error) {
	if asked == "" {
		asked = types.EncryptionAlgorithmSpecSymmetricDefault
	}
	symmetric := asked == types.EncryptionAlgorithmSpecSymmetricDefault
	if symmetric != (k.Spec == types.KeySpecSymmetricDefault) || asked == types.EncryptionAlgorithmSpecSm2pke {
		return "", invalidUsage("Algorithm %s is incompatible with key spec %s.", asked, k.Spec)
	}
	return asked, nil
}

// seal makes a ciphertext blob under the current material of a symmetric key.
func (c *Client) seal(ctx context.Context, op string, k *key, plaintext []byte, context map[string]string, dryRun bool) ([]byte, error) {
	m := k.current()
	if m == nil {
		return nil, internal("%s has no key material", k.arn())
	}
	if dryRun {
		return nil, dryRunSucceeds()
	}
	v, err := c.engine.vaultOf(k)
	if err != nil {
		return nil, err
	}
	format := byte(formatSingle)
	if k.XksKeyID != "" {
		format = formatDouble
	}
	const overhead = headSize + 1 + 16 + gcmTagSize
	out := appendHead(make([]byte, 0, overhead+len(plaintext)), format, k.ID, m.ID)
	aad := additionalData(out, context)
	sealed, err := v.Encrypt(ctx, m.Vault, plaintext, aad)
	if err != nil {
		return nil, c.materialError(k, err)
	}
	c.engine.noteEncryption(k, m.ID)
	if format == formatSingle {
		return appendSealed(out, sealed), nil
	}
	outer, err := c.sealOuter(ctx, op, k, appendSealed(nil, sealed), aad)
	if err != nil {
		return nil, err
	}
	return outer.appendTo(out), nil
}

// sealedInput is what the operations that decrypt are given.
type sealedInput struct {
	permission  string // as policies, and AWS KMS's errors, name what is done with the key
	ciphertext  []byte
	keyID       *string
	algorithm   types.EncryptionAlgorithmSpec
	context     map[string]string
	grantTokens []string
	dryRun      bool
	modifiers   []types.DryRunModifierType
}

// ignoresCiphertext reports whether only the permission is tried, for which no
// ciphertext is needed.
func (in *sealedInput) ignoresCiphertext() bool {
	return in.dryRun && len(in.modifiers) > 0
}

// opened is a decrypted ciphertext.
type opened struct {
	key       *key
	material  string // KeyMaterialId; empty for asymmetric keys
	plaintext []byte
	algorithm types.EncryptionAlgorithmSpec
}

func (o *opened) materialID() *string {
	if o.material == "" || !o.key.rotates() {
		return nil
	}
	return aws.String(o.material)
}

func (k *key) currentMaterialID() *string {
	if !k.rotates() || k.Current == "" {
		return nil
	}
	return aws.String(k.Current)
}

// open decrypts a blob, or the bare ciphertext of an RSA key; not if it is only to
// be ignored.
func (c *Client) open(ctx context.Context, op string, in sealedInput) (opened, error) {
	if len(in.modifiers) > 0 && !in.dryRun {
		return opened{}, invalid("DryRunModifiers can only be specified when DryRun is true.")
	}
	if err := c.checkGrantTokens(in.grantTokens); err != nil {
		return opened{}, err
	}
	if in.ignoresCiphertext() || in.algorithm != "" && in.algorithm != types.EncryptionAlgorithmSpecSymmetricDefault {
		return c.openNamed(ctx, in)
	}
	p, ok := parseBlob(in.ciphertext)
	if !ok {
		return opened{}, invalidCiphertext()
	}
	k, err := c.keyOfBlob(in.permission, p, in.keyID)
	if err != nil {
		return opened{}, err
	}
	if err := c.permitted(in.permission, k); err != nil {
		return opened{}, err
	}
	o := opened{key: k, material: p.material, algorithm: types.EncryptionAlgorithmSpecSymmetricDefault}
	o.plaintext, err = c.unseal(ctx, op, k, p, in)
	return o, err
}

// openNamed decrypts where the ciphertext cannot tell the key, so KeyId must.
func (c *Client) openNamed(ctx context.Context, in sealedInput) (opened, error) {
	if in.keyID == nil {
		return opened{}, invalid("KeyId is required when the ciphertext does not name its key.")
	}
	k, err := c.usable(in.permission, in.keyID, types.KeyUsageTypeEncryptDecrypt)
	if err != nil {
		return opened{}, err
	}
	algorithm, err := encryptionAlgorithm(k, in.algorithm)
	if err != nil || in.ignoresCiphertext() {
		return opened{key: k, algorithm: algorithm}, err
	}
	plaintext, err := c.decryptRSA(ctx, k, algorithm, in)
	return opened{key: k, plaintext: plaintext, algorithm: algorithm}, err
}

// keyOfBlob returns the key that a blob names. KeyId, if given, must name the
// same: any other key, of whatever kind and state, is an incorrect one.
func (c *Client) keyOfBlob(op string, p blob, keyID *string) (*key, error) {
	if keyID != nil {
		k, err := c.find(op, keyID)
		if err != nil {
			return nil, err
		}
		if k.ID != p.keyID {
			return nil, &types.IncorrectKeyException{Message: aws.String("The key ID in the request does not identify a CMK that can perform this operation.")}
		}
		return k, nil
	}
	// Nothing tells a key that was never here, or was deleted, from one in another
	// account or Region. The ciphertext is whole, as far as anybody here can tell.
	k := c.engine.state.key(newKeyRef(c.caller.Account, c.region, p.keyID), c.engine.now())
	if k == nil {
		return nil, &smithy.GenericAPIError{
			Code:    codeAccessDenied,
			Message: "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.",
			Fault:   smithy.FaultClient,
		}
	}
	return k, nil
}

// unseal opens a blob with the material that it names.
func (c *Client) unseal(ctx context.Context, op string, k *key, p blob, in sealedInput) ([]byte, error) {
	m := k.material(p.material)
	if m == nil || (p.format == formatDouble) != (k.XksKeyID != "") {
		return nil, invalidCiphertext()
	}
	if !m.isThere(c.engine.now()) {
		return nil, invalidState("%s is pending import.", k.arn())
	}
	v, err := c.engine.vaultOf(k)
	if err != nil {
		return nil, err
	}
	aad := additionalData(in.ciphertext[:headSize:headSize], in.context)
	body := p.body
	if p.format == formatDouble {
		if body, err = c.openOuter(ctx, op, k, body, aad); err != nil {
			return nil, err
		}
	}
	sealed, ok := parseSealed(body)
	if !ok {
		return nil, c.materialError(k, keystore.ErrInvalidCiphertext)
	}
	plaintext, err := v.Decrypt(ctx, m.Vault, sealed, aad)
	if err != nil {
		return nil, c.materialError(k, err)
	}
	return plaintext, nil
}

func dryRunSucceeds() error {
	return &types.DryRunOperationException{Message: aws.String("The request would have succeeded, but the DryRun option is set.")}
}

func unsupportedRecipient() error {
	return unsupported("Recipient is not supported: no AWS Nitro enclave can be attested here.")
}
