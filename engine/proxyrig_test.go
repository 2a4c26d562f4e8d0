package engine_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// proxyRig is an XKS proxy over TLS whose external keys are in a real token.
type proxyRig struct {
	t           testing.TB
	token       *keystore.Token
	server      *httptest.Server
	keys        *tokenKeys
	credentials map[string]xks.Credential // by prefix
	client      *http.Client              // trusts the proxy; for engine.Config
	proxy       http.Handler
	front       atomic.Pointer[http.HandlerFunc] // in place of the proxy

	mu       sync.Mutex
	requests []request // guarded by mu
}

// request is what the proxy was asked.
type request struct {
	path string
	body []byte
}

// Two key stores of one proxy.
const (
	prefixA = "/a"
	prefixB = "/b"
)

func newProxyRig(t testing.TB) *proxyRig {
	t.Helper()
	r := &proxyRig{t: t, credentials: map[string]xks.Credential{prefixA: xks.NewCredential(), prefixB: xks.NewCredential()}}
	r.token = tokentest.Open(t, &modules, tokentest.Options(tokentest.NewToken(t, &modules)))
	r.keys = &tokenKeys{token: r.token}
	config := xks.Config{Deadline: time.Minute}
	for prefix, credential := range r.credentials {
		config.Stores = append(config.Stores, xks.Store{
			Name: prefix, Prefix: prefix, Keys: r.keys, Allow: func(string) bool { return true }, Credentials: []xks.Credential{credential},
		})
	}
	proxy, err := xks.NewServer(config, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.proxy = proxy
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		r.requests = append(r.requests, request{q.URL.Path, body})
		r.mu.Unlock()
		if front := r.front.Load(); front != nil {
			(*front)(w, q)
			return
		}
		proxy.ServeHTTP(w, q)
	}))
	ca := tlstest.NewCA(t)
	r.server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "localhost")}}
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	r.client = &http.Client{Transport: transport}
	return r
}

// use has an engine call the proxy, however slow the machine is.
func (r *proxyRig) use(c *engine.Config) { c.Proxies, c.ProxyTimeout = r.client, time.Minute }

// answer has the proxy answer everything so; nil: as it does.
func (r *proxyRig) answer(front http.HandlerFunc) {
	if front == nil {
		r.front.Store(nil)
		return
	}
	r.front.Store(&front)
}

// fails has the proxy answer everything with an error.
func (r *proxyRig) fails(name xks.ErrorName) {
	r.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(name.Status())
		_, _ = io.WriteString(w, `{"errorName":"`+string(name)+`","errorMessage":"said by the proxy"}`)
	})
}

// asked returns what the proxy was asked since the last time.
func (r *proxyRig) asked() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.requests
	r.requests = nil
	return list
}

func (r *proxyRig) generate(ids ...string) {
	r.t.Helper()
	if err := r.token.GenerateKeys(r.t.Context(), ids, keystore.KeyUsage{Encrypt: true, Decrypt: true}, func(int) {}); err != nil {
		r.t.Fatal(err)
	}
}

// input asks for an external key store at the proxy.
func (r *proxyRig) input(name, prefix string) *kms.CreateCustomKeyStoreInput {
	return &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String(name), CustomKeyStoreType: types.CustomKeyStoreTypeExternalKeyStore,
		XksProxyConnectivity: types.XksProxyConnectivityTypePublicEndpoint, XksProxyUriEndpoint: aws.String(r.server.URL),
		XksProxyUriPath: aws.String(prefix + xks.APIPath),
		XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
			AccessKeyId: aws.String(r.credentials[prefix].AccessKeyID), RawSecretAccessKey: aws.String(r.credentials[prefix].SecretAccessKey),
		},
	}
}

// connected makes an external key store and connects it.
func (r *proxyRig) connected(c *engine.Client, name string) (storeID *string) {
	r.t.Helper()
	out, err := c.CreateCustomKeyStore(r.t.Context(), r.input(name, prefixA))
	if err != nil {
		r.t.Fatal(err)
	}
	connect(r.t, c, out.CustomKeyStoreId)
	return out.CustomKeyStoreId
}

// connect connects a key store and fails unless it becomes CONNECTED.
func connect(t testing.TB, c *engine.Client, storeID *string) {
	t.Helper()
	begin(t, c, storeID)
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected || s.ConnectionErrorCode != "" {
		t.Fatalf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
}

func begin(t testing.TB, c *engine.Client, storeID *string) {
	t.Helper()
	if _, err := c.ConnectCustomKeyStore(t.Context(), &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: storeID}); err != nil {
		t.Fatal(err)
	}
}

func disconnect(t testing.TB, c *engine.Client, storeID *string) {
	t.Helper()
	if _, err := c.DisconnectCustomKeyStore(t.Context(), &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: storeID}); err != nil {
		t.Fatal(err)
	}
	if s := describeStore(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeDisconnected {
		t.Fatal(s.ConnectionState)
	}
}

func describeStore(t testing.TB, c *engine.Client, storeID *string) types.CustomKeyStoresListEntry {
	t.Helper()
	out, err := c.DescribeCustomKeyStores(t.Context(), &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: storeID})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.CustomKeyStores) != 1 || out.Truncated {
		t.Fatalf("%+v", out)
	}
	return out.CustomKeyStores[0]
}

// settled waits until a key store is not CONNECTING any more, as users do.
func settled(t testing.TB, c *engine.Client, storeID *string) types.CustomKeyStoresListEntry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		s := describeStore(t, c, storeID)
		if s.ConnectionState != types.ConnectionStateTypeConnecting {
			return s
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the key store is still CONNECTING")
		}
	}
}

// externalKey makes a KMS key over an external key.
func externalKey(t testing.TB, c *engine.Client, storeID *string, id string) *types.KeyMetadata {
	t.Helper()
	out, err := c.CreateKey(t.Context(), externalKeyInput(storeID, id))
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

func externalKeyInput(storeID *string, id string) *kms.CreateKeyInput {
	return &kms.CreateKeyInput{Origin: types.OriginTypeExternalKeyStore, CustomKeyStoreId: storeID, XksKeyId: aws.String(id)}
}

func encrypt(t testing.TB, c *engine.Client, keyID *string, plaintext string, context map[string]string) []byte {
	t.Helper()
	out, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: keyID, Plaintext: []byte(plaintext), EncryptionContext: context})
	if err != nil {
		t.Fatal(err)
	}
	return out.CiphertextBlob
}

func wantPlaintext(t testing.TB, c *engine.Client, blob []byte, context map[string]string, want string) {
	t.Helper()
	out, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context})
	if err != nil {
		t.Fatal(err)
	}
	if string(out.Plaintext) != want {
		t.Fatalf("%q", out.Plaintext)
	}
}

// wantError fails unless err is an error of the API with this code, whose message
// has this part.
func wantError(t testing.TB, err error, code, part string) {
	t.Helper()
	wantCode(t, err, code)
	if !strings.Contains(err.Error(), part) {
		t.Errorf("error %v, want %q", err, part)
	}
}

// tokenKeys serves the keys of a token to the proxy.
type tokenKeys struct {
	token *keystore.Token
	down  atomic.Bool // it says so of itself
}

func (s *tokenKeys) Find(ctx context.Context, id string) (xks.Key, error) {
	k, err := s.token.Find(ctx, id)
	return tokenKey{k}, proxyError(err)
}

func (s *tokenKeys) Health() []xks.ExternalKeyManager {
	m := xks.ExternalKeyManager{ID: "token", Model: "SoftHSM", Health: xks.HealthActive}
	if s.down.Load() {
		m.Health = xks.HealthUnavailable
	}
	return []xks.ExternalKeyManager{m}
}

type tokenKey struct{ *keystore.Key }

func (k tokenKey) Describe(ctx context.Context) (xks.KeyDescription, error) {
	usage, disabled, err := k.Permissions(ctx)
	return xks.KeyDescription{Encrypt: usage.Encrypt, Decrypt: usage.Decrypt, Disabled: disabled}, proxyError(err)
}

func (k tokenKey) Encrypt(ctx context.Context, version uint32, plaintext, aad []byte) (xks.Sealed, error) {
	s, err := k.Key.Encrypt(ctx, version, plaintext, aad)
	return xks.Sealed(s), proxyError(err)
}

func (k tokenKey) Decrypt(ctx context.Context, version uint32, sealed xks.Sealed, aad []byte) ([]byte, error) {
	plaintext, err := k.Key.Decrypt(ctx, version, keystore.Sealed(sealed), aad)
	return plaintext, proxyError(err)
}

func proxyError(err error) error {
	for known, name := range map[error]xks.ErrorName{
		keystore.ErrInvalidCiphertext: xks.InvalidCiphertextException,
		keystore.ErrKeyNotFound:       xks.KeyNotFoundException,
		keystore.ErrKeyDisabled:       xks.InvalidStateException,
		keystore.ErrKeyUsage:          xks.InvalidKeyUsageException,
	} {
		if errors.Is(err, known) {
			return &xks.Error{Name: name, Cause: err}
		}
	}
	return err
}

// decode reads a request or an answer of the proxy API.
func decode(t testing.TB, body []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return m
}
