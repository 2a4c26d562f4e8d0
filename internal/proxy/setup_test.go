package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
	"github.com/hyok-kms/hyok/internal/testlog"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

var modules keystore.Modules // one for the process, as in the product

// rig is a running proxy on a real token, with the folder of its configuration.
type rig struct {
	t     testing.TB
	dir   string
	token *keystore.Token // another user of the proxy's token
	named tokentest.Named
	uri   keystore.URI // of named
	ca    *tlstest.CA
	proxy *proxy.Proxy
	log   *testlog.Buffer
}

const basicConfig = `version: 1
tokens:
  main: {uri: "TOKEN"}
stores:
  default:
    prefix: /keystores/default
    tokens: [main]
    key_pattern: "*"
    credentials: credentials/default.json
listeners:
  - {address: "127.0.0.1:0", tls: {certificate: server.crt, key: server.key}}
operations: {address: "127.0.0.1:0"}
`

// patientConfig is basicConfig where how fast the machine is must not decide.
const patientConfig = basicConfig + "limits: {deadline: 8s}\n"

// newRig makes a token and writes a configuration with one key store.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), ca: tlstest.NewCA(t), log: new(testlog.Buffer)}
	r.named = tokentest.Suite(t, &modules)
	r.uri = r.named.URI
	r.token = tokentest.Open(t, &modules, r.named.Options())
	tlstest.WriteFiles(t, r.dir, "server", r.ca.Issue(t, "localhost"))
	r.write("clients.crt", string(r.ca.PEM()))
	r.write("pin", r.named.PIN+"\n")
	r.credentials("default", xks.NewCredential())
	r.configure(basicConfig)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) credentials(store string, list ...xks.Credential) {
	var items []string
	for _, c := range list {
		items = append(items, fmt.Sprintf(`{"accessKeyId":%q,"secretAccessKey":%q,"created":"2026-01-02T15:04:05Z"}`, c.AccessKeyID, c.SecretAccessKey))
	}
	r.write("credentials/"+store+".json", `{"credentials":[`+strings.Join(items, ",")+`]}`)
}

// configure writes hyok.yaml; TOKEN stands for the token's URI.
func (r *rig) configure(text string) {
	u := r.uri
	u.PINSource = "file:pin"
	if r.named.Given {
		text = strings.ReplaceAll(text, `main: {uri: "TOKEN"`, `main: {uri: "TOKEN", profile: `+r.named.Profile.Name)
	}
	r.write(config.FileName, strings.ReplaceAll(text, "TOKEN", u.String()))
}

func (r *rig) load() *config.Config {
	r.t.Helper()
	c, err := config.Load(filepath.Join(r.dir, config.FileName))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// start starts the proxy and stops it when the test ends.
func (r *rig) start() *rig {
	r.t.Helper()
	p, err := proxy.Start(patient(r.t), r.load(), "test", slog.New(slog.NewJSONHandler(r.log, nil)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.proxy = p
	r.t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) stop() {
	if r.proxy == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.proxy.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
	r.proxy = nil
}

func (r *rig) generate(id string, usage keystore.KeyUsage) {
	r.t.Helper()
	if err := r.token.GenerateKey(patient(r.t), id, usage); err != nil {
		r.t.Fatal(err)
	}
	if r.named.Given { // it is there when the test is over
		r.t.Cleanup(func() {
			if err := r.token.DestroyKey(patient(r.t), id, 0); err != nil {
				r.t.Error(err)
			}
		})
	}
}

var both = keystore.KeyUsage{Encrypt: true, Decrypt: true}

// url is the endpoint of the default store.
func (r *rig) url() string {
	return "https://" + r.proxy.Addresses()[0].String() + "/keystores/default"
}

// client calls the default store with its first credential.
func (r *rig) client(certs ...tls.Certificate) *xks.Client {
	r.t.Helper()
	return r.clientOf("default", certs...)
}

// clientOf calls a key store with its first credential.
func (r *rig) clientOf(store string, certs ...tls.Certificate) *xks.Client {
	r.t.Helper()
	stores := r.load().Stores
	s := stores[slices.IndexFunc(stores, func(s config.Store) bool { return s.Name == store })]
	transport := &http.Transport{TLSClientConfig: r.tlsClient(certs...)}
	r.t.Cleanup(transport.CloseIdleConnections)
	c, err := xks.NewClient("https://"+r.proxy.Addresses()[0].String()+s.Prefix, s.Credentials[0].Credential, "us-east-1", xks.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) tlsClient(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: r.ca.Pool(), Certificates: certs}
}

func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.proxy.OperationsAddress().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

var metadata = xks.RequestMetadata{
	AWSPrincipalARN: "arn:aws:iam::123456789012:user/Alice", KMSKeyARN: "arn:aws:kms:us-east-1:123456789012:key/1",
	KMSOperation: "Encrypt", KMSRequestID: "request-1",
}

func encryptRequest(plaintext, aad string) *xks.EncryptRequest {
	q := &xks.EncryptRequest{RequestMetadata: metadata, Plaintext: []byte(plaintext), Algorithm: xks.AlgorithmAESGCM, CDIVAlgorithm: xks.CDIVSHA256}
	if aad != "" {
		q.AAD = []byte(aad)
	}
	return q
}

func decryptRequest(s *xks.EncryptResponse, aad string) *xks.DecryptRequest {
	q := &xks.DecryptRequest{RequestMetadata: metadata, Ciphertext: s.Ciphertext, IV: s.IV, Tag: s.Tag, Metadata: s.Metadata, Algorithm: xks.AlgorithmAESGCM}
	if aad != "" {
		q.AAD = []byte(aad)
	}
	return q
}

// patient bounds what a test waits for, far above what it should take.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
