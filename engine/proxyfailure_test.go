package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/xks"
)

// What of the table is abbreviated in failureRows.
const (
	unreachable = "XksProxyUriUnreachableException"
	badResponse = "XksProxyInvalidResponseException"
	badConfig   = "XksProxyInvalidConfigurationException"
	storeState  = "CustomKeyStoreInvalidStateException"
	keyState    = "KMSInvalidStateException"
	keyConfig   = "XksKeyInvalidConfigurationException"

	cannotInterpret   = "AWS KMS cannot interpret the response from the external key store proxy."
	cannotCommunicate = "AWS KMS cannot communicate with the external key store proxy. This might be a transient network issue."
)

// failureRow is a row of the specification's table of failure scenarios.
type failureRow struct {
	name    string
	fail    func(*failingRig)
	message string
	// The answers of CreateCustomKeyStore (whose message is managed, if it is
	// another), CreateKey and ConnectCustomKeyStore. Cryptographic operations
	// always answer KMSInvalidStateException.
	managing, creating string
	managed            string
	code               types.ConnectionErrorCodeType
}

func failureRows() []failureRow {
	named := func(name xks.ErrorName, message, managing, creating string, code types.ConnectionErrorCodeType) failureRow {
		return failureRow{
			name: string(name), fail: func(r *failingRig) { r.fails(name) },
			message: message, managing: managing, creating: creating, code: code,
		}
	}
	answered := func(name string, status int, mediaType, body string) failureRow {
		return failureRow{
			name: name, fail: func(r *failingRig) {
				r.answer(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", mediaType)
					w.WriteHeader(status)
					_, _ = io.WriteString(w, body)
				})
			},
			message: cannotInterpret, managing: badResponse, creating: storeState, code: types.ConnectionErrorCodeTypeXksProxyInvalidResponse,
		}
	}
	broken := func(name string, fail func(*failingRig), message string, code types.ConnectionErrorCodeType) failureRow {
		return failureRow{name: name, fail: fail, message: message, managing: unreachable, creating: storeState, code: code}
	}
	disabled := named(xks.InvalidStateException, "is not enabled in the external key manager.", unreachable, keyConfig, types.ConnectionErrorCodeTypeXksProxyNotReachable)
	disabled.managed = "The external key store proxy is in an unhealthy state."
	const jsonType = "application/json"
	return []failureRow{
		named(xks.ValidationException, cannotInterpret, badResponse, storeState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse),
		disabled,
		named(xks.InvalidCiphertextException, "rejected the request because the specified ciphertext or encryption context is corrupted, missing, or otherwise invalid.",
			badResponse, storeState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse),
		named(xks.InvalidKeyUsageException, "does not support the requested operation. Enable the operation on the key in your external key manager",
			badResponse, keyConfig, types.ConnectionErrorCodeTypeXksProxyInvalidResponse),
		named(xks.AuthenticationFailedException, "it could not authenticate AWS KMS.",
			"XksProxyIncorrectAuthenticationCredentialException", storeState, types.ConnectionErrorCodeTypeInvalidCredentials),
		named(xks.AccessDeniedException, "denied access to the operation.", badConfig, keyState, types.ConnectionErrorCodeTypeXksProxyAccessDenied),
		named(xks.KeyNotFoundException, "was not found in its external key manager.",
			badResponse, "XksKeyNotFoundException", types.ConnectionErrorCodeTypeXksProxyInvalidResponse),
		named(xks.InvalidURIPathException, "because of an invalid URI path.", badConfig, storeState, types.ConnectionErrorCodeTypeXksProxyInvalidConfiguration),
		named(xks.UnsupportedOperationException, "because it does not support the requested operation.",
			badResponse, keyConfig, types.ConnectionErrorCodeTypeXksProxyInvalidResponse),
		named(xks.DependencyTimeoutException, "did not respond to the request in the time allotted.", unreachable, storeState, types.ConnectionErrorCodeTypeXksProxyTimedOut),
		named(xks.ThrottlingException, "due to a very high request rate.", unreachable, storeState, types.ConnectionErrorCodeTypeXksProxyNotReachable),
		named(xks.InternalException, "because it cannot communicate with the external key manager.",
			badResponse, storeState, types.ConnectionErrorCodeTypeXksProxyInvalidResponse),

		broken("connection refused", func(r *failingRig) { r.dialTo(r.closed) }, cannotCommunicate, types.ConnectionErrorCodeTypeXksProxyNotReachable),
		broken("unknown host", func(r *failingRig) { r.dialTo("proxy.invalid:443") }, cannotCommunicate, types.ConnectionErrorCodeTypeXksProxyNotReachable),
		broken("no answer to the connection", func(r *failingRig) { r.hang(); r.giveUp() }, cannotCommunicate, types.ConnectionErrorCodeTypeXksProxyNotReachable),
		broken("connection broken", func(r *failingRig) {
			r.answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, cannotCommunicate, types.ConnectionErrorCodeTypeXksProxyNotReachable),
		broken("untrusted certificate", func(r *failingRig) { r.dialTo(r.foreign.Listener.Addr().String()) },
			"cannot establish a TLS connection", types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration),
		broken("no TLS", func(r *failingRig) { r.dialTo(r.plain.Listener.Addr().String()) },
			"cannot establish a TLS connection", types.ConnectionErrorCodeTypeXksProxyInvalidTlsConfiguration),
		broken("no answer", func(r *failingRig) {
			r.answer(func(_ http.ResponseWriter, q *http.Request) {
				<-q.Context().Done()
				panic(http.ErrAbortHandler) // or an answer could still slip through
			})
			r.giveUp()
		}, "did not respond in time.", types.ConnectionErrorCodeTypeXksProxyTimedOut),

		answered("no JSON", 200, jsonType, "garbage"),
		answered("HTML", 502, "text/html", "<html>Bad gateway</html>"),
		answered("empty", 200, jsonType, ""),
		answered("no members", 200, jsonType, "{}"),
		answered("unknown error name", 400, jsonType, `{"errorName":"OtherException"}`),
		answered("error without name", 500, jsonType, `{}`),
		answered("wrong status", 500, jsonType, `{"errorName":"ThrottlingException"}`),
		answered("method not allowed", 405, jsonType, `{}`),
		answered("redirect", 307, jsonType, `{}`),
	}
}

// failingRig is a proxy that can be made to fail, or not to be reached.
type failingRig struct {
	*proxyRig
	closed  string           // address where nobody listens
	foreign *httptest.Server // with a certificate that nobody trusts
	plain   *httptest.Server // without TLS
	dial    atomic.Pointer[func(context.Context, string, string) (net.Conn, error)]
	short   atomic.Bool
}

func newFailingRig(t *testing.T) *failingRig {
	r := &failingRig{proxyRig: newProxyRig(t)}
	r.foreign, r.plain = httptest.NewUnstartedServer(http.NotFoundHandler()), httptest.NewServer(http.NotFoundHandler())
	r.foreign.Config.ErrorLog, r.plain.Config.ErrorLog = r.server.Config.ErrorLog, r.server.Config.ErrorLog
	r.foreign.StartTLS()
	t.Cleanup(r.foreign.Close)
	t.Cleanup(r.plain.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.closed = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	transport := r.client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dial := r.dial.Load(); dial != nil {
			return (*dial)(ctx, network, address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	r.client.Transport = impatient{transport, &r.short}
	return r
}

// impatient waits less for an answer, if it is short.
type impatient struct {
	*http.Transport
	short *atomic.Bool
}

func (i impatient) RoundTrip(q *http.Request) (*http.Response, error) {
	if !i.short.Load() {
		return i.Transport.RoundTrip(q)
	}
	ctx, cancel := context.WithTimeout(q.Context(), 20*time.Millisecond)
	defer cancel()
	return i.Transport.RoundTrip(q.WithContext(ctx))
}

func (r *failingRig) dialTo(address string) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	r.dial.Store(&dial)
}

// hang has connections to the proxy never come about.
func (r *failingRig) hang() {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.dial.Store(&dial)
}

func (r *failingRig) giveUp() { r.short.Store(true) }

func (r *failingRig) recover() {
	r.answer(nil)
	r.dial.Store(nil)
	r.short.Store(false)
	r.closeIdle()
}

// closeIdle has the next request make a connection.
func (r *failingRig) closeIdle() { r.client.Transport.(impatient).CloseIdleConnections() }

func TestFailureScenarios(t *testing.T) {
	r := newFailingRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external", "second", "free")
	storeID := r.connected(c, "connected")
	k, second := externalKey(t, c, storeID, "external"), externalKey(t, c, storeID, "second")
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	local := must(c.CreateKey(t.Context(), &kms.CreateKeyInput{})).KeyMetadata
	localBlob := encrypt(t, c, local.KeyId, "hello", nil)
	idle := must(c.CreateCustomKeyStore(t.Context(), r.input("idle", prefixB))).CustomKeyStoreId
	fresh := r.input("fresh", prefixA)
	fresh.XksProxyUriPath = aws.String("/c" + xks.APIPath)
	ctx := t.Context()
	for _, row := range failureRows() {
		t.Run(row.name, func(t *testing.T) {
			row.fail(r)
			r.closeIdle()
			_, err := c.CreateCustomKeyStore(ctx, fresh)
			wantError(t, err, row.managing, cmpOr(row.managed, row.message))
			_, err = c.UpdateCustomKeyStore(ctx, &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: idle, XksProxyUriPath: fresh.XksProxyUriPath})
			wantError(t, err, row.managing, cmpOr(row.managed, row.message))
			_, err = c.CreateKey(ctx, externalKeyInput(storeID, "free"))
			wantError(t, err, row.creating, row.message)
			for op, err := range cryptography(ctx, c, k, second, local, blob, localBlob) {
				t.Log(op)
				wantError(t, err, keyState, row.message)
				if strings.Contains(err.Error(), "said by the proxy") {
					t.Error("the caller is told what the proxy said")
				}
			}
			begin(t, c, idle)
			if s := settled(t, c, idle); s.ConnectionState != types.ConnectionStateTypeFailed || s.ConnectionErrorCode != row.code {
				t.Errorf("%s %s, want %s", s.ConnectionState, s.ConnectionErrorCode, row.code)
			}
			_, err = c.ConnectCustomKeyStore(ctx, &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: idle})
			wantError(t, err, storeState, "must be disconnected before")
			disconnect(t, c, idle)
			r.recover()
			wantPlaintext(t, c, blob, nil, "hello")
		})
	}
	if s := describeStore(t, c, idle); *s.XksProxyConfiguration.UriPath != prefixB+xks.APIPath {
		t.Error("an update that failed changed the store")
	}
	list := must(c.ListKeys(ctx, &kms.ListKeysInput{}))
	if len(list.Keys) != 3 {
		t.Errorf("%d keys", len(list.Keys))
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// cryptography tries every operation that a key of an external key store permits.
func cryptography(ctx context.Context, c *engine.Client, k, second, local *types.KeyMetadata, blob, localBlob []byte) map[string]error {
	errs := map[string]error{}
	_, errs["Encrypt"] = c.Encrypt(ctx, &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
	_, errs["Decrypt"] = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	_, errs["ReEncrypt from"] = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: local.KeyId})
	_, errs["ReEncrypt to"] = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: localBlob, DestinationKeyId: second.KeyId})
	_, errs["GenerateDataKey"] = c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: k.KeyId, KeySpec: types.DataKeySpecAes256})
	_, errs["GenerateDataKeyWithoutPlaintext"] = c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: k.KeyId, KeySpec: types.DataKeySpecAes128})
	return errs
}

// Answers that are wrong in what they say: nothing of them becomes a ciphertext,
// or a plaintext.
func TestWrongAnswers(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	r.generate("external", "free")
	storeID := r.connected(c, "xks")
	k := externalKey(t, c, storeID, "external")
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	const invalidInner = "The ciphertext that the external key store proxy submitted for decryption, or the encryption context, is corrupted"
	encrypting := func() error {
		_, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
		return err
	}
	decrypting := func() error {
		_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
		return err
	}
	creating := func() error {
		_, err := c.CreateKey(t.Context(), externalKeyInput(storeID, "free"))
		return err
	}
	for _, x := range []struct {
		name   string
		do     func() error
		change func(map[string]any)
		code   string
		want   string
	}{
		{"wrong CDIV", encrypting, func(m map[string]any) {
			m["ciphertextDataIntegrityValue"] = base64.StdEncoding.EncodeToString(make([]byte, 32))
		}, keyState, cannotInterpret},
		{"no CDIV", encrypting, func(m map[string]any) { delete(m, "ciphertextDataIntegrityValue") }, keyState, cannotInterpret},
		{"short tag", encrypting, func(m map[string]any) { m["authenticationTag"] = "AAAAAAAAAAAAAAAA" }, keyState, cannotInterpret},
		{"IV of 8 bytes", encrypting, func(m map[string]any) { m["initializationVector"] = "AAAAAAAAAAA=" }, keyState, cannotInterpret},
		{"other ciphertext", encrypting, func(m map[string]any) { m["ciphertext"] = flipped(m["ciphertext"]) }, keyState, cannotInterpret},
		{"longer ciphertext", encrypting, func(m map[string]any) { m["ciphertext"] = m["ciphertext"].(string)[:4] + m["ciphertext"].(string) }, keyState, cannotInterpret},
		{"metadata of 21 bytes", encrypting, func(m map[string]any) { m["ciphertextMetadata"] = base64.StdEncoding.EncodeToString(make([]byte, 21)) }, keyState, cannotInterpret},
		{"no Base64", decrypting, func(m map[string]any) { m["plaintext"] = "?" }, keyState, cannotInterpret},
		{"short plaintext", decrypting, func(m map[string]any) { m["plaintext"] = "AAAA" }, keyState, cannotInterpret},
		{"other plaintext", decrypting, func(m map[string]any) { m["plaintext"] = flipped(m["plaintext"]) }, keyState, invalidInner},
		{"plaintext of another form", decrypting, func(m map[string]any) {
			b, _ := base64.StdEncoding.DecodeString(m["plaintext"].(string))
			m["plaintext"] = base64.StdEncoding.EncodeToString(make([]byte, len(b)))
		}, keyState, invalidInner},
		{"other key spec", creating, func(m map[string]any) { m["keySpec"] = "RSA_2048" }, keyConfig, "The key spec of specified external key is RSA_2048."},
		{"no usage", creating, func(m map[string]any) { m["keyUsage"] = []string{} }, keyConfig, "The key use of specified external key is empty."},
		{"decrypts alone", creating, func(m map[string]any) { m["keyUsage"] = []string{"DECRYPT", "WRAP"} }, keyConfig, "The key use of specified external key is DECRYPT, WRAP."},
		{"unknown status", creating, func(m map[string]any) { m["keyStatus"] = "SLEEPING" }, storeState, cannotInterpret},
	} {
		t.Run(x.name, func(t *testing.T) {
			r.answer(r.changed(x.change))
			defer r.answer(nil)
			wantError(t, x.do(), x.code, x.want)
		})
	}
	wantPlaintext(t, c, blob, nil, "hello")
	externalKey(t, c, storeID, "free")
}

// flipped changes a byte in Base64.
func flipped(encoded any) string {
	b, _ := base64.StdEncoding.DecodeString(encoded.(string))
	b[len(b)/2] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

// changed is the proxy with changed answers.
func (r *proxyRig) changed(change func(map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		recorded := httptest.NewRecorder()
		r.proxy.ServeHTTP(recorded, q)
		m := decode(r.t, recorded.Body.Bytes())
		change(m)
		body, err := json.Marshal(m)
		if err != nil {
			r.t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, bytes.NewReader(body))
	}
}

// Without a word in the configuration a proxy has the time that AWS KMS gives it,
// and is not asked twice.
func TestProxyTimeout(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, func(c *engine.Config) { c.Proxies = r.client })
	r.answer(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	_, err := f.client().CreateCustomKeyStore(t.Context(), r.input("xks", prefixA))
	wantCode(t, err, unreachable)
	if n := len(r.asked()); n > 1 {
		t.Errorf("the proxy was asked %d times", n)
	}
}

// A caller who goes away is no failure of the proxy.
func TestCallerGoesAway(t *testing.T) {
	r := newProxyRig(t)
	f := newEngine(t, r.use)
	ctx, cancel := context.WithCancel(t.Context())
	r.answer(func(_ http.ResponseWriter, q *http.Request) {
		cancel()
		<-q.Context().Done()
	})
	_, err := f.client().CreateCustomKeyStore(ctx, r.input("xks", prefixA))
	var timeout *types.DependencyTimeoutException
	if !errors.As(err, &timeout) {
		t.Error(err)
	}
}
