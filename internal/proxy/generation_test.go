package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// A token that takes long for a key pair, several times kms.deadline: the official
// client, with the settings that it has by default, gets its key and its import
// parameters, and the token generates one pair for each. So it is where the client's
// request is over before the pair is there, and where the token does nothing else
// meanwhile. The times are those of a token that takes 15 s and a deadline of 5 s,
// divided by ten.
func TestKeyPairsThatTakeLong(t *testing.T) {
	for name, test := range map[string]struct {
		settings, token string
		spec            types.KeySpec
	}{
		"longer than the deadline":         {"deadline: 500ms", "delay C_GenerateKeyPair 1500", types.KeySpecRsa4096},
		"longer than the client's request": {"deadline: 500ms\n  generation_deadline: 2s", "delay C_GenerateKeyPair 2500", types.KeySpecRsa2048},
		"and nothing else":                 {"deadline: 500ms", "max-parallel 1\ndelay C_GenerateKeyPair 1500", types.KeySpecRsa2048},
	} {
		t.Run(name, func(t *testing.T) {
			module := tokentest.NewFaulty(t)
			r := newKMSRig(t)
			r.uri.ModulePath = module.Path
			r.configure(kmsConfig + "  " + test.settings + "\n")
			r.start()
			module.Set(t, strings.Split(test.token, "\n")...)
			ctx, c := patient(t), r.usualKMS("first", "secret-of-the-first")
			key, err := c.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: test.spec, KeyUsage: types.KeyUsageTypeSignVerify})
			if err != nil {
				t.Fatal(err)
			}
			external, err := c.CreateKey(ctx, &kms.CreateKeyInput{Origin: types.OriginTypeExternal})
			if err != nil {
				t.Fatal(err)
			}
			parameters, err := c.GetParametersForImport(ctx, &kms.GetParametersForImportInput{
				KeyId: external.KeyMetadata.KeyId, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpec(test.spec),
			})
			if err != nil {
				t.Fatal(err)
			}
			public, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: key.KeyMetadata.KeyId})
			if err != nil || string(public.PublicKey) == string(parameters.PublicKey) {
				t.Errorf("the key and the wrapping key: %v", err)
			}
			if n := module.Count(t, "C_GenerateKeyPair"); n != 2 {
				t.Errorf("%d generations for 2 pairs", n)
			}
			if h := r.proxy.Ready(); h != nil {
				t.Errorf("the token is taken for a sick one: %v", h)
			}
		})
	}
}

// usualKMS is kms as the SDK makes a client by default: it retries.
func (r *rig) usualKMS(id, secret string) *kms.Client {
	r.t.Helper()
	transport := &http.Transport{TLSClientConfig: r.tlsClient()}
	r.t.Cleanup(transport.CloseIdleConnections)
	return kms.NewFromConfig(aws.Config{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String("https://" + r.proxy.KMSAddresses()[0].String()),
		Credentials:  credentials.NewStaticCredentialsProvider(id, secret, ""),
		HTTPClient:   &http.Client{Transport: transport},
	})
}
