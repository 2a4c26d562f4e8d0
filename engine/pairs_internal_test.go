package engine

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

// Where enough RSA keys are being made, whatever would make one more is refused at
// once, before it asks the token for anything.
func TestRSAKeysAreThrottled(t *testing.T) {
	e := &Engine{log: slog.New(slog.DiscardHandler), clock: time.Now, checks: constraint.New(), state: newState()}
	e.pairs.init(e, 0)
	e.pairs.took = 3 * time.Second
	e.pairs.waiting = make([]*pairWaiter, pairRoom)
	c := e.Client("eu-central-1", Caller{Account: "111122223333"})
	k := &key{Account: "111122223333", Region: "eu-central-1", ID: "11111111-2222-3333-4444-555555555555", Spec: types.KeySpecSymmetricDefault, Usage: types.KeyUsageTypeEncryptDecrypt, Origin: types.OriginTypeAwsKms}
	external := *k
	external.ID, external.Origin = "11111111-2222-3333-4444-666666666666", types.OriginTypeExternal
	e.state.putKey(k)
	e.state.putKey(&external)
	for name, call := range map[string]func() error{
		"CreateKey": func() error {
			_, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecRsa4096, KeyUsage: types.KeyUsageTypeSignVerify})
			return err
		},
		"GenerateDataKeyPair": func() error {
			_, err := c.GenerateDataKeyPair(t.Context(), &kms.GenerateDataKeyPairInput{KeyId: &k.ID, KeyPairSpec: types.DataKeyPairSpecRsa2048})
			return err
		},
		"GetParametersForImport": func() error {
			_, err := c.GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
				KeyId: aws.String(external.ID), WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa3072,
			})
			return err
		},
	} {
		var api smithy.APIError
		if err := call(); !errors.As(err, &api) || api.ErrorCode() != "ThrottlingException" || RetryAfter(err) != 3*time.Second {
			t.Errorf("%s: %v", name, err)
		}
	}
}
