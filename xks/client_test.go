package xks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
)

func clientCredential() Credential {
	return Credential{"BETWEEN2TENAND3TENCHARACTERS", "PleaseReplaceThisWithSomeSecretOfLength43To64"}
}

// clientOf is a client of a server that h is.
func clientOf(t *testing.T, h http.HandlerFunc, options ...ClientOption) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := NewClient(server.URL+"/p-1", clientCredential(), "eu-west-1", options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answering is a server that gives one answer to everything.
func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // the client will miss it
	}
}

func base64Of(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }

// specEncrypt and specAnswer are the example of the specification.
func specEncrypt() *EncryptRequest {
	return &EncryptRequest{
		AAD: []byte("project=nile,department=marketing"), Plaintext: []byte("Hello World!"),
		Algorithm: AlgorithmAESGCM, CDIVAlgorithm: CDIVSHA256,
	}
}

const specAnswer = `{"authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ==","ciphertext":"ghxkK1txeDNn3q8Y",` +
	`"ciphertextDataIntegrityValue":"qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc=",` +
	`"ciphertextMetadata":"a2V5X3ZlcnNpb249MQ==","initializationVector":"HMrlRw85cAJUd5Ax"}`

func TestClientSendsWhatTheSpecificationSays(t *testing.T) {
	metadata := RequestMetadata{AWSPrincipalARN: "arn", KMSOperation: "Op", KMSRequestID: "id"}
	const sent = `"requestMetadata":{"awsPrincipalArn":"arn","kmsOperation":"Op","kmsRequestId":"id"}`
	tests := []struct {
		name       string
		call       func(context.Context, *Client) error
		path, body string
	}{
		{"metadata", func(ctx context.Context, c *Client) error {
			_, err := c.GetKeyMetadata(ctx, "a.b-c_D", metadata)
			return err
		}, "/keys/a.b-c_D/metadata", `{` + sent + `}`},
		{"health", func(ctx context.Context, c *Client) error {
			_, err := c.GetHealthStatus(ctx, metadata)
			return err
		}, "/health", `{` + sent + `}`},
		{"encrypt", func(ctx context.Context, c *Client) error {
			_, err := c.Encrypt(ctx, "k", &EncryptRequest{RequestMetadata: metadata, Plaintext: []byte{1}, Algorithm: "A"})
			return err
		}, "/keys/k/encrypt", `{` + sent + `,"plaintext":"AQ==","encryptionAlgorithm":"A"}`},
		{"encrypt with an empty AAD and nothing", func(ctx context.Context, c *Client) error {
			_, err := c.Encrypt(ctx, "k", &EncryptRequest{RequestMetadata: metadata, AAD: []byte{}, Algorithm: "A", CDIVAlgorithm: "C"})
			return err
		}, "/keys/k/encrypt", `{` + sent + `,"additionalAuthenticatedData":"","plaintext":"","encryptionAlgorithm":"A","ciphertextDataIntegrityValueAlgorithm":"C"}`},
		{"decrypt", func(ctx context.Context, c *Client) error {
			_, err := c.Decrypt(ctx, "k", &DecryptRequest{RequestMetadata: metadata, AAD: []byte{1}, Metadata: []byte{},
				Tag: []byte{2}, Ciphertext: []byte{3}, IV: []byte{4}, Algorithm: "A"})
			return err
		}, "/keys/k/decrypt", `{` + sent + `,"additionalAuthenticatedData":"AQ==","authenticationTag":"Ag==","ciphertext":"Aw==","ciphertextMetadata":"","encryptionAlgorithm":"A","initializationVector":"BA=="}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if want := "/p-1/kms/xks/v1" + tt.path; r.URL.Path != want || r.Method != http.MethodPost {
					t.Errorf("%s %s, want POST %s", r.Method, r.URL.Path, want)
				}
				if got := r.Header.Get("Content-Type"); got != "application/json" {
					t.Errorf("Content-Type is %q", got)
				}
				if string(body) != tt.body {
					t.Errorf("sent %s\nwant %s", body, tt.body)
				}
				checkSignature(t, r, body)
				answering(http.StatusTooManyRequests, `{"errorName":"ThrottlingException"}`)(w, r)
			})
			var e *Error
			if err := tt.call(t.Context(), c); !errors.As(err, &e) || e.Name != ThrottlingException {
				t.Errorf("got %v, want ThrottlingException", err)
			}
		})
	}
}

func checkSignature(t *testing.T, r *http.Request, body []byte) {
	t.Helper()
	a, err := (&sigv4.Verifier{Service: "kms-xks-proxy"}).Parse(r)
	if err != nil {
		t.Error(err)
		return
	}
	if a.AccessKeyID != clientCredential().AccessKeyID || a.Scope.Region != "eu-west-1" {
		t.Errorf("signed by %s for %s", a.AccessKeyID, a.Scope.Region)
	}
	if err := a.Check(r, body, sigv4.NewSecret(clientCredential().SecretAccessKey)); err != nil {
		t.Error(err)
	}
}

func TestClientAcceptsGoodAnswers(t *testing.T) {
	c := clientOf(t, answering(http.StatusOK, specAnswer))
	sealed, err := c.Encrypt(t.Context(), "k", specEncrypt())
	if err != nil {
		t.Fatal(err)
	}
	if string(sealed.Metadata) != "key_version=1" || len(sealed.IV) != 12 || sealed.Ciphertext[0] != 0x82 || sealed.Tag[15] != 0x61 {
		t.Errorf("got %x", sealed)
	}

	c = clientOf(t, answering(http.StatusOK, `{"plaintext":"SGVsbG8gV29ybGQh","new":[1]}`))
	opened, err := c.Decrypt(t.Context(), "k", &DecryptRequest{Ciphertext: sealed.Ciphertext})
	if err != nil || string(opened.Plaintext) != "Hello World!" {
		t.Errorf("got %v, %v", opened, err)
	}

	c = clientOf(t, answering(http.StatusOK, `{"plaintext":""}`))
	if _, err := c.Decrypt(t.Context(), "k", &DecryptRequest{}); err != nil {
		t.Errorf("an empty plaintext: %v", err)
	}

	c = clientOf(t, answering(http.StatusOK, `{"keySpec":"AES_256","keyUsage":[],"keyStatus":"DISABLED"}`))
	key, err := c.GetKeyMetadata(t.Context(), "k", RequestMetadata{})
	if err != nil || key.KeySpec != KeySpecAES256 || key.KeyStatus != KeyDisabled {
		t.Errorf("got %v, %v", key, err)
	}

	c = clientOf(t, answering(http.StatusOK, `{"xksProxyFleetSize":2,"xksProxyVendor":"v","xksProxyModel":"m","ekmVendor":"e","ekmFleetDetails":[{"id":"1","model":"m","healthStatus":"ACTIVE"},{"id":"2","model":"m","healthStatus":"DEGRADED"}]}`))
	health, err := c.GetHealthStatus(t.Context(), RequestMetadata{})
	if err != nil || health.ProxyFleetSize != 2 || len(health.EKMFleet) != 2 || health.EKMFleet[1].Health != HealthDegraded {
		t.Errorf("got %v, %v", health, err)
	}
}

// with is the specification's answer with one thing replaced.
func with(old, by string) string {
	if !strings.Contains(specAnswer, old) {
		panic("the answer does not contain " + old)
	}
	return strings.Replace(specAnswer, old, by, 1)
}

func TestClientRefusesBadAnswers(t *testing.T) {
	encrypt := func(ctx context.Context, c *Client) error {
		_, err := c.Encrypt(ctx, "k", specEncrypt())
		return err
	}
	decrypt := func(ctx context.Context, c *Client) error {
		_, err := c.Decrypt(ctx, "k", &DecryptRequest{Ciphertext: make([]byte, 12)})
		return err
	}
	metadata := func(ctx context.Context, c *Client) error {
		_, err := c.GetKeyMetadata(ctx, "k", RequestMetadata{})
		return err
	}
	health := func(ctx context.Context, c *Client) error {
		_, err := c.GetHealthStatus(ctx, RequestMetadata{})
		return err
	}
	fleet := func(entries string) string {
		return `{"xksProxyFleetSize":1,"xksProxyVendor":"v","xksProxyModel":"m","ekmVendor":"e","ekmFleetDetails":[` + entries + `]}`
	}
	const token = `{"id":"1","model":"m","healthStatus":"ACTIVE"}`
	const key = `{"keySpec":"AES_256","keyUsage":["ENCRYPT"],"keyStatus":"ENABLED"}`
	var eleven []string
	for i := range 11 {
		eleven = append(eleven, strings.Replace(token, `"1"`, fmt.Sprintf(`"%d"`, i), 1))
	}
	tests := []struct {
		name   string
		call   func(context.Context, *Client) error
		status int
		body   string
		reason string // a part of it
	}{
		{"nothing", encrypt, 200, "", "no JSON"},
		{"no JSON", encrypt, 200, "MARK", "no JSON"},
		{"two values", encrypt, 200, specAnswer + "{}", "no JSON"},
		{"array", encrypt, 200, "[]", "malformed"},
		{"member twice", encrypt, 200, with(`{`, `{"ciphertext":"MARK",`), "no JSON"},
		{"name in another case", encrypt, 200, with("ciphertext\"", "Ciphertext\""), "ciphertext is missing"},
		{"null", encrypt, 200, with(`"ghxkK1txeDNn3q8Y"`, "null"), "ciphertext is missing"},
		{"number", encrypt, 200, with(`"ghxkK1txeDNn3q8Y"`, "4711"), `"/ciphertext" is malformed`},
		{"no Base64", encrypt, 200, with("ghxkK1txeDNn3q8Y", "MARK*"), `"/ciphertext" is malformed`},
		{"Base64 of URLs", encrypt, 200, with("ghxkK1txeDNn3q8Y", "gh-_K1txeDNn3q8Y"), `"/ciphertext" is malformed`},
		{"Base64 with a line end", encrypt, 200, with("ghxkK1txeDNn3q8Y", `ghxkK1tx\r\neDNn3q8Y`), `"/ciphertext" is malformed`},
		{"long ciphertext", encrypt, 200, with("ghxkK1txeDNn3q8Y", base64Of(28)), "28 bytes for a plaintext of 12"},
		{"short tag", encrypt, 200, with("vBxN2ncH1oEkR8WVXpmyYQ==", base64Of(12)), "authenticationTag has 12"},
		{"no tag", encrypt, 200, with("authenticationTag", "tag"), "authenticationTag has 0"},
		{"IV of 13 bytes", encrypt, 200, with("HMrlRw85cAJUd5Ax", base64Of(13)), "initializationVector has 13"},
		{"metadata of 21 bytes", encrypt, 200, with("a2V5X3ZlcnNpb249MQ==", base64Of(21)), "ciphertextMetadata has 21"},
		{"no CDIV", encrypt, 200, with("ciphertextDataIntegrityValue", "x"), "ciphertextDataIntegrityValue is missing"},
		{"wrong CDIV", encrypt, 200, with("qHA/", "qHB/"), "not the hash"},
		{"another ciphertext", encrypt, 200, with("ghxk", "ghxl"), "not the hash"},
		{"short CDIV", encrypt, 200, with("qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc=", "qHA/"), "not the hash"},
		{"too much", encrypt, 200, `{"x":"` + strings.Repeat("x", maxAnswer*2) + `"}`, "more than"},
		{"other status", encrypt, 201, specAnswer, "errorName"},

		{"no plaintext", decrypt, 200, `{}`, "plaintext is missing"},
		{"other plaintext size", decrypt, 200, `{"plaintext":"` + base64Of(13) + `"}`, "13 bytes for a ciphertext of 12"},

		{"no keySpec", metadata, 200, strings.Replace(key, "keySpec", "x", 1), "keySpec"},
		{"no keyUsage", metadata, 200, strings.Replace(key, "keyUsage", "x", 1), "keyUsage"},
		{"null as keyUsage", metadata, 200, strings.Replace(key, `["ENCRYPT"]`, "null", 1), "keyUsage"},
		{"eleven usages", metadata, 200, strings.Replace(key, `["ENCRYPT"`, `["ENCRYPT"`+strings.Repeat(`,"X"`, 10), 1), "11 values"},
		{"other keyStatus", metadata, 200, strings.Replace(key, "ENABLED", "enabled", 1), "keyStatus"},

		{"fleet size 0", health, 200, strings.Replace(fleet(token), ":1", ":0", 1), "xksProxyFleetSize"},
		{"fleet size 1.5", health, 200, strings.Replace(fleet(token), ":1", ":1.5", 1), "xksProxyFleetSize"},
		{"no proxy vendor", health, 200, strings.Replace(fleet(token), "xksProxyVendor", "x", 1), "xksProxyVendor"},
		{"no proxy model", health, 200, strings.Replace(fleet(token), "xksProxyModel", "x", 1), "xksProxyModel"},
		{"no vendor", health, 200, strings.Replace(fleet(token), "ekmVendor", "x", 1), "ekmVendor"},
		{"no entries", health, 200, fleet(""), "has 0 entries"},
		{"eleven entries", health, 200, fleet(strings.Join(eleven, ",")), "has 11 entries"},
		{"same id twice", health, 200, fleet(token + "," + token), "[1].id"},
		{"no id", health, 200, fleet(strings.Replace(token, "id", "x", 1)), "[0].id"},
		{"no model", health, 200, fleet(strings.Replace(token, "model", "x", 1)), "[0].model"},
		{"other health", health, 200, fleet(strings.Replace(token, "ACTIVE", "MARK", 1)), "[0].healthStatus"},

		{"method not allowed", encrypt, 405, "", "POST"},
		{"error that is no JSON", encrypt, 500, "MARK", "no JSON"},
		{"error without name", encrypt, 500, "{}", "errorName"},
		{"unknown error", encrypt, 500, `{"errorName":"MARK"}`, "errorName"},
		{"error with another's status", encrypt, 400, `{"errorName":"InternalException"}`, "the status of InternalException is 500"},
		{"error of 200", encrypt, 200, `{"errorName":"InternalException"}`, "ciphertext is missing"},
		{"long message", encrypt, 500, `{"errorName":"InternalException","errorMessage":"` + strings.Repeat("x", 512) + `"}`, "512"},
		{"unprintable message", encrypt, 500, `{"errorName":"InternalException","errorMessage":"MARK\n"}`, "printable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.call(t.Context(), clientOf(t, answering(tt.status, tt.body)))
			var e *ResponseError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a ResponseError", err)
			}
			if e.Status != tt.status || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("got %d %q, want %d and %q", e.Status, e.Reason, tt.status, tt.reason)
			}
			if strings.Contains(err.Error(), "MARK") || strings.Contains(err.Error(), "4711") {
				t.Errorf("%q quotes the answer", err)
			}
		})
	}
}

func TestClientReturnsErrorsOfTheTable(t *testing.T) {
	c := clientOf(t, answering(http.StatusNotFound, `{"errorName":"KeyNotFoundException","errorMessage":"no such key"}`))
	_, err := c.Encrypt(t.Context(), "k", specEncrypt())
	var e *Error
	if !errors.As(err, &e) || e.Name != KeyNotFoundException || e.Message != "no such key" {
		t.Errorf("got %v", err)
	}
}

func TestClientChecksContentType(t *testing.T) {
	for contentType, ok := range map[string]bool{
		"application/json": true, "Application/JSON; charset=utf-8": true, "text/plain": false, "": false,
	} {
		c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, specAnswer) // the client will miss it
		})
		_, err := c.Encrypt(t.Context(), "k", specEncrypt())
		var e *ResponseError
		if (err == nil) != ok || !ok && !errors.As(err, &e) {
			t.Errorf("%q: %v", contentType, err)
		}
	}
}

func TestClientFollowsNoRedirect(t *testing.T) {
	for _, hc := range []*http.Client{{}, {CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}} {
		var requests atomic.Int32
		c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			http.Redirect(w, r, "/p-1/elsewhere", http.StatusTemporaryRedirect)
		}, WithHTTPClient(hc))
		var e *ResponseError
		if _, err := c.Encrypt(t.Context(), "k", specEncrypt()); !errors.As(err, &e) || e.Status != http.StatusTemporaryRedirect {
			t.Errorf("got %v", err)
		}
		if n := requests.Load(); n != 1 {
			t.Errorf("%d requests were sent, want 1", n)
		}
	}
}

func TestClientRefusesKeyIDs(t *testing.T) {
	c := clientOf(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for _, id := range []string{"", strings.Repeat("k", 129), ".", "..", "a/b", "a?b", "a b", "a%20b", "ü"} {
		if _, err := c.Encrypt(t.Context(), id, specEncrypt()); err == nil {
			t.Errorf("%q is accepted", id)
		}
	}
}

func TestClientEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	c := clientOf(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Encrypt(ctx, "k", specEncrypt()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline exceeded", err)
	}
}

func TestNewClient(t *testing.T) {
	good := clientCredential()
	tests := []struct {
		endpoint, region string
		credential       Credential
		ok               bool
	}{
		{"https://xks.example.com", "us-east-1", good, true},
		{"http://127.0.0.1:8080/a/B-9_/", "us-east-1", good, true},
		{"https://xks.example.com/kms/xks/v1", "us-east-1", good, false},
		{"https://xks.example.com/p/kms/xks/v1/", "us-east-1", good, false},
		{"xks.example.com", "us-east-1", good, false},
		{"ftp://xks.example.com", "us-east-1", good, false},
		{"https://", "us-east-1", good, false},
		{"https://user:MARK@xks.example.com", "us-east-1", good, false},
		{"https://user:MARK@xks.example.com:x", "us-east-1", good, false},
		{"https://xks.example.com/?a", "us-east-1", good, false},
		{"https://xks.example.com/#a", "us-east-1", good, false},
		{"https://xks.example.com/a//b", "us-east-1", good, false},
		{"https://xks.example.com/a/../b", "us-east-1", good, false},
		{"https://xks.example.com/a%20b", "us-east-1", good, false},
		{"https://xks.example.com", "", good, false},
		{"https://xks.example.com", "us/east", good, false},
		{"https://xks.example.com", "us-east-1", Credential{"short", good.SecretAccessKey}, false},
		{"https://xks.example.com", "us-east-1", Credential{good.AccessKeyID, "MARK"}, false},
	}
	for _, tt := range tests {
		c, err := NewClient(tt.endpoint, tt.credential, tt.region)
		if (err == nil) != tt.ok {
			t.Errorf("%s in %q: %v", tt.endpoint, tt.region, err)
		}
		if err != nil && strings.Contains(err.Error(), "MARK") {
			t.Errorf("%q shows a secret", err)
		}
		if shown := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(shown, good.SecretAccessKey) {
			t.Errorf("a client shows its secret: %s", shown)
		}
	}
}

func TestNewRequest(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c, err := NewClient("https://xks.example.com/p/", clientCredential(), "eu-west-1", WithClock(func() time.Time { return at }))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.NewRequest(t.Context(), "/keys/a%2fb/encrypt?x=1", []byte("odd"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.URL.String(), "https://xks.example.com/p/kms/xks/v1/keys/a%2fb/encrypt?x=1"; got != want {
		t.Errorf("URL is %s, want %s", got, want)
	}
	if got := r.Header.Get("X-Amz-Date"); got != "20260102T030405Z" {
		t.Errorf("X-Amz-Date is %s", got)
	}
	if r.Host != "xks.example.com" || r.ContentLength != 3 {
		t.Errorf("host %s, length %d", r.Host, r.ContentLength)
	}
}

// Appendix C counts an absent part as empty.
func TestIntegrityValueWithoutOptionalParts(t *testing.T) {
	r := &EncryptResponse{IV: []byte("iv"), Ciphertext: []byte("c"), Tag: []byte("tag")}
	if got, want := r.integrityValue(nil), sha256.Sum256([]byte("ivctag")); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
}
