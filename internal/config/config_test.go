package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

const (
	testID     = "AAAAAAAAAAAAAAAAAAAA"
	testSecret = "CanarySecretCanarySecretCanarySecretCanarySecret"
	testPIN    = "CanaryPIN"
)

// full has every member of the format.
const full = `# our proxy
version: 1
softhsm2_conf: softhsm2.conf
tokens:
  main:   # the first one
    uri: pkcs11:token=hyok?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin
    profile: softhsm2
    sessions: 32
    allow_pin_value: false
  spare:
    uri: pkcs11:token=spare?pin-value=CanaryPIN
    allow_pin_value: true
stores:
  default:
    prefix: /keystores/default
    tokens: [main, spare]
    keys: [a, "7"]
    credentials: credentials/default.json
    regions: [eu-central-1, us-gov-west-1]
    rate_limit: {per_second: 1800}
    sample_metadata: djAuMC4x
  # the other one
  prod:
    tokens: [main]
    key_pattern: "prod-*"
    credentials: credentials/prod.json
listeners:
  - address: 127.0.0.1:8443
    tls:
      certificate: tls/server.crt
      key: tls/server.key
      client_ca: tls/server.crt
      client_subjects: [cks.kms.eu-central-1.amazonaws.com]
  - address: "[::1]:8443"
    tls: {certificate: tls/server.crt, key: "pkcs11:token=hyok;object=tls"}
  - address: 127.0.0.1:8080
    plain_http: true
  - address: 0.0.0.0:8081
    plain_http: true
    behind_tls_terminator: true
operations: {address: 127.0.0.1:9443}
limits: {deadline: 150ms, max_in_flight: 64, drain: 1m}
health: {interval: 5s}
log: {level: debug, ciphertext: true}
`

// minimal has nothing but what is required.
const minimal = "version: 1\nlisteners: [{address: 127.0.0.1:0, plain_http: true}]\n"

// folder makes a data folder with this configuration and the files that full
// names, and returns the path of the configuration file.
func folder(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "softhsm2.conf"), "")
	put(t, filepath.Join(dir, "credentials", "default.json"), credentialsJSON(testID))
	put(t, filepath.Join(dir, "credentials", "prod.json"), credentialsJSON("BBBBBBBBBBBBBBBBBBBB"))
	certificate, key := newCertificate(t)
	put(t, filepath.Join(dir, "tls", "server.crt"), certificate)
	put(t, filepath.Join(dir, "tls", "server.key"), key)
	path := filepath.Join(dir, FileName)
	put(t, path, text)
	return path
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func credentialsJSON(id string) string {
	return fmt.Sprintf(`{"credentials": [{"accessKeyId": %q, "secretAccessKey": %q, "created": "2026-01-02T15:04:05Z"}]}`, id, testSecret)
}

// newCertificate returns a self-signed certificate and its key, in PEM.
func newCertificate(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(name string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

func TestLoadFull(t *testing.T) {
	path := folder(t, full)
	c, err := Load(path, "softhsm2", "luna")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	in := func(name string) string { return filepath.Join(dir, name) }
	created := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	credential := func(id string) []Credential {
		return []Credential{{xks.Credential{AccessKeyID: id, SecretAccessKey: testSecret}, created}}
	}
	want := &Config{
		Path:         path,
		SoftHSM2Conf: in("softhsm2.conf"),
		Tokens: []Token{
			{Name: "main", URI: "pkcs11:token=hyok?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin", Profile: "softhsm2", Sessions: 32},
			{Name: "spare", URI: "pkcs11:token=spare?pin-value=CanaryPIN", Profile: "softhsm2", Sessions: 0, AllowPINValue: true},
		},
		Stores: []Store{
			{
				Name: "default", Prefix: "/keystores/default", Tokens: []string{"main", "spare"}, Keys: []string{"a", "7"},
				CredentialsFile: in("credentials/default.json"), Credentials: credential(testID),
				Regions: []string{"eu-central-1", "us-gov-west-1"}, RateLimit: &RateLimit{1800, 1800}, SampleMetadata: []byte("v0.0.1"),
			},
			{
				Name: "prod", Tokens: []string{"main"}, KeyPattern: "prod-*",
				CredentialsFile: in("credentials/prod.json"), Credentials: credential("BBBBBBBBBBBBBBBBBBBB"),
			},
		},
		Listeners: []Listener{
			{Address: "127.0.0.1:8443", TLS: &TLS{
				Certificate: in("tls/server.crt"), KeyFile: in("tls/server.key"),
				ClientCA: in("tls/server.crt"), ClientSubjects: []string{"cks.kms.eu-central-1.amazonaws.com"},
			}},
			{Address: "[::1]:8443", TLS: &TLS{Certificate: in("tls/server.crt"), KeyURI: "pkcs11:token=hyok;object=tls"}},
			{Address: "127.0.0.1:8080"},
			{Address: "0.0.0.0:8081", BehindTLSTerminator: true},
		},
		Operations: "127.0.0.1:9443",
		Limits:     Limits{150 * time.Millisecond, 64, time.Minute},
		Health:     Health{5 * time.Second},
		Log:        Log{slog.LevelDebug, true},
	}
	c.seen = nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
	if uri := c.Store("default").URIPath(); uri != "/keystores/default/kms/xks/v1" {
		t.Errorf("URIPath() = %q", uri)
	}
	if c.Store("none") != nil || c.Token("none") != nil || c.Token("spare").Name != "spare" {
		t.Error("Store and Token do not find by name")
	}
}

func TestLoadDefaults(t *testing.T) {
	c, err := Load(folder(t, minimal))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Limits{200 * time.Millisecond, 512, 10 * time.Second}); c.Limits != want {
		t.Errorf("limits %+v, want %+v", c.Limits, want)
	}
	if want := (Health{10 * time.Second}); c.Health != want {
		t.Errorf("health %+v, want %+v", c.Health, want)
	}
	if want := (Log{slog.LevelInfo, false}); c.Log != want {
		t.Errorf("log %+v, want %+v", c.Log, want)
	}
}

func TestPrintingHidesSecrets(t *testing.T) {
	c, err := Load(folder(t, full))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "uri", c.Tokens[1].URI, "credential", c.Stores[0].Credentials[0])
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", c), log.String(),
		fmt.Sprintf("%v %+v %#v", c.Stores, c.Stores, c.Stores), fmt.Sprintf("%v %+v %#v %s", c.Tokens, c.Tokens, c.Tokens, c.Tokens[1].URI),
	} {
		if strings.Contains(text, testSecret) || strings.Contains(text, testPIN) {
			t.Errorf("a secret is printed: %s", text)
		}
	}
}

func TestExampleInDocumentationIsAccepted(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(source)) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok && !strings.HasPrefix(code, `{"credentials"`) {
			text.WriteString(code)
		}
	}
	// The documentation shows both of what exclude each other.
	yaml := strings.Replace(text.String(), "    keys: [a, b] ", "    # ", 1)
	if _, errs := parse("/hyok.yaml", []byte(yaml), nil); len(errs) > 0 || len(yaml) < 1000 {
		t.Errorf("%v in\n%s", errs, yaml)
	}
}
