package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// verifyProxy starts something that answers every request as if it were
// GetHealthStatus, and puts into the environment how to reach it.
func verifyProxy(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"xksProxyFleetSize":0}`)) // to a peer that may be gone
	}))
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	credential := xks.NewCredential()
	t.Setenv(envXKSURL, server.URL+"/prefix")
	t.Setenv(envXKSKeyID, "key")
	t.Setenv(envXKSAccessKeyID, credential.AccessKeyID)
	t.Setenv(envXKSSecretAccessKey, credential.SecretAccessKey)
	t.Setenv(envXKSRegion, "us-east-1")
	t.Setenv(envCAFile, ca)
	return credential.SecretAccessKey
}

// runVerify returns what the command prints and its exit code.
func runVerify(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := newXKSVerifyCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &coded):
		return out.String(), coded.ExitCode()
	}
	t.Fatalf("error without exit code: %v", err)
	return "", 0
}

func TestVerifyExitCodes(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		want int
	}{
		"conforms":            {args: []string{"--only", "transport.https", "--only", "uri.length"}},
		"does not conform":    {args: []string{"--only", "health.fleet-size"}, want: 1},
		"skipped":             {args: []string{"--only", "health.fleet-size", "--only", "uri.length", "--skip", "health"}},
		"unknown check":       {args: []string{"--only", "nothing"}, want: 2},
		"unknown format":      {args: []string{"-o", "yaml"}, want: 2},
		"unknown flag":        {args: []string{"--insecure"}, want: 2},
		"two URLs":            {args: []string{"https://a.example", "https://b.example"}, want: 2},
		"two keys":            {args: []string{"--key-id", "a", "--key-id", "b"}, want: 2},
		"no URL":              {env: map[string]string{envXKSURL: ""}, want: 2},
		"unreachable":         {args: []string{"https://127.0.0.1:1"}, want: 2},
		"certificate unknown": {env: map[string]string{envCAFile: ""}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			secret := verifyProxy(t)
			for key, value := range test.env {
				t.Setenv(key, value)
			}
			out, code := runVerify(t, test.args...)
			if code != test.want {
				t.Errorf("exit code %d, want %d\n%s", code, test.want, out)
			}
			if strings.Contains(out, secret) {
				t.Error("the output holds the secret")
			}
		})
	}
}

func TestVerifyText(t *testing.T) {
	verifyProxy(t)
	out, _ := runVerify(t, "--only", "health.fleet-size", "--only", "uri.length", "--only", "usage.impotent.metadata")
	for _, want := range []string{
		"PASS  uri.length ", "FAIL  health.fleet-size ", "[GetHealthStatus]", "want an integer greater than zero as xksProxyFleetSize, got \"0\"",
		"SKIP  usage.impotent.metadata ", "1 passed, 1 failed, 0 warnings, 1 not checked",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours without a terminal")
	}
}

func TestVerifyJSON(t *testing.T) {
	verifyProxy(t)
	out, code := runVerify(t, "-o", "json", "--only", "health.fleet-size", "--only", "uri.length")
	var got verifyDocument
	document, _, _ := strings.Cut(out, "\nError:")
	if err := json.Unmarshal([]byte(document), &got); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	want := verifySummary{Passed: 1, Failed: 1}
	if code != 1 || got.Summary != want || len(got.Results) != 2 || got.Results[1].Status != "fail" || got.Results[1].Detail == "" {
		t.Errorf("exit code %d, document %+v", code, got)
	}
}
