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

	testSessionToken = "CanarySessionToken/+=="
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
limits: {deadline: 150ms, max_in_flight: 64, connections: 100, drain: 1m}
health: {interval: 5s, credential_age: 2160h}
log: {level: debug, ciphertext: true}
kms:
  token: main
  data: database
  vault: vault-1
  identities: credentials/kms.json
  listeners:
    - address: 127.0.0.1:8444
      tls: {certificate: tls/server.crt, key: tls/server.key}
    - address: 127.0.0.1:8445
      plain_http: true
  cloudhsm_clusters:
    cluster-abcdefghijk: {token: spare, trust_anchor: tls/hsm.crt}
    cluster-ABCDEFGHIJ234567: {token: main}
  xks_proxies: {ca: tls/proxies.crt, allow: [public, xks.corp.example, 10.1.0.0/16]}
  cache: 64
  deadline: 3s
  max_in_flight: 32
  aws_managed_keys: on-demand
`

// minimal and minimalKMS have nothing but what is required.
const (
	minimal    = "version: 1\nlisteners: [{address: 127.0.0.1:0, plain_http: true}]\n"
	minimalKMS = "version: 1\ntokens: {main: {uri: 'pkcs11:token=a'}}\n" +
		"kms: {token: main, identities: credentials/kms.json, listeners: [{address: 127.0.0.1:0, plain_http: true}]}\n"
)

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
	put(t, filepath.Join(dir, "tls", "hsm.crt"), certificate)
	put(t, filepath.Join(dir, "tls", "proxies.crt"), certificate+certificate)
	put(t, filepath.Join(dir, "credentials", "kms.json"), identitiesJSON)
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

// identitiesJSON has two identities: all of one, and the least of one that is
// used with other programs.
const identitiesJSON = `{"identities": [
  {"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": "` + testSecret + `", "sessionToken": "` + testSessionToken + `",
   "account": "111122223333", "arn": "arn:aws:sts::111122223333:assumed-role/ops/alice", "userId": "AROA:alice", "created": "2026-01-02T16:04:05+01:00"},
  {"accessKeyId": "test", "secretAccessKey": "test", "account": "000000000000"}
]}`

// testIdentities are those of identitiesJSON.
func testIdentities() []Identity {
	return []Identity{
		{
			AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: testSecret, SessionToken: testSessionToken, Account: "111122223333",
			ARN: "arn:aws:sts::111122223333:assumed-role/ops/alice", UserID: "AROA:alice", Created: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		},
		{AccessKeyID: "test", SecretAccessKey: "test", Account: "000000000000", ARN: "arn:aws:iam::000000000000:root"},
	}
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
		KMS: &KMS{
			Token: "main", Data: in("database"), Vault: "vault-1", IdentitiesFile: in("credentials/kms.json"), Identities: testIdentities(),
			Listeners: []Listener{
				{Address: "127.0.0.1:8444", TLS: &TLS{Certificate: in("tls/server.crt"), KeyFile: in("tls/server.key")}},
				{Address: "127.0.0.1:8445"},
			},
			Clusters: []Cluster{
				{ID: "cluster-abcdefghijk", Token: "spare", TrustAnchor: in("tls/hsm.crt")},
				{ID: "cluster-ABCDEFGHIJ234567", Token: "main"},
			},
			ProxyCA: in("tls/proxies.crt"), ProxyAllow: []string{"public", "xks.corp.example", "10.1.0.0/16"}, Cache: 64, Deadline: 3 * time.Second, Generation: 50 * time.Second, MaxInFlight: 32, ManagedKeys: true,
		},
		Operations: "127.0.0.1:9443",
		Limits:     Limits{150 * time.Millisecond, 64, 100, time.Minute},
		Health:     Health{5 * time.Second, 2160 * time.Hour},
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
	if want := (Limits{200 * time.Millisecond, 512, 0, 10 * time.Second}); c.Limits != want {
		t.Errorf("limits %+v, want %+v", c.Limits, want)
	}
	if want := (Health{10 * time.Second, year}); c.Health != want {
		t.Errorf("health %+v, want %+v", c.Health, want)
	}
	if want := (Log{slog.LevelInfo, false}); c.Log != want {
		t.Errorf("log %+v, want %+v", c.Log, want)
	}
}

func TestLoadKMSAlone(t *testing.T) {
	path := folder(t, minimalKMS)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := &KMS{
		Token: "main", Data: filepath.Join(dir, "kms"), Vault: "default",
		IdentitiesFile: filepath.Join(dir, "credentials", "kms.json"), Identities: testIdentities(),
		Listeners: []Listener{{Address: "127.0.0.1:0"}}, ProxyAllow: []string{"public"}, Cache: 4096, Deadline: 5 * time.Second, Generation: 50 * time.Second, MaxInFlight: 512,
	}
	if !reflect.DeepEqual(c.KMS, want) || len(c.Listeners) != 0 {
		t.Errorf("got\n%+v\nwant\n%+v", c.KMS, want)
	}
	if c, err = Load(folder(t, minimal)); err != nil || c.KMS != nil {
		t.Errorf("without a section, %v and KMS %+v", err, c.KMS)
	}
}

func TestPrintingHidesSecrets(t *testing.T) {
	c, err := Load(folder(t, full))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "uri", c.Tokens[1].URI, "credential", c.Stores[0].Credentials[0], "identity", c.KMS.Identities[0])
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", c), log.String(),
		fmt.Sprintf("%v %+v %#v", c.Stores, c.Stores, c.Stores), fmt.Sprintf("%v %+v %#v %s", c.Tokens, c.Tokens, c.Tokens, c.Tokens[1].URI),
		fmt.Sprintf("%v %+v %#v", *c.KMS, *c.KMS, *c.KMS), fmt.Sprintf("%v %+v %#v %s", c.KMS.Identities, c.KMS.Identities, c.KMS.Identities, c.KMS.Identities[0]),
	} {
		if strings.Contains(text, testSecret) || strings.Contains(text, testPIN) || strings.Contains(text, testSessionToken) {
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
		if code, ok := strings.CutPrefix(line, "//\t"); ok && !strings.HasPrefix(code, `{"`) {
			text.WriteString(code)
		}
	}
	// The documentation shows both of what exclude each other.
	yaml := strings.Replace(text.String(), "    keys: [a, b] ", "    # ", 1)
	if _, errs := parse("/hyok.yaml", []byte(yaml), nil); len(errs) > 0 || len(yaml) < 1000 {
		t.Errorf("%v in\n%s", errs, yaml)
	}
}

func TestExampleInTheManualIsAccepted(t *testing.T) {
	manual, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(manual), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if _, errs := parse("/hyok.yaml", []byte(example), nil); !found || len(errs) > 0 {
		t.Errorf("%v in\n%s", errs, example)
	}
}
