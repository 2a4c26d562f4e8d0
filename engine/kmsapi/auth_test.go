package kmsapi

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/middleware"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/sigv4"
)

// signWith signs with everything that can be wrong.
func signWith(r *http.Request, body string, id Identity, region, service string, at time.Time, extra ...string) {
	if r.Header.Get("X-Amz-Target") != "" {
		extra = append(extra, "x-amz-target")
	}
	sigv4.Sign(r, []byte(body), id.AccessKeyID, sigv4.NewSecret(id.SecretAccessKey), region, service, at, extra...)
}

func signUnknownLength(r *http.Request, body string) {
	signWith(r, body, alice(), testRegion, serviceKMS, time.Now(), "x-amz-target")
}

const mismatch = "The request signature we calculated does not match the signature you provided. " +
	"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

func TestAuthentication(t *testing.T) {
	h := newTestHandler(t, testConfig(answers(&kms.EncryptOutput{})))
	now := time.Now()
	stranger, liar := alice(), alice()
	stranger.AccessKeyID, liar.SecretAccessKey = "stranger", "another"
	withToken := func(r *http.Request, tokens ...string) *http.Request {
		r.Header["X-Amz-Security-Token"] = tokens
		return r
	}
	tests := []struct {
		name          string
		sign          func(r *http.Request)
		code, message string // "" for success
	}{
		{"signed", func(r *http.Request) { signWith(r, `{}`, alice(), testRegion, "kms", now) }, "", ""},
		{"not signed", func(*http.Request) {}, "MissingAuthenticationTokenException", "Missing Authentication Token"},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, "IncompleteSignatureException", ""},
		{"no date", func(r *http.Request) {
			signWith(r, `{}`, alice(), testRegion, "kms", now)
			r.Header.Del("X-Amz-Date")
		}, "IncompleteSignatureException", ""},
		{"unknown access key", func(r *http.Request) { signWith(r, `{}`, stranger, testRegion, "kms", now) },
			"UnrecognizedClientException", "The security token included in the request is invalid."},
		{"wrong secret", func(r *http.Request) { signWith(r, `{}`, liar, testRegion, "kms", now) }, "InvalidSignatureException", mismatch},
		{"another body", func(r *http.Request) { signWith(r, `{} `, alice(), testRegion, "kms", now) }, "InvalidSignatureException", mismatch},
		{"hash of another body", func(r *http.Request) {
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			signWith(r, `{}`, alice(), testRegion, "kms", now, "x-amz-content-sha256")
		}, "InvalidSignatureException", mismatch},
		{"another target", func(r *http.Request) {
			signWith(r, `{}`, alice(), testRegion, "kms", now, "x-amz-target")
			r.Header.Set("X-Amz-Target", "TrentService.Decrypt")
		}, "InvalidSignatureException", mismatch},
		{"another service", func(r *http.Request) { signWith(r, `{}`, alice(), testRegion, "sts", now) },
			"InvalidSignatureException", "Credential should be scoped to correct service: 'kms'."},
		{"no Region", func(r *http.Request) { signWith(r, `{}`, alice(), "mars", "kms", now) },
			"InvalidSignatureException", "Credential should be scoped to a valid region."},
		{"another day", func(r *http.Request) {
			signWith(r, `{}`, alice(), testRegion, "kms", now)
			r.Header.Set("X-Amz-Date", "20200101T000000Z")
		}, "InvalidSignatureException", ""},
		{"expired", func(r *http.Request) { signWith(r, `{}`, alice(), testRegion, "kms", now.Add(-time.Hour)) },
			"InvalidSignatureException", "~^Signature expired: [0-9TZ]{16} is now earlier than [0-9TZ]{16} \\([0-9TZ]{16} - 5 min\\.\\)$"},
		{"from the future", func(r *http.Request) { signWith(r, `{}`, alice(), testRegion, "kms", now.Add(time.Hour)) },
			"InvalidSignatureException", "~^Signature not yet current: [0-9TZ]{16} is still later than [0-9TZ]{16} \\([0-9TZ]{16} \\+ 5 min\\.\\)$"},
		{"token", func(r *http.Request) {
			signWith(withToken(r, "token of bob"), `{}`, bob(), testRegion, "kms", now, "x-amz-security-token")
		}, "", ""},
		{"token missing", func(r *http.Request) { signWith(r, `{}`, bob(), testRegion, "kms", now) }, "UnrecognizedClientException", ""},
		{"token not signed", func(r *http.Request) { signWith(withToken(r, "token of bob"), `{}`, bob(), testRegion, "kms", now) }, "", ""},
		{"another token", func(r *http.Request) {
			signWith(withToken(r, "token of eve"), `{}`, bob(), testRegion, "kms", now, "x-amz-security-token")
		}, "UnrecognizedClientException", ""},
		{"two tokens", func(r *http.Request) {
			signWith(withToken(r, "token of bob", "token of bob"), `{}`, bob(), testRegion, "kms", now, "x-amz-security-token")
		}, "UnrecognizedClientException", ""},
		{"token of somebody without", func(r *http.Request) {
			signWith(withToken(r, "token of bob"), `{}`, alice(), testRegion, "kms", now, "x-amz-security-token")
		}, "UnrecognizedClientException", ""},
		{"token with a wrong secret", func(r *http.Request) {
			eve := bob()
			eve.SecretAccessKey = "eve"
			signWith(withToken(r, "token of bob"), `{}`, eve, testRegion, "kms", now, "x-amz-security-token")
		}, "InvalidSignatureException", mismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest(t, "Encrypt", []byte(`{}`))
			tt.sign(r)
			w := serve(t, h, r)
			if tt.code == "" {
				if w.status != http.StatusOK {
					t.Errorf("%d %s", w.status, w.body.String())
				}
				return
			}
			pattern, isPattern := strings.CutPrefix(tt.message, "~")
			if !isPattern {
				w.wantError(t, 400, tt.code, tt.message)
				return
			}
			w.wantError(t, 400, tt.code, "")
			message := strings.TrimSuffix(w.body.String()[strings.Index(w.body.String(), `"message":"`)+len(`"message":"`):], `"}`)
			if !regexp.MustCompile(pattern).MatchString(message) {
				t.Errorf("message %q", message)
			}
		})
	}
}

// TestCallers: the API is asked for by the Region of the scope and the
// identity, once for each, and knows the id of the request.
func TestCallers(t *testing.T) {
	type key struct {
		region string
		caller engine.Caller
	}
	made := map[key]int{}
	var calls []string
	config := testConfig(nil)
	config.Client = func(region string, caller engine.Caller) engine.API {
		made[key{region, caller}]++
		return newAPI(func(ctx context.Context, _ any) (any, error) {
			calls = append(calls, region+" "+caller.Account+" "+engine.RequestID(ctx))
			return &kms.ListKeysOutput{}, nil
		})
	}
	h := newTestHandler(t, config)
	server := serveTLS(t, h, false)
	var want []string
	for range 2 {
		for _, region := range []string{"eu-central-1", "us-gov-west-1", "mars-north-12"} {
			for _, id := range []Identity{alice(), bob()} {
				out, err := newClient(server, id).ListKeys(t.Context(), nil, func(o *kms.Options) { o.Region = region })
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, region+" "+id.Account+" "+requestID(t, out.ResultMetadata))
			}
		}
	}
	if fmt.Sprint(calls) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", calls, want)
	}
	if len(made) != 6 {
		t.Errorf("%d clients", len(made))
	}
	for k, n := range made {
		if n != 1 {
			t.Errorf("%v was made %d times", k, n)
		}
	}
	root := engine.Caller{Account: "444455556666", ARN: "arn:aws:iam::444455556666:root", UserID: "444455556666"}
	if made[key{testRegion, root}] != 1 || made[key{testRegion, engine.Caller{Account: testAccount, ARN: testARN, UserID: "AIDAALICE"}}] != 1 {
		t.Errorf("callers: %v", made)
	}
}

func TestRegions(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	for _, region := range []string{
		"us-east-1", "eu-isoe-west-1", "us-gov-east-1", "ap-southeast-12", "ab-c-0", "",
		"us", "us-1", "us-east", "us-east-", "-east-1", "u-east-1", "us--1", "us-east-1-", "us-east-1a", "US-east-1", "us-e4st-1", "us-east-1\n", "us_east_1", "us-1-1",
	} {
		if got, want := isRegion(region), form.MatchString(region); got != want {
			t.Errorf("%q: %v, want %v", region, got, want)
		}
	}
	if long := "us-" + strings.Repeat("a", 40) + "-1"; isRegion(long) {
		t.Error("a name of any length is a Region")
	}
}

// TestClientsAreBounded: whoever asks in ever more Regions is served, and what
// is kept for it does not grow.
func TestClientsAreBounded(t *testing.T) {
	var c clients
	made := 0
	for i := range 3 * maxClients {
		c.get(fmt.Sprintf("us-east-%d", i), func(string) engine.API { made++; return noOutput{} })
		if n := len(*c.byRegion.Load()); n > maxClients {
			t.Fatalf("%d are kept", n)
		}
	}
	c.get(fmt.Sprintf("us-east-%d", 3*maxClients-1), func(string) engine.API { made++; return noOutput{} })
	if made != 3*maxClients {
		t.Errorf("made %d", made)
	}
}

func TestReload(t *testing.T) {
	config := testConfig(answers(&kms.ListKeysOutput{}))
	h := newTestHandler(t, config)
	client := newClient(serveTLS(t, h, false), alice())
	if _, err := client.ListKeys(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	bad := config
	bad.Identities = append([]Identity{alice()}, alice())
	if err := h.Reload(bad); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v", err)
	}
	if _, err := client.ListKeys(t.Context(), nil); err != nil {
		t.Errorf("after a bad reload: %v", err)
	}
	config.Identities = []Identity{bob()}
	if err := h.Reload(config); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ListKeys(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "UnrecognizedClientException") {
		t.Errorf("alice after the reload: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	const secret = "canary-secret"
	tests := map[string]func(*Config){
		"client":      func(c *Config) { c.Client = nil },
		"negative":    func(c *Config) { c.Deadline = -1 },
		"twice":       func(c *Config) { c.Identities = append(c.Identities, c.Identities[0]) },
		"access key":  func(c *Config) { c.Identities[0].AccessKeyID = "a/b" },
		"characters":  func(c *Config) { c.Identities[0].AccessKeyID = strings.Repeat("a", 129) },
		"no secret":   func(c *Config) { c.Identities[0].SecretAccessKey = "" },
		"12 digits":   func(c *Config) { c.Identities[0].Account = "11112222333x" },
		"must be an ": func(c *Config) { c.Identities[0].PrincipalARN = "alice" },
	}
	for want, change := range tests {
		id := alice()
		id.SecretAccessKey, id.SessionToken = secret, secret
		config := testConfig(nil)
		config.Identities = []Identity{id}
		change(&config)
		_, err := NewHandler(config)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("want %q: %v", want, err)
		}
		if printed := fmt.Sprintf("%v %+v %#v %s", id, id, id, id); strings.Contains(printed, secret) {
			t.Errorf("printed: %s", printed)
		}
	}
}

// requestID is what the client read from the answer's header.
func requestID(tb testing.TB, metadata middleware.Metadata) string {
	tb.Helper()
	id, ok := awsmiddleware.GetRequestIDMetadata(metadata)
	if !ok {
		tb.Error("the answer has no request id")
	}
	return id
}

// TestSignedHeaders: each header that may change what a request means must be
// signed, whatever the operation; what clients leave out, or is added on the way,
// need not be.
func TestSignedHeaders(t *testing.T) {
	h := newTestHandler(t, testConfig(answers(&kms.EncryptOutput{})))
	for _, tt := range []struct {
		header, value string
		must          bool
	}{
		{"X-Amz-Target", targetPrefix + "Encrypt", true},
		{"X-Amz-Api-Version", "2014-11-01", true},
		{"X-Amz-Expires", "60", true},
		{"X-Amz-Anything", "x", true},
		{"X-Amz-Security-Token", "token of bob", false},
		{"X-Amz-User-Agent", "aws-sdk-js/2.1", false},
		{"X-Amz-Cf-Id", "x", false},
		{"X-Amzn-Trace-Id", "Root=1", false},
		{"Amz-Sdk-Request", "attempt=1", false},
		{"User-Agent", "x", false},
		{"Accept-Encoding", "identity", false},
	} {
		for _, signed := range []bool{false, true} {
			r := newRequest(t, "Encrypt", []byte(`{}`))
			names := []string{"x-amz-target", "x-amz-security-token"}
			r.Header.Set("X-Amz-Security-Token", "token of bob")
			r.Header.Set(tt.header, tt.value)
			names = append(names, tt.header)
			if !signed {
				names = slices.DeleteFunc(names, func(n string) bool { return strings.EqualFold(n, tt.header) })
			}
			id := bob()
			sigv4.Sign(r, []byte(`{}`), id.AccessKeyID, sigv4.NewSecret(id.SecretAccessKey), testRegion, serviceKMS, time.Now(), names...)
			w := serve(t, h, r)
			if refused := w.status == http.StatusBadRequest && strings.Contains(w.body.String(), codeIncomplete); refused != (tt.must && !signed) || !refused && w.status != http.StatusOK {
				t.Errorf("%s, signed: %t: %d %s", tt.header, signed, w.status, w.body.String())
			}
		}
	}
}

// TestHostIsComparedAsSent: libmongocrypt sends, and signs, a Host without the
// port that it connects to.
func TestHostIsComparedAsSent(t *testing.T) {
	server := serveTLS(t, newTestHandler(t, testConfig(answers(&kms.EncryptOutput{}))), false)
	for _, tt := range []struct {
		signed, sent string
		status       int
	}{
		{"127.0.0.1", "127.0.0.1", http.StatusOK},
		{"kms.example.com", "kms.example.com", http.StatusOK},
		{server.Listener.Addr().String(), server.Listener.Addr().String(), http.StatusOK},
		{"127.0.0.1", server.Listener.Addr().String(), http.StatusBadRequest},
		{server.Listener.Addr().String(), "127.0.0.1", http.StatusBadRequest},
	} {
		r := newRequest(t, "Encrypt", []byte(`{}`))
		r.URL.Host, r.Host = server.Listener.Addr().String(), tt.signed
		signWith(r, `{}`, alice(), testRegion, serviceKMS, time.Now())
		r.Host = tt.sent
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != tt.status {
			t.Errorf("signed %s, sent %s: %d, %v", tt.signed, tt.sent, answer.StatusCode, err)
		}
	}
}
