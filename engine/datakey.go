package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

func (c *Client) generateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput) (*kms.GenerateDataKeyOutput, error) {
	const op = "GenerateDataKey"
	if in.Recipient != nil {
		return nil, unsupportedRecipient()
	}
	d, err := c.dataKey(ctx, op, dataKeyInput{in.KeyId, in.KeySpec, in.NumberOfBytes, in.EncryptionContext, in.GrantTokens, in.DryRun})
	if err != nil {
		return nil, err
	}
	d.key.noteUse(ctx, types.KeyLastUsageTrackingOperationGenerateDataKey, c.engine.now())
	return &kms.GenerateDataKeyOutput{
		CiphertextBlob: d.ciphertext, KeyId: aws.String(d.key.arn()), KeyMaterialId: d.key.currentMaterialID(), Plaintext: d.plaintext,
	}, nil
}

func (c *Client) generateDataKeyWithoutPlaintext(ctx context.Context, in *kms.GenerateDataKeyWithoutPlaintextInput) (*kms.GenerateDataKeyWithoutPlaintextOutput, error) {
	const op = "GenerateDataKeyWithoutPlaintext"
	d, err := c.dataKey(ctx, op, dataKeyInput{in.KeyId, in.KeySpec, in.NumberOfBytes, in.EncryptionContext, in.GrantTokens, in.DryRun})
	if err != nil {
		return nil, err
	}
	clear(d.plaintext)
	d.key.noteUse(ctx, types.KeyLastUsageTrackingOperationGenerateDataKeyWithoutPlaintext, c.engine.now())
	return &kms.GenerateDataKeyWithoutPlaintextOutput{
		CiphertextBlob: d.ciphertext, KeyId: aws.String(d.key.arn()), KeyMaterialId: d.key.currentMaterialID(),
	}, nil
}

type dataKeyInput struct {
	keyID       *string
	spec        types.DataKeySpec
	bytes       *int32
	context     map[string]string
	grantTokens []string
	dryRun      *bool
}

// dataKey is a data key in the clear and under the key that protects it.
type dataKey struct {
	key                   *key
	plaintext, ciphertext []byte
}

func (c *Client) dataKey(ctx context.Context, op string, in dataKeyInput) (d dataKey, err error) {
	size, err := in.size()
	if err != nil {
		return d, err
	}
	if d.key, err = c.protector(op, in.keyID, in.grantTokens); err != nil {
		return d, err
	}
	if aws.ToBool(in.dryRun) {
		return d, dryRunSucceeds()
	}
	if d.plaintext, err = c.engine.token.Random(ctx, size); err != nil {
		return d, err
	}
	if d.ciphertext, err = c.seal(ctx, op, d.key, d.plaintext, in.context, false); err != nil {
		clear(d.plaintext)
	}
	return d, err
}

// size returns the length of the data key in bytes.
func (in *dataKeyInput) size() (int, error) {
	switch {
	case (in.spec == "") == (in.bytes == nil):
		return 0, invalid("Please specify either number of bytes or key spec.")
	case in.bytes != nil:
		return int(*in.bytes), nil
	case in.spec == types.DataKeySpecAes128:
		return 16, nil
	}
	return 32, nil
}

// protector returns the symmetric key that shall protect what an operation
// generates.
func (c *Client) protector(op string, keyID *string, grantTokens []string) (*key, error) {
	k, err := c.usable(op, keyID, types.KeyUsageTypeEncryptDecrypt)
	if err != nil {
		return nil, err
	}
	if k.kind() != kindSymmetric {
		return nil, invalidUsage("You cannot generate a data key with an asymmetric CMK")
	}
	return k, c.checkGrantTokens(grantTokens)
}

func (c *Client) generateDataKeyPair(ctx context.Context, in *kms.GenerateDataKeyPairInput) (*kms.GenerateDataKeyPairOutput, error) {
	const op = "GenerateDataKeyPair"
	if in.Recipient != nil {
		return nil, unsupportedRecipient()
	}
	d, public, err := c.dataKeyPair(ctx, op, in.KeyPairSpec, dataKeyInput{
		keyID: in.KeyId, context: in.EncryptionContext, grantTokens: in.GrantTokens, dryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	d.key.noteUse(ctx, types.KeyLastUsageTrackingOperationGenerateDataKeyPair, c.engine.now())
	return &kms.GenerateDataKeyPairOutput{
		KeyId: aws.String(d.key.arn()), KeyMaterialId: d.key.currentMaterialID(), KeyPairSpec: in.KeyPairSpec,
		PrivateKeyCiphertextBlob: d.ciphertext, PrivateKeyPlaintext: d.plaintext, PublicKey: public,
	}, nil
}

func (c *Client) generateDataKeyPairWithoutPlaintext(ctx context.Context, in *kms.GenerateDataKeyPairWithoutPlaintextInput) (*kms.GenerateDataKeyPairWithoutPlaintextOutput, error) {
	const op = "GenerateDataKeyPairWithoutPlaintext"
	d, public, err := c.dataKeyPair(ctx, op, in.KeyPairSpec, dataKeyInput{
		keyID: in.KeyId, context: in.EncryptionContext, grantTokens: in.GrantTokens, dryRun: in.DryRun,
	})
	if err != nil {
		return nil, err
	}
	clear(d.plaintext)
	d.key.noteUse(ctx, types.KeyLastUsageTrackingOperationGenerateDataKeyPairWithoutPlaintext, c.engine.now())
	return &kms.GenerateDataKeyPairWithoutPlaintextOutput{
		KeyId: aws.String(d.key.arn()), KeyMaterialId: d.key.currentMaterialID(), KeyPairSpec: in.KeyPairSpec,
		PrivateKeyCiphertextBlob: d.ciphertext, PublicKey: public,
	}, nil
}

// dataKeyPair makes a key pair for the caller: the private key, in the clear and
// protected, as PKCS#8 and the public key as SubjectPublicKeyInfo, both in DER.
func (c *Client) dataKeyPair(ctx context.Context, op string, pair types.DataKeyPairSpec, in dataKeyInput) (d dataKey, public []byte, err error) {
	if d.key, err = c.protector(op, in.keyID, in.grantTokens); err != nil {
		return d, nil, err
	}
	if d.key.StoreID != "" {
		return d, nil, unsupported("%s is in a custom key store, which cannot protect data key pairs.", d.key.arn())
	}
	spec, ok := pairSpec(pair)
	if !ok {
		return d, nil, unsupported("KeyPairSpec %s is not supported.", pair)
	}
	if aws.ToBool(in.dryRun) {
		return d, nil, dryRunSucceeds()
	}
	protect := func(private []byte) error {
		d.ciphertext, err = c.seal(ctx, op, d.key, private, in.context, false)
		return err
	}
	if isSlow(spec) {
		ctx = Patient(ctx)
		d.plaintext, public, err = c.engine.ownPair(ctx, spec, protect)
		return d, public, err
	}
	if d.plaintext, public, err = c.engine.vault.GenerateDataKeyPair(ctx, spec); err != nil {
		return d, nil, err
	}
	if err = protect(d.plaintext); err != nil {
		clear(d.plaintext)
	}
	return d, public, err
}

func pairSpec(pair types.DataKeyPairSpec) (keystore.Spec, bool) {
	sp, ok := specOf(types.KeySpec(pair))
	return sp.material, ok && sp.isPair()
}

func (c *Client) generateRandom(ctx context.Context, in *kms.GenerateRandomInput) (*kms.GenerateRandomOutput, error) {
	if in.Recipient != nil {
		return nil, unsupportedRecipient()
	}
	if in.NumberOfBytes == nil {
		return nil, invalid("NumberOfBytes is required.")
	}
	token, err := c.generator(in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	random, err := token.Random(ctx, int(*in.NumberOfBytes))
	if err != nil {
		return nil, err
	}
	return &kms.GenerateRandomOutput{Plaintext: random}, nil
}
