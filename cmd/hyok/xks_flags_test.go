package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const (
	testAccessKeyID = "AAAABBBBCCCCDDDD2345"
	testSecret      = "secretsecretsecretsecretsecretsecretsecret1"
)

// setXKSEnv is the environment of a shell that has sourced quickstart.env.
func setXKSEnv(t *testing.T) {
	t.Setenv(envXKSURL, "https://localhost:8443/store")
	t.Setenv(envXKSKeyID, "first")
	t.Setenv(envXKSAccessKeyID, testAccessKeyID)
	t.Setenv(envXKSSecretAccessKey, testSecret)
	t.Setenv(envXKSRegion, "eu-north-1")
	t.Setenv(envCAFile, "")
}

func parseXKSFlags(t *testing.T, args ...string) (*xksFlags, []string) {
	t.Helper()
	var f xksFlags
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &f, fs.Args()
}

func TestXKSTargetFromEnvironment(t *testing.T) {
	setXKSEnv(t)
	f, args := parseXKSFlags(t)
	got, err := f.target(args)
	if err != nil {
		t.Fatal(err)
	}
	if got.URL.String() != "https://localhost:8443/store" || got.Region != "eu-north-1" {
		t.Errorf("got %v in %s", got.URL, got.Region)
	}
	if len(got.KeyIDs) != 1 || got.KeyIDs[0] != "first" {
		t.Errorf("key ids %q", got.KeyIDs)
	}
	if got.Credential.AccessKeyID != testAccessKeyID || got.Credential.SecretAccessKey != testSecret {
		t.Errorf("wrong credential %v", got.Credential)
	}
}

func TestXKSTargetFlagsWin(t *testing.T) {
	setXKSEnv(t)
	file := filepath.Join(t.TempDir(), "secret")
	other := strings.Repeat("x", 43)
	if err := os.WriteFile(file, []byte(other+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, args := parseXKSFlags(t, "--key-id=a", "--key-id=b", "--region=us-east-1",
		"--secret-file="+file, "--access-key-id=ZZZZBBBBCCCCDDDD2345", "http://127.0.0.1:8080/p/kms/xks/v1/")
	got, err := f.target(args)
	if err != nil {
		t.Fatal(err)
	}
	if got.URL.String() != "http://127.0.0.1:8080/p" {
		t.Errorf("URL %v: the API's own path must be cut off", got.URL)
	}
	if strings.Join(got.KeyIDs, " ") != "a b" || got.Region != "us-east-1" {
		t.Errorf("got keys %q in %s", got.KeyIDs, got.Region)
	}
	if got.Credential.AccessKeyID != "ZZZZBBBBCCCCDDDD2345" || got.Credential.SecretAccessKey != other {
		t.Errorf("wrong credential %v", got.Credential)
	}
}

func TestXKSTargetUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		name, env, value string
		args             []string
		want             string
	}{
		{name: "no URL", env: envXKSURL, want: envXKSURL},
		{name: "no key", env: envXKSKeyID, want: "--key-id"},
		{name: "no access key", env: envXKSAccessKeyID, want: "--access-key-id"},
		{name: "no secret", env: envXKSSecretAccessKey, want: "--secret-file"},
		{name: "no region", env: envXKSRegion, want: "--region"},
		{name: "short secret", env: envXKSSecretAccessKey, value: "hush", want: "43 to 64"},
		{name: "scheme", args: []string{"ftp://host/"}, want: "https://"},
		{name: "query", args: []string{"https://host/?a=b"}, want: "query"},
		{name: "timeout", args: []string{"--timeout=0s"}, want: "--timeout"},
		{name: "secret file", args: []string{"--secret-file=/does/not/exist"}, want: "secret access key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			setXKSEnv(t)
			if tc.env != "" {
				t.Setenv(tc.env, tc.value)
			}
			f, args := parseXKSFlags(t, tc.args...)
			_, err := f.target(args)
			var usage *exitError
			if !errors.As(err, &usage) || usage.ExitCode() != 2 {
				t.Fatalf("got %v: want a usage error", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q does not name %q", err, tc.want)
			}
			if strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%q shows the secret", err)
			}
		})
	}
}

func TestXKSTransport(t *testing.T) {
	setXKSEnv(t)
	f, _ := parseXKSFlags(t, "--http2")
	tr, err := f.transport(7)
	if err != nil {
		t.Fatal(err)
	}
	if tr.MaxConnsPerHost != 7 || tr.Protocols.HTTP1() || !tr.Protocols.HTTP2() {
		t.Errorf("got %d connections, protocols %v", tr.MaxConnsPerHost, tr.Protocols)
	}
	for _, args := range [][]string{
		{"--ca-file=/does/not/exist"}, {"--client-cert=a.pem"}, {"--client-cert=a.pem", "--client-key=a.key"},
	} {
		f, _ := parseXKSFlags(t, args...)
		if _, err := f.transport(1); err == nil {
			t.Errorf("%q accepted", args)
		}
	}
}
