package constraint

import (
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// structure is the input of an operation, or a structure in one, and the names of
// the members that it must have, with spaces between.
type structure struct {
	value    any
	required string
}

// structures returns all of them. Decrypt and ReEncrypt need their CiphertextBlob,
// which the service model leaves open for a dry run that ignores it.
func structures() []structure {
	return []structure{
		{kms.CancelKeyDeletionInput{}, "KeyId"},
		{kms.ConnectCustomKeyStoreInput{}, "CustomKeyStoreId"},
		{kms.CreateAliasInput{}, "AliasName TargetKeyId"},
		{kms.CreateCustomKeyStoreInput{}, "CustomKeyStoreName"},
		{kms.CreateGrantInput{}, "KeyId Operations"},
		{kms.CreateKeyInput{}, ""},
		{kms.DecapsulateInput{}, "KeyId SharedSecretCiphertextBlob EncapsulationAlgorithm"},
		{kms.DecryptInput{}, "CiphertextBlob"},
		{kms.DeleteAliasInput{}, "AliasName"},
		{kms.DeleteCustomKeyStoreInput{}, "CustomKeyStoreId"},
		{kms.DeleteImportedKeyMaterialInput{}, "KeyId"},
		{kms.DeriveSharedSecretInput{}, "KeyId KeyAgreementAlgorithm PublicKey"},
		{kms.DescribeCustomKeyStoresInput{}, ""},
		{kms.DescribeKeyInput{}, "KeyId"},
		{kms.DisableKeyInput{}, "KeyId"},
		{kms.DisableKeyRotationInput{}, "KeyId"},
		{kms.DisconnectCustomKeyStoreInput{}, "CustomKeyStoreId"},
		{kms.EnableKeyInput{}, "KeyId"},
		{kms.EnableKeyRotationInput{}, "KeyId"},
		{kms.EncapsulateInput{}, "KeyId EncapsulationAlgorithm"},
		{kms.EncryptInput{}, "KeyId Plaintext"},
		{kms.GenerateDataKeyInput{}, "KeyId"},
		{kms.GenerateDataKeyPairInput{}, "KeyId KeyPairSpec"},
		{kms.GenerateDataKeyPairWithoutPlaintextInput{}, "KeyId KeyPairSpec"},
		{kms.GenerateDataKeyWithoutPlaintextInput{}, "KeyId"},
		{kms.GenerateMacInput{}, "Message KeyId MacAlgorithm"},
		{kms.GenerateRandomInput{}, ""},
		{kms.GetKeyLastUsageInput{}, "KeyId"},
		{kms.GetKeyPolicyInput{}, "KeyId"},
		{kms.GetKeyRotationStatusInput{}, "KeyId"},
		{kms.GetParametersForImportInput{}, "KeyId WrappingAlgorithm WrappingKeySpec"},
		{kms.GetPublicKeyInput{}, "KeyId"},
		{kms.ImportKeyMaterialInput{}, "KeyId ImportToken EncryptedKeyMaterial"},
		{kms.ListAliasesInput{}, ""},
		{kms.ListGrantsInput{}, "KeyId"},
		{kms.ListKeyPoliciesInput{}, "KeyId"},
		{kms.ListKeyRotationsInput{}, "KeyId"},
		{kms.ListKeysInput{}, ""},
		{kms.ListResourceTagsInput{}, "KeyId"},
		{kms.ListRetirableGrantsInput{}, ""},
		{kms.PutKeyPolicyInput{}, "KeyId Policy"},
		{kms.ReEncryptInput{}, "CiphertextBlob DestinationKeyId"},
		{kms.ReplicateKeyInput{}, "KeyId ReplicaRegion"},
		{kms.RetireGrantInput{}, ""},
		{kms.RevokeGrantInput{}, "KeyId GrantId"},
		{kms.RotateKeyOnDemandInput{}, "KeyId"},
		{kms.ScheduleKeyDeletionInput{}, "KeyId"},
		{kms.SignInput{}, "KeyId Message SigningAlgorithm"},
		{kms.TagResourceInput{}, "KeyId Tags"},
		{kms.UntagResourceInput{}, "KeyId TagKeys"},
		{kms.UpdateAliasInput{}, "AliasName TargetKeyId"},
		{kms.UpdateCustomKeyStoreInput{}, "CustomKeyStoreId"},
		{kms.UpdateKeyDescriptionInput{}, "KeyId Description"},
		{kms.UpdatePrimaryRegionInput{}, "KeyId PrimaryRegion"},
		{kms.VerifyInput{}, "KeyId Message Signature SigningAlgorithm"},
		{kms.VerifyMacInput{}, "Message KeyId MacAlgorithm Mac"},

		{types.GrantConstraints{}, ""},
		{types.RecipientInfo{}, ""},
		{types.Tag{}, "TagKey TagValue"},
		{types.XksProxyAuthenticationCredentialType{}, "AccessKeyId RawSecretAccessKey"},
	}
}
