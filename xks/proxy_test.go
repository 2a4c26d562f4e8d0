package xks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/hyok-kms/hyok/internal/sigv4"
	"github.com/hyok-kms/hyok/internal/testlog"
	"go.uber.org/goleak"
)

// net/http waits for half a second before it lets go of a connection that it ends.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

var testCredential = Credential{
	AccessKeyID:     "AAAAAAAAAAAAAAAAAAAAAAAA",
	SecretAccessKey: "0123456789abcdefghijklmnopqrstuvwxyz/+ABCDEFGH=",
}

// proxy is a server behind a listener on the loopback interface.
type proxy struct {
	server   *Server
	listener *Listener
	keys     *memKeys
	config   Config
	logs     *testlog.Buffer
	roots    *x509.CertPool
	seen     chan Observation
}

// testConfig is one store "main" under /t1 with the key "key-1".
func testConfig(keys Keys) Config {
	return Config{
		Stores: []Store{{
			Name: "main", Prefix: "/t1", Keys: keys,
			Allow: func(id string) bool {
				if !validKeyID(id) {
					panic("asked about what is no key id")
				}
				return !strings.HasPrefix(id, "foreign")
			},
			Credentials: []Credential{testCredential},
			Regions:     []string{"us-east-1", "eu-west-1"},
		}},
		Deadline: 5 * time.Second, // tests that are not about it must not depend on it
	}
}

// startProxy serves over TLS until the test ends. change may be nil.
func startProxy(t *testing.T, change func(*Config)) *proxy {
	t.Helper()
	ca := newTestCA(t)
	return startProxyWith(t, change, &TLSOptions{Certificate: ca.issue(t, "localhost")}, ca.pool)
}

func startProxyWith(t *testing.T, change func(*Config), options *TLSOptions, roots *x509.CertPool) *proxy {
	t.Helper()
	p := &proxy{keys: newMemKeys("key-1"), logs: new(testlog.Buffer), roots: roots, seen: make(chan Observation, 1000)}
	p.config = testConfig(p.keys)
	if change != nil {
		change(&p.config)
	}
	logger := slog.New(slog.NewJSONHandler(p.logs, nil))
	var err error
	p.server, err = NewServer(p.config, logger, func(o Observation) { p.seen <- o })
	if err != nil {
		t.Fatal(err)
	}
	p.listener = serveOn(t, p.server, ListenerOptions{TLS: options, Logger: logger})
	return p
}

// serveOn serves a handler on a free port until the test ends.
func serveOn(t testing.TB, handler http.Handler, options ListenerOptions) *Listener {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewListener(inner, handler, options)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what a test left open is cut off
		_ = l.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l
}

// client returns a client that speaks HTTP/2 or HTTP/1.1.
func (p *proxy) client(t *testing.T, http2 bool, certs ...tls.Certificate) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{RootCAs: p.roots, ServerName: "localhost", Certificates: certs},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (p *proxy) url(path string) string {
	scheme := "https://"
	if p.listener.tls.Load() == nil {
		scheme = "http://"
	}
	return scheme + p.listener.Addr().String() + path
}

const keyPath = "/t1/kms/xks/v1/keys/key-1/"

// body is a request as JSON members.
type body map[string]any

func requestMetadata() body {
	return body{
		"awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
		"kmsKeyArn":       "arn:aws:kms:us-east-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"kmsOperation":    "Encrypt",
		"kmsRequestId":    "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
		"kmsViaService":   "ebs",
	}
}

func encryptBody() body {
	return body{
		"requestMetadata":             requestMetadata(),
		"additionalAuthenticatedData": "cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n",
		"plaintext":                   "SGVsbG8gV29ybGQh",
		"encryptionAlgorithm":         "AES_GCM",
	}
}

// with returns a copy with other members; a nil value removes one. A name with
// a dot is a member of requestMetadata.
func (b body) with(changes body) body {
	b = maps.Clone(b)
	for name, value := range changes {
		target := b
		if rest, ok := strings.CutPrefix(name, "requestMetadata."); ok {
			target = maps.Clone(b["requestMetadata"].(body))
			b["requestMetadata"] = target
			name = rest
		}
		if value == nil {
			delete(target, name)
		} else {
			target[name] = value
		}
	}
	return b
}

func (b body) json() []byte {
	out, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return out
}

func newRequest(t *testing.T, method, url string, content []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

func sign(r *http.Request, content []byte) {
	signAt(r, content, testCredential, "us-east-1", time.Now())
}

func signAt(r *http.Request, content []byte, cred Credential, region string, at time.Time) {
	sigv4.Sign(r, content, cred.AccessKeyID, sigv4.NewSecret(cred.SecretAccessKey), region, Service, at)
}

// answer is a response read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	major  int  // of HTTP
	closed bool // the connection ends with this answer
}

func do(t *testing.T, client *http.Client, r *http.Request) answer {
	t.Helper()
	return start(client, r)(t)
}

// start sends a request in the background; the function waits for its answer.
func start(client *http.Client, r *http.Request) func(t *testing.T) answer {
	var got answer
	done := make(chan error, 1)
	go func() {
		response, err := client.Do(r)
		if err == nil {
			got = answer{status: response.StatusCode, header: response.Header, major: response.ProtoMajor, closed: response.Close}
			got.body, err = io.ReadAll(response.Body)
			_ = response.Body.Close() // it has been read
		}
		done <- err
	}()
	return func(t *testing.T) answer {
		t.Helper()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return got
	}
}

// post sends a signed request.
func (p *proxy) post(t *testing.T, client *http.Client, path string, content []byte) answer {
	t.Helper()
	r := newRequest(t, http.MethodPost, p.url(path), content)
	sign(r, content)
	return do(t, client, r)
}

// decodeInto checks that the answer is a success and reads it.
func (a answer) decodeInto(t *testing.T, out any) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	a.checkForm(t)
	if err := json.Unmarshal(a.body, out, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// checkForm checks what every answer but 405 has.
func (a answer) checkForm(t *testing.T) {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if a.header.Get("Content-Length") == "" {
		t.Error("no Content-Length")
	}
}

// wantError checks that the answer is this error, in the form of the table.
func (a answer) wantError(t *testing.T, name ErrorName) {
	t.Helper()
	a.checkForm(t)
	var e ErrorResponse
	if err := json.Unmarshal(a.body, &e, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if e.Name != name || a.status != name.Status() {
		t.Errorf("got %d %s (%s), want %d %s", a.status, e.Name, e.Message, name.Status(), name)
	}
	if e.Message == "" || len(e.Message) >= 512 || strings.ContainsFunc(e.Message, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		t.Errorf("errorMessage %q", e.Message)
	}
}

// testCA issues certificates for both sides.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newECKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{cert: cert, key: key, pool: x509.NewCertPool()}
	ca.pool.AddCert(cert)
	return ca
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (ca *testCA) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key := newECKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
