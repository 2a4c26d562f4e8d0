package kmsapi

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// A request that waits for a key pair is answered when the time is long over that a
// server takes to read a request and to write an answer; the next request on its
// connection has that time again.
func TestGenerationOutlastsTheServer(t *testing.T) {
	const usual = 200 * time.Millisecond // of the server
	config := testConfig(func(ctx context.Context, in any) (any, error) {
		if _, ok := in.(*kms.EncryptInput); ok {
			return &kms.EncryptOutput{}, nil
		}
		select {
		case <-engine.Patient(ctx).Done():
			return nil, ctx.Err()
		case <-time.After(5 * usual):
			return &kms.CreateKeyOutput{KeyMetadata: &types.KeyMetadata{KeyId: aws.String("made")}}, nil
		}
	})
	config.Deadline, config.Generation = usual, time.Minute
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 ", http2), func(t *testing.T) {
			server := httptest.NewUnstartedServer(newTestHandler(t, config))
			server.EnableHTTP2 = http2
			server.Config.ReadTimeout, server.Config.WriteTimeout = usual, 2*usual
			server.StartTLS()
			t.Cleanup(server.Close)
			c := newClient(server, alice())
			for range 2 {
				out, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{})
				if err != nil || *out.KeyMetadata.KeyId != "made" {
					t.Fatalf("%v, %v", out, err)
				}
				if _, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: aws.String("k"), Plaintext: []byte("p")}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Only the operations that may need a pair have longer.
func TestDeadlines(t *testing.T) {
	long := map[string]bool{"CreateKey": true, "GenerateDataKeyPair": true, "GenerateDataKeyPairWithoutPlaintext": true, "GetParametersForImport": true}
	for name, op := range operations() {
		if op.generates != long[name] {
			t.Errorf("%s: %t", name, op.generates)
		}
	}
	ctx, cancel := engine.WithDeadlines(t.Context(), time.Minute, time.Hour)
	defer cancel()
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > time.Minute {
		t.Errorf("the deadline of what is no generation is in %v", time.Until(end))
	}
}
