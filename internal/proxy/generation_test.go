package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

// A token that takes three times as long for a key pair as kms.deadline lasts: the
// official client, with the settings that it has by default, gets its key and its
// import parameters, and the token generates one pair for each. So it is where the
// token does nothing else meanwhile. The times are those of a token that takes 15 s
// and a deadline of 5 s, divided by ten.
func TestKeyPairsThatTakeLong(t *testing.T) {
	for name, test := range map[string]struct {
		token string
		spec  types.KeySpec
	}{
		"serving others":   {"delay C_GenerateKeyPair 1500", types.KeySpecRsa4096},
		"and nothing else": {"max-parallel 1\ndelay C_GenerateKeyPair 1500", types.KeySpecRsa2048},
	} {
		t.Run(name, func(t *testing.T) {
			r, module := newSlowKMSRig(t, "deadline: 500ms")
			module.Set(t, strings.Split(test.token, "\n")...)
			ctx, c := patient(t), r.usualKMS("first", "secret-of-the-first", nil)
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
			if err := r.proxy.Ready(); err != nil {
				t.Errorf("the token is taken for a sick one: %v", err)
			}
		})
	}
}

// The pair that comes when the client's first attempt is over is what a later one
// gets.
func TestLaterAttemptGetsThePair(t *testing.T) {
	r, module := newSlowKMSRig(t, "generation_deadline: 6s")
	module.Set(t, "hang C_GenerateKeyPair")
	var failed sync.Once
	c := r.usualKMS("first", "secret-of-the-first", func(status int) {
		if status == http.StatusServiceUnavailable {
			failed.Do(func() { module.Set(t) })
		}
	})
	if _, err := c.CreateKey(patient(t), &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify}); err != nil {
		t.Fatal(err)
	}
	failed.Do(func() { t.Error("no attempt has failed") })
	if n := module.Count(t, "C_GenerateKeyPair"); n != 1 {
		t.Errorf("%d generations for 1 pair", n)
	}
}

// newSlowKMSRig is a started newKMSRig on a faulty token.
func newSlowKMSRig(t *testing.T, setting string) (*rig, *tokentest.Faulty) {
	t.Helper()
	r, module := newKMSRig(t), tokentest.NewFaulty(t)
	r.uri.ModulePath = module.Path
	r.configure(kmsConfig + "  " + setting + "\n")
	return r.start(), module
}

// usualKMS is kms as the SDK makes a client by default: it retries. told, unless nil,
// is told the status of each answer.
func (r *rig) usualKMS(id, secret string, told func(status int)) *kms.Client {
	r.t.Helper()
	transport := &http.Transport{TLSClientConfig: r.tlsClient()}
	r.t.Cleanup(transport.CloseIdleConnections)
	return kms.NewFromConfig(aws.Config{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String("https://" + r.proxy.KMSAddresses()[0].String()),
		Credentials:  credentials.NewStaticCredentialsProvider(id, secret, ""),
		HTTPClient:   &http.Client{Transport: answers{transport, told}},
	})
}

// answers tells the status of each answer.
type answers struct {
	http.RoundTripper
	told func(status int)
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.RoundTripper.RoundTrip(r)
	if err == nil && a.told != nil {
		a.told(resp.StatusCode)
	}
	return resp, err
}
