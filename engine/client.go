package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// Client is the KMS as one caller sees it in one Region. It is safe for
// concurrent use. Its methods are those of the official client, with the same
// inputs, outputs and errors; options are accepted and have no effect.
type Client struct {
	engine *Engine
	region string
	caller Caller
}

// Client returns the KMS as a caller sees it in a Region. Any name of a Region
// will do, and costs nothing to set up.
func (e *Engine) Client(region string, caller Caller) *Client {
	return &Client{engine: e, region: region, caller: caller}
}

// Options returns the options that mean something here: the Region.
func (c *Client) Options() kms.Options { return kms.Options{Region: c.region} }

// CancelKeyDeletion is the operation of the AWS KMS API of this name.
func (c *Client) CancelKeyDeletion(ctx context.Context, in *kms.CancelKeyDeletionInput, _ ...func(*kms.Options)) (*kms.CancelKeyDeletionOutput, error) {
	return call(ctx, c, "CancelKeyDeletion", in, c.cancelKeyDeletion)
}

// ConnectCustomKeyStore is the operation of the AWS KMS API of this name.
func (c *Client) ConnectCustomKeyStore(ctx context.Context, in *kms.ConnectCustomKeyStoreInput, _ ...func(*kms.Options)) (*kms.ConnectCustomKeyStoreOutput, error) {
	return call(ctx, c, "ConnectCustomKeyStore", in, c.connectCustomKeyStore)
}

// CreateAlias is the operation of the AWS KMS API of this name.
func (c *Client) CreateAlias(ctx context.Context, in *kms.CreateAliasInput, _ ...func(*kms.Options)) (*kms.CreateAliasOutput, error) {
	return call(ctx, c, "CreateAlias", in, c.createAlias)
}

// CreateCustomKeyStore is the operation of the AWS KMS API of this name.
func (c *Client) CreateCustomKeyStore(ctx context.Context, in *kms.CreateCustomKeyStoreInput, _ ...func(*kms.Options)) (*kms.CreateCustomKeyStoreOutput, error) {
	return call(ctx, c, "CreateCustomKeyStore", in, c.createCustomKeyStore)
}

// CreateGrant is the operation of the AWS KMS API of this name.
func (c *Client) CreateGrant(ctx context.Context, in *kms.CreateGrantInput, _ ...func(*kms.Options)) (*kms.CreateGrantOutput, error) {
	return call(ctx, c, "CreateGrant", in, c.createGrant)
}

// CreateKey is the operation of the AWS KMS API of this name.
func (c *Client) CreateKey(ctx context.Context, in *kms.CreateKeyInput, _ ...func(*kms.Options)) (*kms.CreateKeyOutput, error) {
	return call(ctx, c, "CreateKey", in, c.createKey)
}

// Decapsulate is the operation of the AWS KMS API of this name.
func (c *Client) Decapsulate(ctx context.Context, in *kms.DecapsulateInput, _ ...func(*kms.Options)) (*kms.DecapsulateOutput, error) {
	return call(ctx, c, "Decapsulate", in, c.decapsulate)
}

// Decrypt is the operation of the AWS KMS API of this name.
func (c *Client) Decrypt(ctx context.Context, in *kms.DecryptInput, _ ...func(*kms.Options)) (*kms.DecryptOutput, error) {
	return call(ctx, c, "Decrypt", in, c.decrypt)
}

// DeleteAlias is the operation of the AWS KMS API of this name.
func (c *Client) DeleteAlias(ctx context.Context, in *kms.DeleteAliasInput, _ ...func(*kms.Options)) (*kms.DeleteAliasOutput, error) {
	return call(ctx, c, "DeleteAlias", in, c.deleteAlias)
}

// DeleteCustomKeyStore is the operation of the AWS KMS API of this name.
func (c *Client) DeleteCustomKeyStore(ctx context.Context, in *kms.DeleteCustomKeyStoreInput, _ ...func(*kms.Options)) (*kms.DeleteCustomKeyStoreOutput, error) {
	return call(ctx, c, "DeleteCustomKeyStore", in, c.deleteCustomKeyStore)
}

// DeleteImportedKeyMaterial is the operation of the AWS KMS API of this name.
func (c *Client) DeleteImportedKeyMaterial(ctx context.Context, in *kms.DeleteImportedKeyMaterialInput, _ ...func(*kms.Options)) (*kms.DeleteImportedKeyMaterialOutput, error) {
	return call(ctx, c, "DeleteImportedKeyMaterial", in, c.deleteImportedKeyMaterial)
}

// DeriveSharedSecret is the operation of the AWS KMS API of this name.
func (c *Client) DeriveSharedSecret(ctx context.Context, in *kms.DeriveSharedSecretInput, _ ...func(*kms.Options)) (*kms.DeriveSharedSecretOutput, error) {
	return call(ctx, c, "DeriveSharedSecret", in, c.deriveSharedSecret)
}

// DescribeCustomKeyStores is the operation of the AWS KMS API of this name.
func (c *Client) DescribeCustomKeyStores(ctx context.Context, in *kms.DescribeCustomKeyStoresInput, _ ...func(*kms.Options)) (*kms.DescribeCustomKeyStoresOutput, error) {
	return call(ctx, c, "DescribeCustomKeyStores", in, c.describeCustomKeyStores)
}

// DescribeKey is the operation of the AWS KMS API of this name.
func (c *Client) DescribeKey(ctx context.Context, in *kms.DescribeKeyInput, _ ...func(*kms.Options)) (*kms.DescribeKeyOutput, error) {
	return call(ctx, c, "DescribeKey", in, c.describeKey)
}

// DisableKey is the operation of the AWS KMS API of this name.
func (c *Client) DisableKey(ctx context.Context, in *kms.DisableKeyInput, _ ...func(*kms.Options)) (*kms.DisableKeyOutput, error) {
	return call(ctx, c, "DisableKey", in, c.disableKey)
}

// DisableKeyRotation is the operation of the AWS KMS API of this name.
func (c *Client) DisableKeyRotation(ctx context.Context, in *kms.DisableKeyRotationInput, _ ...func(*kms.Options)) (*kms.DisableKeyRotationOutput, error) {
	return call(ctx, c, "DisableKeyRotation", in, c.disableKeyRotation)
}

// DisconnectCustomKeyStore is the operation of the AWS KMS API of this name.
func (c *Client) DisconnectCustomKeyStore(ctx context.Context, in *kms.DisconnectCustomKeyStoreInput, _ ...func(*kms.Options)) (*kms.DisconnectCustomKeyStoreOutput, error) {
	return call(ctx, c, "DisconnectCustomKeyStore", in, c.disconnectCustomKeyStore)
}

// EnableKey is the operation of the AWS KMS API of this name.
func (c *Client) EnableKey(ctx context.Context, in *kms.EnableKeyInput, _ ...func(*kms.Options)) (*kms.EnableKeyOutput, error) {
	return call(ctx, c, "EnableKey", in, c.enableKey)
}

// EnableKeyRotation is the operation of the AWS KMS API of this name.
func (c *Client) EnableKeyRotation(ctx context.Context, in *kms.EnableKeyRotationInput, _ ...func(*kms.Options)) (*kms.EnableKeyRotationOutput, error) {
	return call(ctx, c, "EnableKeyRotation", in, c.enableKeyRotation)
}

// Encapsulate is the operation of the AWS KMS API of this name.
func (c *Client) Encapsulate(ctx context.Context, in *kms.EncapsulateInput, _ ...func(*kms.Options)) (*kms.EncapsulateOutput, error) {
	return call(ctx, c, "Encapsulate", in, c.encapsulate)
}

// Encrypt is the operation of the AWS KMS API of this name.
func (c *Client) Encrypt(ctx context.Context, in *kms.EncryptInput, _ ...func(*kms.Options)) (*kms.EncryptOutput, error) {
	return call(ctx, c, "Encrypt", in, c.encrypt)
}

// GenerateDataKey is the operation of the AWS KMS API of this name.
func (c *Client) GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, _ ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error) {
	return call(ctx, c, "GenerateDataKey", in, c.generateDataKey)
}

// GenerateDataKeyPair is the operation of the AWS KMS API of this name.
func (c *Client) GenerateDataKeyPair(ctx context.Context, in *kms.GenerateDataKeyPairInput, _ ...func(*kms.Options)) (*kms.GenerateDataKeyPairOutput, error) {
	return call(ctx, c, "GenerateDataKeyPair", in, c.generateDataKeyPair)
}

// GenerateDataKeyPairWithoutPlaintext is the operation of the AWS KMS API of this name.
func (c *Client) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, in *kms.GenerateDataKeyPairWithoutPlaintextInput, _ ...func(*kms.Options)) (*kms.GenerateDataKeyPairWithoutPlaintextOutput, error) {
	return call(ctx, c, "GenerateDataKeyPairWithoutPlaintext", in, c.generateDataKeyPairWithoutPlaintext)
}

// GenerateDataKeyWithoutPlaintext is the operation of the AWS KMS API of this name.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, in *kms.GenerateDataKeyWithoutPlaintextInput, _ ...func(*kms.Options)) (*kms.GenerateDataKeyWithoutPlaintextOutput, error) {
	return call(ctx, c, "GenerateDataKeyWithoutPlaintext", in, c.generateDataKeyWithoutPlaintext)
}

// GenerateMac is the operation of the AWS KMS API of this name.
func (c *Client) GenerateMac(ctx context.Context, in *kms.GenerateMacInput, _ ...func(*kms.Options)) (*kms.GenerateMacOutput, error) {
	return call(ctx, c, "GenerateMac", in, c.generateMac)
}

// GenerateRandom is the operation of the AWS KMS API of this name.
func (c *Client) GenerateRandom(ctx context.Context, in *kms.GenerateRandomInput, _ ...func(*kms.Options)) (*kms.GenerateRandomOutput, error) {
	return call(ctx, c, "GenerateRandom", in, c.generateRandom)
}

// GetKeyLastUsage is the operation of the AWS KMS API of this name.
func (c *Client) GetKeyLastUsage(ctx context.Context, in *kms.GetKeyLastUsageInput, _ ...func(*kms.Options)) (*kms.GetKeyLastUsageOutput, error) {
	return call(ctx, c, "GetKeyLastUsage", in, c.getKeyLastUsage)
}

// GetKeyPolicy is the operation of the AWS KMS API of this name.
func (c *Client) GetKeyPolicy(ctx context.Context, in *kms.GetKeyPolicyInput, _ ...func(*kms.Options)) (*kms.GetKeyPolicyOutput, error) {
	return call(ctx, c, "GetKeyPolicy", in, c.getKeyPolicy)
}

// GetKeyRotationStatus is the operation of the AWS KMS API of this name.
func (c *Client) GetKeyRotationStatus(ctx context.Context, in *kms.GetKeyRotationStatusInput, _ ...func(*kms.Options)) (*kms.GetKeyRotationStatusOutput, error) {
	return call(ctx, c, "GetKeyRotationStatus", in, c.getKeyRotationStatus)
}

// GetParametersForImport is the operation of the AWS KMS API of this name.
func (c *Client) GetParametersForImport(ctx context.Context, in *kms.GetParametersForImportInput, _ ...func(*kms.Options)) (*kms.GetParametersForImportOutput, error) {
	return call(ctx, c, "GetParametersForImport", in, c.getParametersForImport)
}

// GetPublicKey is the operation of the AWS KMS API of this name.
func (c *Client) GetPublicKey(ctx context.Context, in *kms.GetPublicKeyInput, _ ...func(*kms.Options)) (*kms.GetPublicKeyOutput, error) {
	return call(ctx, c, "GetPublicKey", in, c.getPublicKey)
}

// ImportKeyMaterial is the operation of the AWS KMS API of this name.
func (c *Client) ImportKeyMaterial(ctx context.Context, in *kms.ImportKeyMaterialInput, _ ...func(*kms.Options)) (*kms.ImportKeyMaterialOutput, error) {
	return call(ctx, c, "ImportKeyMaterial", in, c.importKeyMaterial)
}

// ListAliases is the operation of the AWS KMS API of this name.
func (c *Client) ListAliases(ctx context.Context, in *kms.ListAliasesInput, _ ...func(*kms.Options)) (*kms.ListAliasesOutput, error) {
	return call(ctx, c, "ListAliases", in, c.listAliases)
}

// ListGrants is the operation of the AWS KMS API of this name.
func (c *Client) ListGrants(ctx context.Context, in *kms.ListGrantsInput, _ ...func(*kms.Options)) (*kms.ListGrantsOutput, error) {
	return call(ctx, c, "ListGrants", in, c.listGrants)
}

// ListKeyPolicies is the operation of the AWS KMS API of this name.
func (c *Client) ListKeyPolicies(ctx context.Context, in *kms.ListKeyPoliciesInput, _ ...func(*kms.Options)) (*kms.ListKeyPoliciesOutput, error) {
	return call(ctx, c, "ListKeyPolicies", in, c.listKeyPolicies)
}

// ListKeyRotations is the operation of the AWS KMS API of this name.
func (c *Client) ListKeyRotations(ctx context.Context, in *kms.ListKeyRotationsInput, _ ...func(*kms.Options)) (*kms.ListKeyRotationsOutput, error) {
	return call(ctx, c, "ListKeyRotations", in, c.listKeyRotations)
}

// ListKeys is the operation of the AWS KMS API of this name.
func (c *Client) ListKeys(ctx context.Context, in *kms.ListKeysInput, _ ...func(*kms.Options)) (*kms.ListKeysOutput, error) {
	return call(ctx, c, "ListKeys", in, c.listKeys)
}

// ListResourceTags is the operation of the AWS KMS API of this name.
func (c *Client) ListResourceTags(ctx context.Context, in *kms.ListResourceTagsInput, _ ...func(*kms.Options)) (*kms.ListResourceTagsOutput, error) {
	return call(ctx, c, "ListResourceTags", in, c.listResourceTags)
}

// ListRetirableGrants is the operation of the AWS KMS API of this name.
func (c *Client) ListRetirableGrants(ctx context.Context, in *kms.ListRetirableGrantsInput, _ ...func(*kms.Options)) (*kms.ListRetirableGrantsOutput, error) {
	return call(ctx, c, "ListRetirableGrants", in, c.listRetirableGrants)
}

// PutKeyPolicy is the operation of the AWS KMS API of this name.
func (c *Client) PutKeyPolicy(ctx context.Context, in *kms.PutKeyPolicyInput, _ ...func(*kms.Options)) (*kms.PutKeyPolicyOutput, error) {
	return call(ctx, c, "PutKeyPolicy", in, c.putKeyPolicy)
}

// ReEncrypt is the operation of the AWS KMS API of this name.
func (c *Client) ReEncrypt(ctx context.Context, in *kms.ReEncryptInput, _ ...func(*kms.Options)) (*kms.ReEncryptOutput, error) {
	return call(ctx, c, "ReEncrypt", in, c.reEncrypt)
}

// ReplicateKey is the operation of the AWS KMS API of this name.
func (c *Client) ReplicateKey(ctx context.Context, in *kms.ReplicateKeyInput, _ ...func(*kms.Options)) (*kms.ReplicateKeyOutput, error) {
	return call(ctx, c, "ReplicateKey", in, c.replicateKey)
}

// RetireGrant is the operation of the AWS KMS API of this name.
func (c *Client) RetireGrant(ctx context.Context, in *kms.RetireGrantInput, _ ...func(*kms.Options)) (*kms.RetireGrantOutput, error) {
	return call(ctx, c, "RetireGrant", in, c.retireGrant)
}

// RevokeGrant is the operation of the AWS KMS API of this name.
func (c *Client) RevokeGrant(ctx context.Context, in *kms.RevokeGrantInput, _ ...func(*kms.Options)) (*kms.RevokeGrantOutput, error) {
	return call(ctx, c, "RevokeGrant", in, c.revokeGrant)
}

// RotateKeyOnDemand is the operation of the AWS KMS API of this name.
func (c *Client) RotateKeyOnDemand(ctx context.Context, in *kms.RotateKeyOnDemandInput, _ ...func(*kms.Options)) (*kms.RotateKeyOnDemandOutput, error) {
	return call(ctx, c, "RotateKeyOnDemand", in, c.rotateKeyOnDemand)
}

// ScheduleKeyDeletion is the operation of the AWS KMS API of this name.
func (c *Client) ScheduleKeyDeletion(ctx context.Context, in *kms.ScheduleKeyDeletionInput, _ ...func(*kms.Options)) (*kms.ScheduleKeyDeletionOutput, error) {
	return call(ctx, c, "ScheduleKeyDeletion", in, c.scheduleKeyDeletion)
}

// Sign is the operation of the AWS KMS API of this name.
func (c *Client) Sign(ctx context.Context, in *kms.SignInput, _ ...func(*kms.Options)) (*kms.SignOutput, error) {
	return call(ctx, c, "Sign", in, c.sign)
}

// TagResource is the operation of the AWS KMS API of this name.
func (c *Client) TagResource(ctx context.Context, in *kms.TagResourceInput, _ ...func(*kms.Options)) (*kms.TagResourceOutput, error) {
	return call(ctx, c, "TagResource", in, c.tagResource)
}

// UntagResource is the operation of the AWS KMS API of this name.
func (c *Client) UntagResource(ctx context.Context, in *kms.UntagResourceInput, _ ...func(*kms.Options)) (*kms.UntagResourceOutput, error) {
	return call(ctx, c, "UntagResource", in, c.untagResource)
}

// UpdateAlias is the operation of the AWS KMS API of this name.
func (c *Client) UpdateAlias(ctx context.Context, in *kms.UpdateAliasInput, _ ...func(*kms.Options)) (*kms.UpdateAliasOutput, error) {
	return call(ctx, c, "UpdateAlias", in, c.updateAlias)
}

// UpdateCustomKeyStore is the operation of the AWS KMS API of this name.
func (c *Client) UpdateCustomKeyStore(ctx context.Context, in *kms.UpdateCustomKeyStoreInput, _ ...func(*kms.Options)) (*kms.UpdateCustomKeyStoreOutput, error) {
	return call(ctx, c, "UpdateCustomKeyStore", in, c.updateCustomKeyStore)
}

// UpdateKeyDescription is the operation of the AWS KMS API of this name.
func (c *Client) UpdateKeyDescription(ctx context.Context, in *kms.UpdateKeyDescriptionInput, _ ...func(*kms.Options)) (*kms.UpdateKeyDescriptionOutput, error) {
	return call(ctx, c, "UpdateKeyDescription", in, c.updateKeyDescription)
}

// UpdatePrimaryRegion is the operation of the AWS KMS API of this name.
func (c *Client) UpdatePrimaryRegion(ctx context.Context, in *kms.UpdatePrimaryRegionInput, _ ...func(*kms.Options)) (*kms.UpdatePrimaryRegionOutput, error) {
	return call(ctx, c, "UpdatePrimaryRegion", in, c.updatePrimaryRegion)
}

// Verify is the operation of the AWS KMS API of this name.
func (c *Client) Verify(ctx context.Context, in *kms.VerifyInput, _ ...func(*kms.Options)) (*kms.VerifyOutput, error) {
	return call(ctx, c, "Verify", in, c.verify)
}

// VerifyMac is the operation of the AWS KMS API of this name.
func (c *Client) VerifyMac(ctx context.Context, in *kms.VerifyMacInput, _ ...func(*kms.Options)) (*kms.VerifyMacOutput, error) {
	return call(ctx, c, "VerifyMac", in, c.verifyMac)
}
