package engine

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// stateOf returns the state of a key at a time. It is never stored: what is
// stored is why a key is in it.
func (s *state) stateOf(k *key, now time.Time) types.KeyState {
	switch {
	case k.PendingReplicas:
		return types.KeyStatePendingReplicaDeletion
	case !k.DeleteAt.IsZero():
		return types.KeyStatePendingDeletion
	case now.Before(k.SettlesAt):
		return k.Settling
	case k.isPendingImport(now):
		return types.KeyStatePendingImport
	case k.StoreID != "" && !s.isConnected(k):
		return types.KeyStateUnavailable
	case k.Disabled:
		return types.KeyStateDisabled
	}
	return types.KeyStateEnabled
}

// permits returns the error that an operation on a key in some state gets, by
// the key-state table of the AWS KMS developer guide, or nil. What depends on the
// origin of the key as well is the operation's to check.
func permits(op string, k *key, state types.KeyState) error {
	switch verdict(op, state) {
	case 'd':
		return &types.DisabledException{Message: message("%s is disabled.", []any{k.arn()})}
	case 'p':
		return invalidState("%s is pending deletion.", k.arn())
	case 'r':
		return invalidState("%s is pending replica deletion.", k.arn())
	case 'n':
		return invalidState("%s is not pending deletion.", k.arn())
	case 'i':
		return invalidState("%s is pending import.", k.arn())
	case 'u':
		return unavailable(k)
	case 'c':
		return invalidState("%s is creating.", k.arn())
	case 't':
		return invalidState("%s is updating.", k.arn())
	}
	return nil
}

// verdict looks into the key-state table: '.' permits, other letters refuse, see
// permits.
func verdict(op string, state types.KeyState) byte {
	row := stateRow(op)
	switch state {
	case types.KeyStateEnabled:
		return row[0]
	case types.KeyStateDisabled:
		return row[1]
	case types.KeyStatePendingDeletion:
		return row[2]
	case types.KeyStatePendingReplicaDeletion:
		return row[3]
	case types.KeyStatePendingImport:
		return row[4]
	case types.KeyStateUnavailable:
		return row[5]
	case types.KeyStateCreating:
		return row[6]
	case types.KeyStateUpdating:
		return row[7]
	}
	return '.'
}

// stateRow is the row of an operation in the key-state table. The columns:
// Enabled, Disabled, PendingDeletion, PendingReplicaDeletion, PendingImport,
// Unavailable, Creating, Updating.
func stateRow(op string) string {
	switch op {
	case "CancelKeyDeletion":
		return "nn..nnnn"
	case "CreateAlias", "TagResource", "UntagResource", "UpdateAlias", "UpdateKeyDescription":
		return "..pr...."
	case "CreateGrant":
		return ".dpri.c."
	case "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
		"GenerateDataKeyWithoutPlaintext", "GenerateMac", "ReEncryptFrom", "ReEncryptTo", "Sign", "Verify", "VerifyMac", "DeriveSharedSecret":
		return ".dpriuc."
	case "GetPublicKey": // AWS's table disagrees: its KMS answers for disabled keys
		return "..priuc."
	case "DisableKey", "EnableKey":
		return "..pri.ct"
	case "DisableKeyRotation", "EnableKeyRotation", "RotateKeyOnDemand":
		return ".dpriuc."
	case "GetParametersForImport":
		return "..pr..ct"
	case "ImportKeyMaterial":
		return "..pr..c."
	case "DeleteImportedKeyMaterial":
		return "......ct"
	case "ReplicateKey":
		return ".dpriuct"
	case "UpdatePrimaryRegion":
		return ".dpriuc."
	case "ScheduleKeyDeletion":
		return "..pr...t"
	}
	return "........"
}
