package kmsapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/go-json-experiment/json"
)

// logged serves one request and returns its log line and observation.
func logged(t *testing.T, do method, operation, body string) (map[string]any, Observation) {
	t.Helper()
	var log bytes.Buffer
	var seen []Observation
	config := testConfig(do)
	config.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	config.Observe = func(o Observation) { seen = append(seen, o) }
	w := ask(t, newTestHandler(t, config), operation, body)
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	if line["requestId"] != w.header.Get("X-Amzn-Requestid") {
		t.Errorf("request id %v", line["requestId"])
	}
	if len(seen) != 1 || seen[0].Duration <= 0 {
		t.Fatalf("observed %v", seen)
	}
	seen[0].Duration = 0
	for _, name := range []string{"time", "requestId", "duration_us"} {
		if line[name] == nil {
			t.Errorf("%s is missing", name)
		}
		delete(line, name)
	}
	return line, seen[0]
}

func TestLog(t *testing.T) {
	common := map[string]any{"msg": "KMS request", "region": testRegion, "account": testAccount, "principal": testARN, "accessKeyId": "test"}
	tests := []struct {
		name, operation, body string
		do                    method
		line                  map[string]any
		observed              Observation
	}{
		{"success", "Encrypt", `{"KeyId":"alias/a"}`, answers(&kms.EncryptOutput{}),
			map[string]any{"level": "INFO", "operation": "Encrypt", "key": "alias/a", "outcome": "ok", "status": 200.},
			Observation{Operation: "Encrypt", Region: testRegion, Account: testAccount, Status: 200}},
		{"error", "ReEncrypt", `{"DestinationKeyId":"k","SourceKeyId":"s"}`,
			func(context.Context, any) (any, error) { return nil, &types.NotFoundException{Message: new("gone")} },
			map[string]any{"level": "WARN", "operation": "ReEncrypt", "key": "k", "outcome": "NotFoundException", "error": "gone", "status": 400.},
			Observation{Operation: "ReEncrypt", Region: testRegion, Account: testAccount, Code: "NotFoundException", Status: 400}},
		{"failure", "UpdateAlias", `{"TargetKeyId":"` + strings.Repeat("k", 3000) + `"}`,
			func(context.Context, any) (any, error) { return nil, errTest },
			map[string]any{"level": "ERROR", "operation": "UpdateAlias", "key": strings.Repeat("k", maxLogged), "outcome": codeInternal,
				"error": internalMessage, "cause": "operation error KMS: UpdateAlias, " + errTest.Error(), "status": 500.},
			Observation{Operation: "UpdateAlias", Region: testRegion, Account: testAccount, Code: codeInternal, Status: 500}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line, observed := logged(t, tt.do, tt.operation, tt.body)
			for name, value := range common {
				tt.line[name] = value
			}
			if !reflect.DeepEqual(line, tt.line) {
				t.Errorf("got  %v\nwant %v", line, tt.line)
			}
			if observed != tt.observed {
				t.Errorf("observed %+v", observed)
			}
		})
	}
}

// TestSecretsStayOut: no operation, and no way to fail, brings what is secret
// into the log.
func TestSecretsStayOut(t *testing.T) {
	const canary = "canary-plaintext"
	sent := base64.StdEncoding.EncodeToString([]byte(canary))
	for _, body := range []string{
		`{"Plaintext":"` + sent + `","Message":"` + sent + `","KeyStorePassword":"` + canary + `","EncryptedKeyMaterial":"` + sent + `",` +
			`"XksProxyAuthenticationCredential":{"AccessKeyId":"A","RawSecretAccessKey":"` + canary + `"}}`,
		`{"Plaintext":"` + sent + `!"}`, `{"Plaintext":"` + sent, `{"Plaintext":{"` + sent + `":1}}`, `{"Message":["` + sent + `"]}`,
	} {
		for name, o := range operations() {
			var log bytes.Buffer
			config := testConfig(func(context.Context, any) (any, error) {
				out := reflect.New(o.out)
				for _, i := range o.outSecrets {
					out.Elem().Field(i).SetBytes([]byte(canary))
				}
				return out.Interface(), nil
			})
			config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			ask(t, newTestHandler(t, config), name, body)
			for _, secret := range []string{canary, sent, alice().SecretAccessKey} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("%s: %s", name, log.String())
				}
			}
		}
	}
}

// TestSecretsAreWiped: nothing of a plaintext is left in the slices that the
// operation saw, nor in the buffers that wait for the next request.
func TestSecretsAreWiped(t *testing.T) {
	const canary = "canary-plaintext"
	sent := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(canary, 300)))
	members := map[string]int{"Encrypt": 1, "Decrypt": 1, "Sign": 1, "Verify": 1, "GenerateMac": 1, "VerifyMac": 1, "GenerateDataKey": 1,
		"GenerateDataKeyPair": 1, "GenerateRandom": 1, "DeriveSharedSecret": 1, "Encapsulate": 1, "Decapsulate": 1}
	for name, o := range operations() {
		var slices [][]byte
		h := newTestHandler(t, testConfig(func(_ context.Context, in any) (any, error) {
			out := reflect.New(o.out)
			for _, i := range o.outSecrets {
				out.Elem().Field(i).SetBytes([]byte(strings.Repeat(canary, 300)))
				slices = append(slices, out.Elem().Field(i).Bytes())
			}
			for _, i := range o.inSecrets {
				slices = append(slices, reflect.ValueOf(in).Elem().Field(i).Bytes())
			}
			return out.Interface(), nil
		}))
		c := newCall()
		h.calls.New = func() any { return c }
		if w := ask(t, h, name, `{"Plaintext":"`+sent+`","Message":"`+sent+`"}`); w.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, w.status, w.body.String())
		}
		if len(slices) != members[name] {
			t.Errorf("%s has %d secrets, want %d", name, len(slices), members[name])
		}
		for _, slice := range append(slices, c.body[:cap(c.body)], c.out[:cap(c.out)]) {
			if len(bytes.Trim(slice, "\x00")) > 0 {
				t.Errorf("%s leaves %q", name, slice)
			}
		}
	}
}

// TestRegrowWipes: a buffer that is outgrown keeps nothing.
func TestRegrowWipes(t *testing.T) {
	old := append(make([]byte, 0, 64), "canary"...)
	e := encoder{old}
	e.reserve(1000)
	if string(e.buf) != "canary" || len(bytes.Trim(old[:cap(old)], "\x00")) > 0 {
		t.Errorf("%q, %q", e.buf, old)
	}
}
