package engine_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
)

// keyStates are the columns of the key-state table.
var keyStates = []types.KeyState{
	types.KeyStateEnabled, types.KeyStateDisabled, types.KeyStatePendingDeletion, types.KeyStatePendingReplicaDeletion,
	types.KeyStatePendingImport, types.KeyStateUnavailable, types.KeyStateCreating, types.KeyStateUpdating,
}

// cellErrors are what a letter of the table stands for: the code of the error, and
// how its message ends. A point permits.
var cellErrors = map[byte][2]string{
	'd': {"DisabledException", " is disabled."},
	'p': {"KMSInvalidStateException", " is pending deletion."},
	'r': {"KMSInvalidStateException", " is pending replica deletion."},
	'n': {"KMSInvalidStateException", " is not pending deletion."},
	'i': {"KMSInvalidStateException", " is pending import."},
	'u': {"KMSInvalidStateException", " is unavailable."},
	'c': {"KMSInvalidStateException", " is creating."},
	't': {"KMSInvalidStateException", " is updating."},
	'x': {"UnsupportedOperationException", ""}, // it is the origin that does not fit
	'f': {"NotFoundException", ""},             // a grant, which the key could not get
}

// cell is a key in some state, and what operations need.
type cell struct {
	context.Context
	c     *engine.Client // of the Region of the key
	id    *string
	n     int     // of the key, for names
	blob  []byte  // from when the key was enabled: a ciphertext, signature, MAC or public key
	token []byte  // for an import
	text  []byte  // key material, encrypted for the import
	other *string // another key
	alias string  // of the other key
	// Ids of two grants.
	revocable, retirable string
}

func (x *cell) arn() *string {
	return aws.String("arn:aws:kms:" + x.c.Options().Region + ":" + account + ":key/" + *x.id)
}

// tableRow is an operation with its row of the key-state table of the AWS KMS
// developer guide: see keyStates and cellErrors.
type tableRow struct {
	op, row string
	kind    string // of key that it needs
	changes bool   // the state, where it permits: then the key can serve for nothing else
	call    func(x *cell) error
}

const (
	symmetric = "symmetric"
	related   = "multi-Region" // symmetric, with a replica
	imported  = "imported"     // symmetric
	signer    = "signing"
	agreer    = "agreement"
	mac       = "MAC"
)

// tableRows are all operations that the key-state table has, and what came after
// it. The order matters where a row changes what the next one needs.
var tableRows = []tableRow{
	{"CreateAlias", "..pr....", symmetric, false, func(x *cell) error {
		_, err := x.c.CreateAlias(x, &kms.CreateAliasInput{AliasName: aws.String(fmt.Sprintf("alias/new-%d", x.n)), TargetKeyId: x.id})
		return err
	}},
	{"CreateGrant", ".dpri.c.", symmetric, false, func(x *cell) error {
		_, err := x.c.CreateGrant(x, newGrant(x.id))
		return err
	}},
	{"Decrypt", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.Decrypt(x, &kms.DecryptInput{CiphertextBlob: x.blob})
		return err
	}},
	{"DeriveSharedSecret", ".dpriuc.", agreer, false, func(x *cell) error {
		_, err := x.c.DeriveSharedSecret(x, &kms.DeriveSharedSecretInput{KeyId: x.id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: x.blob})
		return err
	}},
	{"DescribeKey", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.DescribeKey(x, &kms.DescribeKeyInput{KeyId: x.id})
		return err
	}},
	{"EnableKeyRotation", ".dprxxc.", symmetric, false, func(x *cell) error {
		_, err := x.c.EnableKeyRotation(x, &kms.EnableKeyRotationInput{KeyId: x.id})
		return err
	}},
	{"DisableKeyRotation", ".dprxxc.", symmetric, false, func(x *cell) error {
		_, err := x.c.DisableKeyRotation(x, &kms.DisableKeyRotationInput{KeyId: x.id})
		return err
	}},
	{"Encrypt", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.Encrypt(x, &kms.EncryptInput{KeyId: x.id, Plaintext: greeting})
		return err
	}},
	{"GenerateDataKey", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.GenerateDataKey(x, &kms.GenerateDataKeyInput{KeyId: x.id, KeySpec: types.DataKeySpecAes256})
		return err
	}},
	{"GenerateDataKeyWithoutPlaintext", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.GenerateDataKeyWithoutPlaintext(x, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: x.id, KeySpec: types.DataKeySpecAes256})
		return err
	}},
	{"GenerateDataKeyPair", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.GenerateDataKeyPair(x, &kms.GenerateDataKeyPairInput{KeyId: x.id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		return err
	}},
	{"GenerateDataKeyPairWithoutPlaintext", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.GenerateDataKeyPairWithoutPlaintext(x, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: x.id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		return err
	}},
	{"GenerateMac", ".dpriuc.", mac, false, func(x *cell) error {
		_, err := x.c.GenerateMac(x, &kms.GenerateMacInput{KeyId: x.id, MacAlgorithm: types.MacAlgorithmSpecHmacSha256, Message: greeting})
		return err
	}},
	{"GetKeyLastUsage", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.GetKeyLastUsage(x, &kms.GetKeyLastUsageInput{KeyId: x.id})
		return err
	}},
	{"GetKeyPolicy", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.GetKeyPolicy(x, &kms.GetKeyPolicyInput{KeyId: x.id})
		return err
	}},
	{"GetKeyRotationStatus", ".....x..", symmetric, false, func(x *cell) error {
		_, err := x.c.GetKeyRotationStatus(x, &kms.GetKeyRotationStatusInput{KeyId: x.id})
		return err
	}},
	{"GetParametersForImport", "..pr.xct", imported, false, func(x *cell) error {
		_, err := x.c.GetParametersForImport(x, parametersInput(x.id))
		return err
	}},
	{"GetPublicKey", "..priuc.", signer, false, func(x *cell) error {
		_, err := x.c.GetPublicKey(x, &kms.GetPublicKeyInput{KeyId: x.id})
		return err
	}},
	{"ImportKeyMaterial", "..pr.xc.", imported, true, func(x *cell) error {
		_, err := x.c.ImportKeyMaterial(x, importInput(x.id, x.token, x.text))
		return err
	}},
	{"ListAliases", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.ListAliases(x, &kms.ListAliasesInput{KeyId: x.id})
		return err
	}},
	{"ListGrants", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.ListGrants(x, &kms.ListGrantsInput{KeyId: x.id})
		return err
	}},
	{"ListKeyPolicies", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.ListKeyPolicies(x, &kms.ListKeyPoliciesInput{KeyId: x.id})
		return err
	}},
	{"ListKeyRotations", ".....x..", symmetric, false, func(x *cell) error {
		_, err := x.c.ListKeyRotations(x, &kms.ListKeyRotationsInput{KeyId: x.id})
		return err
	}},
	{"ListResourceTags", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.ListResourceTags(x, &kms.ListResourceTagsInput{KeyId: x.id})
		return err
	}},
	{"PutKeyPolicy", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.PutKeyPolicy(x, &kms.PutKeyPolicyInput{KeyId: x.id, Policy: aws.String(rootPolicy)})
		return err
	}},
	{"ReEncrypt from", ".dpriuc.", symmetric, false, func(x *cell) error {
		_, err := x.c.ReEncrypt(x, &kms.ReEncryptInput{CiphertextBlob: x.blob, DestinationKeyId: x.other})
		return err
	}},
	{"ReEncrypt to", ".dpriuc.", symmetric, false, func(x *cell) error {
		blob, err := x.c.Encrypt(x, &kms.EncryptInput{KeyId: x.other, Plaintext: greeting})
		if err == nil {
			_, err = x.c.ReEncrypt(x, &kms.ReEncryptInput{CiphertextBlob: blob.CiphertextBlob, DestinationKeyId: x.id})
		}
		return err
	}},
	{"RetireGrant", "......f.", symmetric, false, func(x *cell) error {
		_, err := x.c.RetireGrant(x, &kms.RetireGrantInput{KeyId: x.arn(), GrantId: aws.String(x.retirable)})
		return err
	}},
	{"RevokeGrant", "......f.", symmetric, false, func(x *cell) error {
		_, err := x.c.RevokeGrant(x, &kms.RevokeGrantInput{KeyId: x.id, GrantId: aws.String(x.revocable)})
		return err
	}},
	{"RotateKeyOnDemand", ".dprixc.", related, false, func(x *cell) error {
		_, err := x.c.RotateKeyOnDemand(x, &kms.RotateKeyOnDemandInput{KeyId: x.id})
		return err
	}},
	{"Sign", ".dpriuc.", signer, false, func(x *cell) error {
		_, err := x.c.Sign(x, &kms.SignInput{KeyId: x.id, Message: greeting, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
		return err
	}},
	{"TagResource", "..pr....", symmetric, false, func(x *cell) error {
		_, err := x.c.TagResource(x, &kms.TagResourceInput{KeyId: x.id, Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}}})
		return err
	}},
	{"UntagResource", "..pr....", symmetric, false, func(x *cell) error {
		_, err := x.c.UntagResource(x, &kms.UntagResourceInput{KeyId: x.id, TagKeys: []string{"a"}})
		return err
	}},
	{"UpdateAlias", "..pr....", symmetric, false, func(x *cell) error {
		_, err := x.c.UpdateAlias(x, &kms.UpdateAliasInput{AliasName: aws.String(x.alias), TargetKeyId: x.id})
		return err
	}},
	{"UpdateKeyDescription", "..pr....", symmetric, false, func(x *cell) error {
		_, err := x.c.UpdateKeyDescription(x, &kms.UpdateKeyDescriptionInput{KeyId: x.id, Description: aws.String("new")})
		return err
	}},
	{"Verify", ".dpriuc.", signer, false, func(x *cell) error {
		_, err := x.c.Verify(x, &kms.VerifyInput{KeyId: x.id, Message: greeting, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256, Signature: x.blob})
		return err
	}},
	{"VerifyMac", ".dpriuc.", mac, false, func(x *cell) error {
		_, err := x.c.VerifyMac(x, &kms.VerifyMacInput{KeyId: x.id, Message: greeting, MacAlgorithm: types.MacAlgorithmSpecHmacSha256, Mac: x.blob})
		return err
	}},
	{"DeleteAlias", "........", symmetric, false, func(x *cell) error {
		_, err := x.c.DeleteAlias(x, &kms.DeleteAliasInput{AliasName: aws.String(x.alias)})
		return err
	}},
	{"DeleteImportedKeyMaterial", ".....xct", imported, true, func(x *cell) error {
		_, err := x.c.DeleteImportedKeyMaterial(x, &kms.DeleteImportedKeyMaterialInput{KeyId: x.id})
		return err
	}},
	{"CancelKeyDeletion", "nn..nnnn", symmetric, true, func(x *cell) error {
		_, err := x.c.CancelKeyDeletion(x, &kms.CancelKeyDeletionInput{KeyId: x.id})
		return err
	}},
	{"DisableKey", "..pri.ct", symmetric, true, func(x *cell) error {
		_, err := x.c.DisableKey(x, &kms.DisableKeyInput{KeyId: x.id})
		return err
	}},
	{"EnableKey", "..pri.ct", symmetric, true, func(x *cell) error {
		_, err := x.c.EnableKey(x, &kms.EnableKeyInput{KeyId: x.id})
		return err
	}},
	{"ReplicateKey", ".dpriuxt", related, true, func(x *cell) error {
		_, err := x.c.ReplicateKey(x, &kms.ReplicateKeyInput{KeyId: x.id, ReplicaRegion: aws.String("us-east-1")})
		return err
	}},
	{"ScheduleKeyDeletion", "..pr...t", symmetric, true, func(x *cell) error {
		_, err := x.c.ScheduleKeyDeletion(x, &kms.ScheduleKeyDeletionInput{KeyId: x.id})
		return err
	}},
	{"UpdatePrimaryRegion", ".dpriuc.", related, true, func(x *cell) error {
		to := replicaRegion
		if x.c.Options().Region == to {
			to = region
		}
		_, err := x.c.UpdatePrimaryRegion(x, &kms.UpdatePrimaryRegionInput{KeyId: x.id, PrimaryRegion: aws.String(to)})
		return err
	}},
}

// TestKeyStateTable calls every operation that uses a key on a key in every
// state.
func TestKeyStateTable(t *testing.T) {
	f := newEngine(t)
	b := &bringer{fixture: f, ctx: t.Context(), ready: map[string]*cell{}}
	for _, row := range tableRows {
		for i, state := range keyStates {
			f.run(row.op+"/"+string(state), func(t *testing.T) {
				x := b.bring(row.kind, state, row.changes && row.row[i] == '.', row.op == "ImportKeyMaterial")
				f.wantState(x.c.Options().Region, x.id, state)
				checkCell(t, row.row[i], row.call(x), *x.id)
			})
		}
	}
}

// TestKeyStateTableIsComplete compares the rows with the operations that name a
// key.
func TestKeyStateTableIsComplete(t *testing.T) {
	listed := map[string]bool{}
	for _, row := range tableRows {
		op, _, _ := strings.Cut(row.op, " ")
		listed[op] = true
		if len(row.row) != len(keyStates) {
			t.Errorf("the row of %s has %d cells", row.op, len(row.row))
		}
	}
	for _, op := range operationsOnKeys() {
		if !listed[op] {
			t.Errorf("%s names a key and has no row", op)
		}
	}
}

// operationsOnKeys returns the operations whose input names a key.
func operationsOnKeys() []string {
	var ops []string
	api := reflect.TypeFor[engine.API]()
	for i := range api.NumMethod() {
		m := api.Method(i)
		if m.Type.NumIn() < 2 || m.Name == "Encapsulate" || m.Name == "Decapsulate" { // the latter two have no keys here
			continue
		}
		for _, name := range []string{"KeyId", "TargetKeyId", "DestinationKeyId"} {
			if _, ok := m.Type.In(1).Elem().FieldByName(name); ok {
				ops = append(ops, m.Name)
				break
			}
		}
	}
	return ops
}

func checkCell(t *testing.T, want byte, err error, id string) {
	t.Helper()
	if want == '.' {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	wantCode(t, err, cellErrors[want][0])
	end := cellErrors[want][1]
	var api smithy.APIError
	if errors.As(err, &api); end != "" && !strings.HasSuffix(api.ErrorMessage(), ":key/"+id+end) {
		t.Fatalf("the message is %q, want the key ARN and %q", api.ErrorMessage(), end)
	}
}
