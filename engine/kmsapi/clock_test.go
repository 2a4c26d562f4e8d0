package kmsapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// TestWrongClock: the SDK of Go sets right by the Date of a refusal what its
// clock, which is years slow in here, says wrong; with one attempt alone it shows
// AWS's code, and both times.
func TestWrongClock(t *testing.T) {
	server := httptest.NewServer(newTestHandler(t, testConfig(answers(&kms.EncryptOutput{KeyId: aws.String("k")}))))
	defer server.Close()
	today := time.Now().UTC().Format("20060102")
	synctest.Test(t, func(t *testing.T) {
		transport := &http.Transport{DisableKeepAlives: true} // one that waits for its peer would hold the clock up
		client := func(attempts int) *kms.Client {
			id := alice()
			return kms.New(kms.Options{
				BaseEndpoint: aws.String(server.URL), Region: testRegion, HTTPClient: &http.Client{Transport: transport}, RetryMaxAttempts: attempts,
				Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, ""),
			})
		}
		_, err := client(1).Encrypt(context.Background(), &kms.EncryptInput{KeyId: aws.String("k"), Plaintext: []byte("p")})
		var api smithy.APIError
		wrong := time.Now().UTC().Format("20060102T1504")
		if !errors.As(err, &api) || api.ErrorCode() != "InvalidSignatureException" || !strings.HasPrefix(api.ErrorMessage(), "Signature expired: "+wrong) ||
			!strings.Contains(api.ErrorMessage(), " is now earlier than "+today) {
			t.Errorf("one attempt: %v", err)
		}
		out, err := client(3).Encrypt(context.Background(), &kms.EncryptInput{KeyId: aws.String("k"), Plaintext: []byte("p")})
		if err != nil || aws.ToString(out.KeyId) != "k" {
			t.Errorf("three attempts: %v", err)
		}
	})
}
