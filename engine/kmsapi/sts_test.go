package kmsapi

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

func TestGetCallerIdentity(t *testing.T) {
	tests := []struct {
		id                   Identity
		arn, user, accountID string
	}{
		{alice(), testARN, "AIDAALICE", testAccount},
		{bob(), "arn:aws:iam::444455556666:root", "444455556666", "444455556666"},
	}
	for _, http2 := range []bool{false, true} {
		server := serveTLS(t, newTestHandler(t, testConfig(nil)), http2)
		for _, tt := range tests {
			client := sts.New(sts.Options{
				BaseEndpoint: aws.String(server.URL), Region: testRegion, HTTPClient: server.Client(),
				Credentials: credentials.NewStaticCredentialsProvider(tt.id.AccessKeyID, tt.id.SecretAccessKey, tt.id.SessionToken),
			})
			out, err := client.GetCallerIdentity(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if *out.Arn != tt.arn || *out.UserId != tt.user || *out.Account != tt.accountID {
				t.Errorf("%s is %s, %s, %s", tt.id, *out.Arn, *out.UserId, *out.Account)
			}
			if len(requestID(t, out.ResultMetadata)) != 36 {
				t.Error("no request id")
			}
		}
	}
}

func TestSTSErrors(t *testing.T) {
	server := serveTLS(t, newTestHandler(t, testConfig(nil)), false)
	client := func(id Identity) *sts.Client {
		return sts.New(sts.Options{
			BaseEndpoint: aws.String(server.URL), Region: testRegion, HTTPClient: server.Client(), RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, id.SessionToken),
		})
	}
	identity := func(id Identity) error {
		_, err := client(id).GetCallerIdentity(t.Context(), nil)
		return err
	}
	liar, stranger, bare := alice(), alice(), bob()
	liar.SecretAccessKey, stranger.AccessKeyID, bare.SessionToken = "another", "stranger", ""
	_, noSuchAction := client(alice()).GetSessionToken(t.Context(), nil)
	for want, err := range map[string]error{
		"SignatureDoesNotMatch": identity(liar),
		"InvalidClientTokenId":  errors.Join(identity(stranger), identity(bare)),
		"InvalidAction":         noSuchAction,
	} {
		var got smithy.APIError
		if !errors.As(err, &got) || got.ErrorCode() != want || got.ErrorMessage() == "" {
			t.Errorf("want %s: %v", want, err)
		}
	}
}

// TestSTSWire checks whole answers.
func TestSTSWire(t *testing.T) {
	const namespace = `xmlns="https://sts.amazonaws.com/doc/2011-06-15/"`
	id := alice()
	id.PrincipalARN = "arn:aws:iam::111122223333:user/a&b"
	config := testConfig(nil)
	config.Identities = []Identity{id}
	var seen []Observation
	config.Observe = func(o Observation) { seen = append(seen, o) }
	h := newTestHandler(t, config)
	const action = "Action=GetCallerIdentity&Version=2011-06-15"
	failed := func(kind, code, message string) string {
		return `<ErrorResponse ` + namespace + `><Error><Type>` + kind + `</Type><Code>` + code + `</Code><Message>` + message + `</Message></Error>`
	}
	tests := []struct {
		name, body, service string
		status              int
		want                string
	}{
		{"identity", action, "sts", 200, `<GetCallerIdentityResponse ` + namespace + `><GetCallerIdentityResult>` +
			`<Arn>arn:aws:iam::111122223333:user/a&amp;b</Arn><UserId>AIDAALICE</UserId><Account>111122223333</Account></GetCallerIdentityResult><ResponseMetadata>`},
		{"unknown action", "Action=AssumeRole&Version=2011-06-15", "sts", 400, failed("Sender", "InvalidAction",
			"Could not find this operation for this version: only GetCallerIdentity of version 2011-06-15 is served.")},
		{"another version", "Action=GetCallerIdentity&Version=2010-01-01", "sts", 400, `<ErrorResponse ` + namespace + `><Error><Type>Sender</Type><Code>InvalidAction<`},
		{"no action", "", "sts", 400, `<ErrorResponse ` + namespace + `><Error><Type>Sender</Type><Code>InvalidAction<`},
		{"no form", "a=%zz", "sts", 400, failed("Sender", "MalformedQueryString", "The request body must be a form.")},
		{"signed for KMS", action, "kms", 403, failed("Sender", "SignatureDoesNotMatch", "Credential should be scoped to correct service: &#39;sts&#39;.")},
		{"not signed", action, "", 403, failed("Sender", "MissingAuthenticationToken", "Missing Authentication Token")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest(t, "", []byte(tt.body))
			r.Header.Del("X-Amz-Target")
			r.Header.Set("Content-Type", formType+"; charset=utf-8")
			if tt.service != "" {
				signWith(r, tt.body, id, testRegion, tt.service, time.Now())
			}
			w := serve(t, h, r)
			if w.status != tt.status || !strings.HasPrefix(w.body.String(), tt.want) {
				t.Errorf("got %d %s\nwant %d %s", w.status, w.body.String(), tt.status, tt.want)
			}
			code := ""
			if _, rest, found := strings.Cut(w.body.String(), "<Code>"); found {
				code, _, _ = strings.Cut(rest, "<")
			}
			if o := seen[len(seen)-1]; o.Code != code || o.Status != tt.status {
				t.Errorf("observed %+v", o)
			}
			if !strings.Contains(w.body.String(), "<RequestId>"+w.header.Get("X-Amzn-Requestid")+"</RequestId>") {
				t.Errorf("no request id: %s", w.body.String())
			}
			if got := w.header.Get("Content-Type"); got != "text/xml" {
				t.Errorf("content type %q", got)
			}
		})
	}
	r := newRequest(t, "", nil)
	r.Header.Del("X-Amz-Target")
	r.Header.Set("Content-Type", formType)
	r.Method = http.MethodGet
	if w := serve(t, h, r); w.status != 405 || !strings.Contains(w.body.String(), "<Code>InvalidAction</Code>") {
		t.Errorf("%d %s", w.status, w.body.String())
	}
}
