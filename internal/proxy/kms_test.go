package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/internal/tokentest"
)

const kmsConfig = basicConfig + `kms:
  token: main
  data: kms
  identities: credentials/kms.json
  listeners:
    - {address: "127.0.0.1:0", tls: {certificate: server.crt, key: server.key}}
  xks_proxies: {ca: ca.crt, allow: [127.0.0.1]}
`

// newKMSRig is newRig with the embedded KMS and one identity.
func newKMSRig(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.write("ca.crt", string(r.ca.PEM()))
	r.identity("first", "secret-of-the-first")
	r.configure(kmsConfig)
	return r
}

func (r *rig) identity(id, secret string) {
	r.write("credentials/kms.json", `{"identities":[{"accessKeyId":"`+id+`","secretAccessKey":"`+secret+`","account":"111122223333"}]}`)
}

// kms returns the official client, signing as an identity. It does not retry.
func (r *rig) kms(id, secret string) *kms.Client {
	r.t.Helper()
	transport := &http.Transport{TLSClientConfig: r.tlsClient()}
	r.t.Cleanup(transport.CloseIdleConnections)
	return kms.New(kms.Options{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String("https://" + r.proxy.KMSAddresses()[0].String()),
		Credentials:  credentials.NewStaticCredentialsProvider(id, secret, ""),
		HTTPClient:   &http.Client{Transport: transport},
		Retryer:      aws.NopRetryer{},
	})
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// The whole server: a key that is made is there after a restart, in a database
// that only its owner reads, and its requests are in the log and the metrics.
func TestKMS(t *testing.T) {
	r := newKMSRig(t).start()
	ctx := patient(t)
	c := r.kms("first", "secret-of-the-first")
	key, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyMetadata.Arn, Plaintext: []byte("canary-plaintext")})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(r.dir, "kms", "kms.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the database: %v, %v", info, err)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, `hyok_kms_request_duration_seconds_count{error="",operation="Encrypt"} 1`) ||
		!strings.Contains(metrics, `hyok_token_health{state="active",token="main/kms"} 1`) ||
		!strings.Contains(metrics, "\nhyok_kms_unwraps_total 0\n") || // what was made is unwrapped
		!strings.Contains(metrics, "\nhyok_kms_keys_cached 3\n") ||
		!strings.Contains(metrics, "\nhyok_kms_database_broken 0\n") {
		t.Errorf("metrics lack the KMS:\n%s", metrics)
	}
	r.stop()
	if log := r.log.String(); strings.Contains(log, "canary") || strings.Contains(log, "secret-of") || !strings.Contains(log, `"operation":"Encrypt"`) {
		t.Errorf("the log:\n%s", log)
	}

	r.start()
	opened, err := r.kms("first", "secret-of-the-first").Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	if err != nil || string(opened.Plaintext) != "canary-plaintext" {
		t.Errorf("after a restart: %v, %v", opened, err)
	}
}

// The AWS managed keys, where they are configured, as Terraform's provider looks for
// one: the alias is listed without a key, describing it makes the key, and that
// outlives the server.
func TestManagedKeys(t *testing.T) {
	r := newKMSRig(t)
	r.configure(kmsConfig + "  aws_managed_keys: on-demand\n")
	r.start()
	ctx := patient(t)
	target := func() string {
		t.Helper()
		list, err := r.kms("first", "secret-of-the-first").ListAliases(ctx, &kms.ListAliasesInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list.Aliases {
			if *a.AliasName == "alias/aws/s3" {
				return aws.ToString(a.TargetKeyId)
			}
		}
		t.Fatal("the alias is not listed")
		return ""
	}
	if id := target(); id != "" {
		t.Fatalf("before anybody asked, the alias names %s", id)
	}
	out, err := r.kms("first", "secret-of-the-first").DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/aws/s3")})
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start()
	if id := target(); id != *out.KeyMetadata.KeyId {
		t.Errorf("after a restart the alias names %q, not %s", id, *out.KeyMetadata.KeyId)
	}
}

// Identities change without a restart; what cannot change is refused and changes
// nothing.
func TestReloadKMS(t *testing.T) {
	r := newKMSRig(t).start()
	ctx := patient(t)
	list := func(id, secret string) error {
		_, err := r.kms(id, secret).ListKeys(ctx, &kms.ListKeysInput{})
		return err
	}
	if err := list("first", "secret-of-the-first"); err != nil {
		t.Fatal(err)
	}
	r.identity("second", "secret-of-the-second")
	if err := r.proxy.Reload(ctx, r.load()); err != nil {
		t.Fatal(err)
	}
	if err := list("second", "secret-of-the-second"); err != nil {
		t.Error(err)
	}
	if got := code(list("first", "secret-of-the-first")); got != "UnrecognizedClientException" {
		t.Errorf("the former identity gets %q", got)
	}
	for name, change := range map[string][2]string{
		"another folder":    {"data: kms", "data: elsewhere"},
		"another address":   {`    - {address: "127.0.0.1:0"`, `    - {address: "127.0.0.1:1"`},
		"other settings":    {`{uri: "TOKEN"}`, `{uri: "TOKEN", sessions: 3}`},
		"another vault":     {"token: main", "token: main\n  vault: other"},
		"no KMS any more":   {"kms:\n  token: main\n  data: kms\n  identities: credentials/kms.json\n  listeners:\n    - {address: \"127.0.0.1:0\", tls: {certificate: server.crt, key: server.key}}\n  xks_proxies: {ca: ca.crt, allow: [127.0.0.1]}\n", ""},
		"other trust roots": {"ca: ca.crt", "ca: server.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(kmsConfig, change[0]) {
				t.Fatal("nothing is changed")
			}
			r.configure(strings.ReplaceAll(kmsConfig, change[0], change[1]))
			if err := r.proxy.Reload(ctx, r.load()); err == nil || !strings.Contains(err.Error(), "restart") {
				t.Errorf("reload: %v", err)
			}
			if err := list("second", "secret-of-the-second"); err != nil {
				t.Error(err)
			}
		})
	}
}

// The KMS alone can be served, with a token that no key store has.
func TestKMSAlone(t *testing.T) {
	r := newKMSRig(t)
	_, rest, _ := strings.Cut(kmsConfig, "kms:\n")
	r.configure("version: 1\ntokens:\n  main: {uri: \"TOKEN\"}\nkms:\n" + rest)
	r.start()
	if _, err := r.kms("first", "secret-of-the-first").GenerateRandom(context.Background(), &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(16)}); err != nil {
		t.Error(err)
	}
	if err := r.proxy.Ready(); err != nil {
		t.Error(err)
	}
}

// What is no HTTP gets an answer in the form of the KMS API on its listener.
func TestMalformedRequestToKMS(t *testing.T) {
	r := newKMSRig(t).start()
	resp, err := http.Post("http://"+r.proxy.KMSAddresses()[0].String()+"/", "application/x-amz-json-1.1", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		t.Errorf("HTTP on an HTTPS port: %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

// A start without the root key makes no other in its place: what was wrapped
// under it is refused as what cannot be used now, and so are new keys.
func TestKMSWithoutItsRootKey(t *testing.T) {
	r := newKMSRig(t).start()
	ctx := patient(t)
	key, err := r.kms("first", "secret-of-the-first").CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	cmd := exec.CommandContext(ctx, "pkcs11-tool", "--module", r.uri.ModulePath, "--token-label", r.uri.Token, "--login", "--pin", tokentest.PIN,
		"--delete-object", "--type", "secrkey", "--label", "hyok.root.default")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	for range 2 { // the second start must not find one that the first has made
		r.start()
		c := r.kms("first", "secret-of-the-first")
		if _, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyMetadata.KeyId, Plaintext: []byte("p")}); code(err) != "KMSInvalidStateException" {
			t.Errorf("Encrypt: %v", err)
		}
		if _, err := c.CreateKey(ctx, &kms.CreateKeyInput{}); code(err) != "KMSInvalidStateException" {
			t.Errorf("CreateKey: %v", err)
		}
		if err := r.proxy.Ready(); err == nil || !strings.Contains(err.Error(), "hyok.root.default") {
			t.Errorf("it is ready: %v", err)
		}
		r.stop()
	}
}
