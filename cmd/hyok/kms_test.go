package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/internal/config"
)

const testCluster = "cluster-abcdefgh234"

// served is a data folder that a process of its own serves.
type served struct {
	t      *testing.T
	dir    string
	env    map[string]string // of quickstart.env, with the ports that are served at
	xksURL string            // of the listener
}

// serveKMS makes a data folder with a second token, as a CloudHSM cluster, and
// serves it.
func serveKMS(t *testing.T) *served {
	t.Helper()
	s := &served{t: t, dir: filepath.Join(t.TempDir(), "data")}
	s.hyok("init", "--listen", "127.0.0.1:0", "--kms-listen", "127.0.0.1:0", "--operations", "")
	s.env = assignments(t, s.dir)
	s.hyok("token", "init", "hsm", "--module", s.env["HYOK_PKCS11_MODULE"], "--so-pin-file", filepath.Join(s.dir, "so-pin"), "--pin-file", filepath.Join(s.dir, "so-pin"))
	file := filepath.Join(s.dir, config.FileName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at, added := range map[string]string{
		"\ntokens:\n": fmt.Sprintf("  hsm: {uri: \"pkcs11:token=hsm?module-path=%s\", profile: softhsm2}\n", s.env["HYOK_PKCS11_MODULE"]),
		"\nkms:\n":    "  cloudhsm_clusters:\n    " + testCluster + ": {token: hsm}\n",
	} {
		text = bytes.Replace(text, []byte(at), []byte(at+added), 1)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

// hyok runs a command on the data folder.
func (s *served) hyok(args ...string) {
	s.t.Helper()
	if out, err := program(s.t, append(args, "--data", s.dir)...).CombinedOutput(); err != nil {
		s.t.Fatalf("hyok %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start serves until the test ends, and reads where.
func (s *served) start() {
	s.t.Helper()
	cmd := program(s.t, "serve", "--data", s.dir, "--log-file", filepath.Join(s.dir, "log"))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) || stderr.Len() > 0 {
			s.t.Errorf("serve ended with %v and %q", err, stderr.String())
		}
	})
	lines := bufio.NewScanner(stdout)
	for s.env["AWS_ENDPOINT_URL_KMS"] == "https://127.0.0.1:0" && lines.Scan() {
		_, at, _ := strings.Cut(lines.Text(), ": ")
		at, _, _ = strings.Cut(at, " (")
		switch {
		case strings.HasPrefix(lines.Text(), "Key store default: "):
			s.xksURL, _, _ = strings.Cut(at, "/keystores/")
		case strings.HasPrefix(lines.Text(), "AWS KMS API: "):
			s.env["AWS_ENDPOINT_URL_KMS"], s.env["AWS_ENDPOINT_URL_STS"] = at, at
		}
	}
	if s.xksURL == "" || lines.Err() != nil {
		s.t.Fatalf("serve does not say where: %v\n%s", lines.Err(), stderr.String())
	}
}

// client returns the official client, as quickstart.env has it.
func (s *served) client() *kms.Client {
	s.t.Helper()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(s.env["AWS_CA_BUNDLE"])
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		s.t.Fatal("no authority:", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return kms.New(kms.Options{
		Region: s.env["AWS_REGION"], BaseEndpoint: aws.String(s.env["AWS_ENDPOINT_URL_KMS"]), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(s.env["AWS_ACCESS_KEY_ID"], s.env["AWS_SECRET_ACCESS_KEY"], s.env["AWS_SESSION_TOKEN"]),
	})
}

// The whole product, as separate processes: the official client and the aws CLI
// use keys in the embedded KMS, also such as are encrypted once more by the XKS
// proxy of the same process, until their external key is disabled.
func TestKMSQuickstart(t *testing.T) {
	s := serveKMS(t)
	c := s.client()
	external, cluster := s.externalStore(c), s.clusterStore(c)
	t.Run("double encryption", func(t *testing.T) { s.doubleEncryption(t, c, external) })
	t.Run("README", s.readme)
	t.Run("create-key", func(t *testing.T) { s.createKeyForms(t, c, external, cluster) })
}

// patiently calls again what was refused because the proxy took longer than AWS
// KMS waits for it, which on a busy machine happens.
func patiently[I, O any](ctx context.Context, do func(context.Context, *I, ...func(*kms.Options)) (*O, error), in *I) (out *O, err error) {
	for range 20 {
		if out, err = do(ctx, in); err == nil || !strings.Contains(err.Error(), "Retry the request") {
			break
		}
	}
	return out, err
}

// connected connects a new custom key store.
func (s *served) connected(c *kms.Client, in *kms.CreateCustomKeyStoreInput) (id *string) {
	s.t.Helper()
	ctx := s.t.Context()
	out, err := patiently(ctx, c.CreateCustomKeyStore, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: out.CustomKeyStoreId}); err != nil {
		s.t.Fatal(err)
	}
	soon(s.t, "the key store connects", func() bool {
		list, err := c.DescribeCustomKeyStores(ctx, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: out.CustomKeyStoreId})
		if err != nil || list.CustomKeyStores[0].ConnectionState == types.ConnectionStateTypeFailed {
			s.t.Fatal(err, list)
		}
		return list.CustomKeyStores[0].ConnectionState == types.ConnectionStateTypeConnected
	})
	return out.CustomKeyStoreId
}

// externalStore is a key store at the XKS proxy of the same process.
func (s *served) externalStore(c *kms.Client) *string {
	s.t.Helper()
	path := strings.TrimPrefix(s.env["HYOK_XKS_URL"], "https://127.0.0.1:0") + "/kms/xks/v1"
	return s.connected(c, &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String("external"), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
		XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint,
		XksProxyUriEndpoint:  aws.String(strings.Replace(s.xksURL, "127.0.0.1", "localhost", 1)), XksProxyUriPath: &path,
		XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
			AccessKeyId: aws.String(s.env["HYOK_XKS_ACCESS_KEY_ID"]), RawSecretAccessKey: aws.String(s.env["HYOK_XKS_SECRET_ACCESS_KEY"]),
		},
	})
}

// clusterStore is a key store in the second token.
func (s *served) clusterStore(c *kms.Client) *string {
	s.t.Helper()
	pin, err := os.ReadFile(filepath.Join(s.dir, "so-pin"))
	if err != nil {
		s.t.Fatal(err)
	}
	ca, err := os.ReadFile(s.env["AWS_CA_BUNDLE"])
	if err != nil {
		s.t.Fatal(err)
	}
	return s.connected(c, &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String("cluster"), CloudHsmClusterId: aws.String(testCluster),
		KeyStorePassword: aws.String(strings.TrimSpace(string(pin))), TrustAnchorCertificate: aws.String(string(ca)),
	})
}

// doubleEncryption stops a KMS key by its external key, and starts it again.
func (s *served) doubleEncryption(t *testing.T, c *kms.Client, store *string) {
	ctx := t.Context()
	external := s.env["HYOK_XKS_KEY_ID"]
	key, err := patiently(ctx, c.CreateKey, &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: store, XksKeyId: &external})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := patiently(ctx, c.Encrypt, &kms.EncryptInput{KeyId: key.KeyMetadata.KeyId, Plaintext: []byte("Hello World!")})
	if err != nil {
		t.Fatal(err)
	}
	decrypt := func() (string, error) {
		out, err := patiently(ctx, c.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
		if err != nil {
			return "", err
		}
		return string(out.Plaintext), nil
	}
	if text, err := decrypt(); err != nil || text != "Hello World!" {
		t.Fatalf("decrypted to %q, %v", text, err)
	}
	s.hyok("key", "disable", external, "--token", "main")
	soon(t, "the disabled external key is refused", func() bool {
		_, err := decrypt()
		var state *types.KMSInvalidStateException
		return errors.As(err, &state) && strings.Contains(state.ErrorMessage(), "external key")
	})
	s.hyok("key", "enable", external, "--token", "main")
	soon(t, "the enabled external key decrypts the old ciphertext", func() bool {
		text, err := decrypt()
		return err == nil && text == "Hello World!"
	})
}
