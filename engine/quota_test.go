package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// SDKs send again what a quota refuses, as if it had been throttled: so it costs
// nothing. Each is refused though the token can be used no more.
func TestQuotasComeFirst(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	k := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})).KeyMetadata.KeyId
	for range 25 {
		must(c.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: k}))
	}
	var tags []types.Tag
	for n := range 51 {
		tags = append(tags, types.Tag{TagKey: aws.String(fmt.Sprint(n)), TagValue: aws.String("v")})
	}
	large := aws.String("{" + strings.Repeat(" ", 40<<10) + "}")
	must(0, f.config.Vault.Close())
	for name, refused := range map[string]func() error{
		"a rotation": func() error {
			_, err := c.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: k})
			return err
		},
		"a key's policy": func() error {
			_, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecRsa4096, KeyUsage: types.KeyUsageTypeSignVerify, Policy: large})
			return err
		},
		"a replica's policy": func() error {
			_, err := c.ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: k, ReplicaRegion: aws.String("us-east-1"), Policy: large})
			return err
		},
		"a key's tags": func() error {
			_, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecRsa4096, KeyUsage: types.KeyUsageTypeSignVerify, Tags: tags})
			return err
		},
		"tags": func() error {
			_, err := c.TagResource(t.Context(), &kms.TagResourceInput{KeyId: k, Tags: tags})
			return err
		},
	} {
		err := refused()
		if err == nil || !strings.Contains(err.Error(), "LimitExceededException") && !strings.Contains(err.Error(), "TagException") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
