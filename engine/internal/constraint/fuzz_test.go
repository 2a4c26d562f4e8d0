package constraint_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

// FuzzCheck looks for panics, messages that no JSON could carry, and secrets in
// them. Each secret is marked, so that it is known from all else in a message.
func FuzzCheck(f *testing.F) {
	f.Add("", "", int32(0), []byte(nil))
	f.Add("alias/a", "eu-west-1", int32(90), []byte("a"))
	f.Add(strings.Repeat("é", 3000), "\xff\n", int32(-1), make([]byte, 5000))
	c := constraint.New()
	f.Fuzz(func(t *testing.T, s, other string, n int32, blob []byte) {
		const mark = "\u2603"
		s, other = strings.ReplaceAll(s, mark, "x"), strings.ReplaceAll(other, mark, "x")
		secret := aws.String(mark + other)
		for _, input := range []any{
			&kms.EncryptInput{KeyId: &s, Plaintext: []byte(*secret), GrantTokens: []string{s, other},
				EncryptionAlgorithm: types.EncryptionAlgorithmSpec(other)},
			&kms.SignInput{KeyId: &other, Message: []byte(*secret), MessageType: types.MessageType(s)},
			&kms.DecryptInput{CiphertextBlob: blob, KeyId: &s},
			&kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: &s, KeyStorePassword: secret, XksProxyUriPath: &s,
				XksProxyUriEndpoint: &other, XksProxyVpcEndpointServiceName: &s, CloudHsmClusterId: &s,
				XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
					AccessKeyId: secret, RawSecretAccessKey: secret}},
			&kms.TagResourceInput{KeyId: &s, Tags: []types.Tag{{TagKey: &s, TagValue: &other}}},
			&kms.CreateGrantInput{KeyId: &s, GranteePrincipal: &other, GranteeServicePrincipal: &s,
				Operations:  []types.GrantOperation{types.GrantOperation(s)},
				Constraints: &types.GrantConstraints{SourceArn: &s}},
			&kms.ListKeysInput{Limit: &n, Marker: &s},
			&kms.EnableKeyRotationInput{KeyId: &s, RotationPeriodInDays: &n},
			&kms.ReplicateKeyInput{KeyId: &s, ReplicaRegion: &other, Policy: &s, Description: &other},
		} {
			err := c.Check(input)
			if err == nil {
				continue
			}
			if strings.Contains(err.Error(), mark) {
				t.Errorf("%T: a secret is in %q", input, err)
			}
			if !utf8.ValidString(err.Error()) {
				t.Errorf("%T: no UTF-8: %q", input, err)
			}
		}
	})
}
