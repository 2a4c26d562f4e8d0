package kmsapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/engine"
)

// serve gives the handler a request and returns the answer.
func serve(tb testing.TB, h http.Handler, r *http.Request) *discard {
	tb.Helper()
	w := &discard{header: http.Header{}}
	h.ServeHTTP(w, r)
	if len(w.header["X-Amzn-Requestid"]) != 1 || len(w.header["X-Amzn-Requestid"][0]) != 36 {
		tb.Errorf("request id %q", w.header["X-Amzn-Requestid"])
	}
	return w
}

// ask sends a signed request of alice's.
func ask(tb testing.TB, h http.Handler, target, body string) *discard {
	tb.Helper()
	r := newRequest(tb, target, []byte(body))
	sign(r, []byte(body), alice())
	return serve(tb, h, r)
}

// wantError checks an error answer. An empty message means any.
func (d *discard) wantError(tb testing.TB, status int, code, message string) {
	tb.Helper()
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(d.body.Bytes(), &e); err != nil {
		tb.Fatalf("%d %s: %v", d.status, d.body.String(), err)
	}
	if d.status != status || e.Type != code || message != "" && e.Message != message {
		tb.Errorf("got %d %s\nwant %d %s %q", d.status, d.body.String(), status, code, message)
	}
	if got := d.header.Get("Content-Type"); got != jsonType {
		tb.Errorf("content type %q", got)
	}
}

// answers always returns out.
func answers(out any) method {
	return func(context.Context, any) (any, error) { return out, nil }
}

// TestOutputs compares whole answers: what is sent when it is false or empty,
// what is left out, and the form of times.
func TestOutputs(t *testing.T) {
	created := time.UnixMilli(1700000000123).UTC()
	tests := []struct {
		operation string
		out       any
		want      string
	}{
		{"DescribeKey", &kms.DescribeKeyOutput{KeyMetadata: &types.KeyMetadata{KeyId: new("k"), Description: new(""), MultiRegion: new(false), CreationDate: &created}},
			`{"KeyMetadata":{"KeyId":"k","CreationDate":1700000000.123,"Description":"","Enabled":false,"MultiRegion":false}}`},
		{"ListKeys", &kms.ListKeysOutput{Keys: []types.KeyListEntry{}}, `{"Keys":[],"Truncated":false}`},
		{"ListAliases", &kms.ListAliasesOutput{}, `{"Truncated":false}`},
		{"GetKeyRotationStatus", &kms.GetKeyRotationStatusOutput{}, `{"KeyRotationEnabled":false}`},
		{"Verify", &kms.VerifyOutput{}, `{"SignatureValid":false}`},
		{"GetKeyLastUsage", &kms.GetKeyLastUsageOutput{KeyLastUsage: &types.KeyLastUsageData{}}, `{"KeyLastUsage":{}}`},
		{"ReplicateKey", &kms.ReplicateKeyOutput{ReplicaKeyMetadata: &types.KeyMetadata{
			MultiRegionConfiguration: &types.MultiRegionConfiguration{ReplicaKeys: []types.MultiRegionKey{}}}},
			`{"ReplicaKeyMetadata":{"Enabled":false,"MultiRegionConfiguration":{"ReplicaKeys":[]}}}`},
		{"ConnectCustomKeyStore", &kms.ConnectCustomKeyStoreOutput{}, `{}`},
		{"CreateAlias", &kms.CreateAliasOutput{}, ``},
		{"Encrypt", &kms.EncryptOutput{CiphertextBlob: []byte{0xff, 0xfe}, KeyId: new("<&>\"\u2028")}, "{\"CiphertextBlob\":\"//4=\",\"KeyId\":\"<&>\\\"\u2028\"}"},
		{"ListGrants", &kms.ListGrantsOutput{Grants: []types.GrantListEntry{{Constraints: &types.GrantConstraints{
			EncryptionContextEquals: map[string]string{"b": "2", "a": "1"}}}}},
			`{"Grants":[{"Constraints":{"EncryptionContextEquals":{"a":"1","b":"2"}}}],"Truncated":false}`},
	}
	for _, tt := range tests {
		t.Run(tt.operation, func(t *testing.T) {
			w := ask(t, newTestHandler(t, testConfig(answers(tt.out))), tt.operation, `{}`)
			if w.status != http.StatusOK || !equalJSON(w.body.Bytes(), []byte(tt.want)) {
				t.Errorf("got %d %s\nwant %s", w.status, w.body.String(), tt.want)
			}
		})
	}
}

// equalJSON compares two texts whatever the order of their members.
func equalJSON(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func TestInputs(t *testing.T) {
	at := time.UnixMilli(1700000000123).UTC()
	tests := []struct {
		operation, body string
		want            any
	}{
		{"ListKeys", ``, &kms.ListKeysInput{}},
		{"ListKeys", `{}`, &kms.ListKeysInput{}},
		{"ListKeys", `{"Limit":7.9}`, &kms.ListKeysInput{Limit: new(int32(7))}},
		{"ListKeys", `{"L\u0069mit":-2E0}`, &kms.ListKeysInput{Limit: new(int32(-2))}},
		{"ListKeys", `{"Limit":2147483647}`, &kms.ListKeysInput{Limit: new(int32(math.MaxInt32))}},
		{"Encrypt", `{"EncryptionContext":{"a":null,"b":""},"GrantTokens":[null,"t",null]}`,
			&kms.EncryptInput{EncryptionContext: map[string]string{"b": ""}, GrantTokens: []string{"t"}}},
		{"CreateKey", `{"Tags":[{"TagKey":"a","TagValue":null,"X":1},null,{}],"Tags2":[]}`,
			&kms.CreateKeyInput{Tags: []types.Tag{{TagKey: new("a")}, {}}}},
		{"ListKeys", `{"Limit":null,"Marker":null}`, &kms.ListKeysInput{}},
		{"ListKeys", ` {"Limit" : 7, "Unknown": {"a": [1, {}]}, "limit": 8}`, &kms.ListKeysInput{Limit: new(int32(7))}},
		{"Encrypt", `{"Plaintext":null,"GrantTokens":null,"EncryptionContext":null,"DryRun":null,"EncryptionAlgorithm":null}`, &kms.EncryptInput{}},
		{"Encrypt", `{"Plaintext":"\/\/4="}`, &kms.EncryptInput{Plaintext: []byte{0xff, 0xfe}}},
		{"Encrypt", `{"EncryptionContext":{"\u00e9":"\ud83d\ude00"}}`, &kms.EncryptInput{EncryptionContext: map[string]string{"é": "\U0001f600"}}},
		{"ImportKeyMaterial", `{"ValidTo":1700000000.123}`, &kms.ImportKeyMaterialInput{ValidTo: &at}},
		{"ImportKeyMaterial", `{"ValidTo":1.700000000123E9}`, &kms.ImportKeyMaterialInput{ValidTo: &at}},
		{"ImportKeyMaterial", `{"ValidTo":-1}`, &kms.ImportKeyMaterialInput{ValidTo: new(time.Unix(-1, 0).UTC())}},
	}
	for _, tt := range tests {
		t.Run(tt.operation, func(t *testing.T) {
			w := ask(t, newTestHandler(t, testConfig(func(_ context.Context, in any) (any, error) {
				if !reflect.DeepEqual(in, tt.want) {
					t.Errorf("%s became %#v", tt.body, in)
				}
				return reflect.New(operations()[tt.operation].out).Interface(), nil
			})), tt.operation, tt.body)
			if w.status != http.StatusOK {
				t.Errorf("%s: %d %s", tt.body, w.status, w.body.String())
			}
		})
	}
}

func TestMalformedInputs(t *testing.T) {
	tests := []struct{ body, message string }{
		{`{`, ""}, {`x`, ""}, {`{} x`, ""}, {`{"KeyId":"a"`, ""}, {"{\"KeyId\":\"\xff\"}", ""},
		{`{"KeyId":"a","KeyId":"b"}`, ""},
		{`[]`, "Start of list found where not expected"},
		{`"x"`, ""}, {`null`, ""}, {`1`, ""}, {` `, ""},
		{`{"KeyId":{}}`, "Start of structure or map found where not expected."},
		{`{"KeyId":["k"]}`, "Start of list found where not expected"},
		{`{"KeyId":1}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"KeyId":true}`, "TRUE_VALUE can not be converted to a String"},
		{`{"MessageType":false}`, "FALSE_VALUE can not be converted to a String"},
		{`{"DryRun":"true"}`, "STRING_VALUE can not be converted to a Boolean"},
		{`{"GrantTokens":"x"}`, "Expected list or null"},
		{`{"GrantTokens":{}}`, "Start of structure or map found where not expected."},
		{`{"GrantTokens":[1]}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"Message":1}`, "NUMBER_VALUE can not be converted to a Blob"},
		{`{"Message":[1]}`, "Start of list found where not expected"},
		{`{"Message":{}}`, "Start of structure or map found where not expected."},
		{`{"Message":"a"}`, string(errBase64)}, {`{"Message":"YWI"}`, string(errBase64)}, {`{"Message":"YW\nI="}`, string(errBase64)},
		{`{"Message":"_-8="}`, string(errBase64)}, {`{"Message":"YWI=YWI="}`, string(errBase64)},
	}
	h := newTestHandler(t, testConfig(func(context.Context, any) (any, error) {
		t.Error("the operation was called")
		return nil, errTest
	}))
	for _, tt := range tests {
		w := ask(t, h, "Sign", tt.body)
		w.wantError(t, 400, "SerializationException", tt.message)
		if tt.message == "" && strings.Contains(w.body.String(), "message") {
			t.Errorf("%s: %s", tt.body, w.body.String())
		}
	}
	for _, tt := range []struct{ operation, body, message string }{
		{"Encrypt", `{"EncryptionContext":[]}`, "Start of list found where not expected"},
		{"Encrypt", `{"EncryptionContext":"a"}`, "Expected map or null"},
		{"Encrypt", `{"EncryptionContext":{"a":"b","a":"c"}}`, ""},
		{"Encrypt", `{"EncryptionContext":{"a":"b"`, ""},
		{"Encrypt", `{"EncryptionContext":{"a":"b"]}`, ""},
		{"Encrypt", `{"EncryptionContext":{"a":{}}}`, "Start of structure or map found where not expected."},
		{"Encrypt", `{"EncryptionContext":{"a":1}}`, "NUMBER_VALUE can not be converted to a String"},
		{"ListKeys", `{"Limit":"1"}`, "STRING_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":2147483648}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":1e999}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"ListKeys", `{"Limit":4294967296}`, "NUMBER_VALUE can not be converted to an Integer"},
		{"Decrypt", `{"Recipient":"x"}`, "Expected null"},
		{"Decrypt", `{"Recipient":[]}`, "Start of list found where not expected"},
		{"ImportKeyMaterial", `{"ValidTo":"2030-01-01T00:00:00Z"}`, "STRING_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":1e300}`, "NUMBER_VALUE can not be converted to milliseconds since epoch"},
		{"ImportKeyMaterial", `{"ValidTo":{}}`, "Start of structure or map found where not expected."},
	} {
		ask(t, h, tt.operation, tt.body).wantError(t, 400, "SerializationException", tt.message)
	}
}

func TestRouting(t *testing.T) {
	h := newTestHandler(t, testConfig(answers(&kms.EncryptOutput{})))
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"another path", func(r *http.Request) { r.URL.Path = "/kms" }, 404},
		{"another method", func(r *http.Request) { r.Method = http.MethodGet }, 405},
		{"unknown operation", func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.Encrypts") }, 400},
		{"operation in another case", func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.encrypt") }, 400},
		{"method that is no operation", func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.Options") }, 400},
		{"another service", func(r *http.Request) { r.Header.Set("X-Amz-Target", "DynamoDB_20120810.Encrypt") }, 400},
		{"no prefix", func(r *http.Request) { r.Header.Set("X-Amz-Target", "Encrypt") }, 400},
		{"no target", func(r *http.Request) { r.Header.Del("X-Amz-Target") }, 400},
		{"two targets", func(r *http.Request) { r.Header.Add("X-Amz-Target", "TrentService.Encrypt") }, 400},
		{"another type", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400},
		{"no type", func(r *http.Request) { r.Header.Del("Content-Type") }, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest(t, "Encrypt", []byte(`{}`))
			tt.change(r)
			w := serve(t, h, r)
			w.wantError(t, tt.status, codeUnknown, "")
			if (w.header.Get("Allow") == "POST") != (tt.status == 405) {
				t.Errorf("Allow: %q", w.header.Get("Allow"))
			}
		})
	}
	r := newRequest(t, "Encrypt", []byte(`{}`))
	r.Header.Set("Content-Type", jsonType+"; charset=utf-8")
	sign(r, []byte(`{}`), alice())
	if w := serve(t, h, r); w.status != http.StatusOK {
		t.Errorf("type with a parameter: %d %s", w.status, w.body.String())
	}
}

// TestServerErrors: what is no error of the SDK's is answered without detail
// and logged with it.
func TestServerErrors(t *testing.T) {
	tests := []struct {
		name   string
		do     method
		status int
		code   string
	}{
		{"unknown error", func(context.Context, any) (any, error) { return nil, errTest }, 500, codeInternal},
		{"panic", func(context.Context, any) (any, error) { panic(errTest.Error()) }, 500, codeInternal},
		{"no output", func(context.Context, any) (any, error) { return (*kms.EncryptOutput)(nil), nil }, 500, codeInternal},
		{"deadline", func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() }, 503, codeTimeout},
		{"withdrawn", func(context.Context, any) (any, error) { return nil, context.Canceled }, 503, codeTimeout},
		{"internal", func(context.Context, any) (any, error) { return nil, &types.KMSInternalException{} }, 500, codeInternal},
		{"unavailable", func(context.Context, any) (any, error) { return nil, &types.KeyUnavailableException{} }, 500, "KeyUnavailableException"},
		{"timeout", func(context.Context, any) (any, error) { return nil, &types.DependencyTimeoutException{} }, 503, codeTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			config := testConfig(tt.do)
			config.Deadline, config.Logger = 20*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
			if tt.name == "no output" {
				config.Client = func(string, engine.Caller) engine.API { return noOutput{} }
			}
			w := ask(t, newTestHandler(t, config), "Encrypt", `{}`)
			w.wantError(t, tt.status, tt.code, "")
			if strings.Contains(w.body.String(), "canary") {
				t.Errorf("the answer tells: %s", w.body.String())
			}
			if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "cause=") {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

type noOutput struct{ engine.API }

func (noOutput) Encrypt(context.Context, *kms.EncryptInput, ...func(*kms.Options)) (*kms.EncryptOutput, error) {
	return nil, nil
}

// infinite is a body without end.
type infinite struct{}

func (infinite) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestBodies(t *testing.T) {
	var got string
	h := newTestHandler(t, testConfig(func(_ context.Context, in any) (any, error) {
		got = *in.(*kms.PutKeyPolicyInput).Policy
		return &kms.PutKeyPolicyOutput{}, nil
	}))
	policy := strings.Repeat("p", 131072)
	body := `{"Policy":"` + policy + `"}`
	r := newRequest(t, "PutKeyPolicy", []byte(body))
	r.ContentLength = -1
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(body[:100]), strings.NewReader(body[100:])))
	signUnknownLength(r, body)
	if w := serve(t, h, r); w.status != http.StatusOK || got != policy {
		t.Errorf("%d, %d bytes", w.status, len(got))
	}

	tests := []struct {
		name   string
		body   io.Reader
		length int64
		status int
		code   string
	}{
		{"announced too large", infinite{}, MaxBody + 1, 413, codeTooLarge},
		{"too large", infinite{}, -1, 413, codeTooLarge},
		{"broken off", io.MultiReader(strings.NewReader("{"), errorReader{}), 9, 400, codeSerialization},
	}
	for _, tt := range tests {
		r := newRequest(t, "Encrypt", nil)
		signUnknownLength(r, "")
		r.Body, r.ContentLength = io.NopCloser(tt.body), tt.length
		w := serve(t, h, r)
		w.wantError(t, tt.status, tt.code, "")
		if w.header.Get("Connection") != "close" {
			t.Errorf("%s: the connection stays open", tt.name)
		}
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("reset by peer") }

// TestMaxInFlight refuses one request more than may be worked on.
func TestMaxInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	config := testConfig(func(context.Context, any) (any, error) {
		entered <- struct{}{}
		<-leave
		return &kms.EncryptOutput{}, nil
	})
	config.MaxInFlight = 2
	h := newTestHandler(t, config)
	done := make(chan *discard)
	for range 2 {
		go func() { done <- ask(t, h, "Encrypt", `{}`) }()
		<-entered
	}
	if got := h.InFlight(); got != 2 {
		t.Errorf("%d in flight", got)
	}
	refused := ask(t, h, "Encrypt", `{}`)
	refused.wantError(t, 400, codeThrottling, "Rate exceeded")
	if got := refused.header.Get("X-Amz-Retry-After"); got != "250" {
		t.Errorf("another try after %q ms", got)
	}
	close(leave)
	for range 2 {
		if w := <-done; w.status != http.StatusOK {
			t.Errorf("%d %s", w.status, w.body.String())
		}
	}
	if got := h.InFlight(); got != 0 {
		t.Errorf("%d in flight at the end", got)
	}
}

// TestRetryAfter: SDKs wait as long as an error says that the cause will last, in
// milliseconds, and are told nothing where that is not known.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want []string
	}{
		{&types.DependencyTimeoutException{}, nil},
		{&passing{&types.DependencyTimeoutException{}, 1500 * time.Millisecond}, []string{"1500"}},
		{&passing{&types.LimitExceededException{}, 4 * time.Second}, []string{"4000"}},
	} {
		h := newTestHandler(t, testConfig(func(context.Context, any) (any, error) { return nil, tt.err }))
		if got := ask(t, h, "Encrypt", `{}`).header["X-Amz-Retry-After"]; !slices.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
	config := testConfig(nil)
	config.Client = func(string, engine.Caller) engine.API { return nil }
	w := ask(t, newTestHandler(t, config), "Encrypt", `{}`)
	w.wantError(t, 503, codeTimeout, "")
	if got := w.header.Get("X-Amz-Retry-After"); got != "1000" {
		t.Errorf("without a token: another try after %q ms", got)
	}
}

// passing is an error that knows when it has passed.
type passing struct {
	smithy.APIError
	after time.Duration
}

func (e *passing) RetryAfter() time.Duration { return e.after }
