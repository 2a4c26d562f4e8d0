package verify

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hyok-kms/hyok/xks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testClientName = "cks.kms.us-east-1.amazonaws.com"

// testKeys holds keys in memory. It is not changed once it serves.
type testKeys struct {
	keys   map[string]*testKey
	health []xks.ExternalKeyManager
}

func newTestKeys(t *testing.T) *testKeys {
	both := xks.KeyDescription{Encrypt: true, Decrypt: true}
	return &testKeys{
		keys: map[string]*testKey{
			"key":          newTestKey(t, both),
			"encrypt-only": newTestKey(t, xks.KeyDescription{Encrypt: true}),
			"decrypt-only": newTestKey(t, xks.KeyDescription{Decrypt: true}),
			"impotent":     newTestKey(t, xks.KeyDescription{}),
			"disabled":     newTestKey(t, xks.KeyDescription{Encrypt: true, Decrypt: true, Disabled: true}),
		},
		health: []xks.ExternalKeyManager{{ID: "a", Model: "memory", Health: xks.HealthActive}},
	}
}

func (k *testKeys) Find(_ context.Context, id string) (xks.Key, error) {
	if key, ok := k.keys[id]; ok {
		return key, nil
	}
	return nil, &xks.Error{Name: xks.KeyNotFoundException, Message: "no such key"}
}

func (k *testKeys) Health() []xks.ExternalKeyManager { return k.health }

// testKey is an AES-256 key in memory with faults that a token may have.
type testKey struct {
	block       cipher.Block
	description xks.KeyDescription
	fixedIV     []byte // used for every encryption if set
	ivSize      int    // of IVs made by the token; 0: 12
	trusting    bool   // decrypts whatever the tag
	ignoresAAD  bool
}

func newTestKey(t *testing.T, description xks.KeyDescription) *testKey {
	t.Helper()
	material := make([]byte, 32)
	_, _ = rand.Read(material)
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	return &testKey{block: block, description: description}
}

func (k *testKey) Token() string  { return "memory" }
func (k *testKey) Newest() uint32 { return 1 }
func (k *testKey) Describe(context.Context) (xks.KeyDescription, error) {
	return k.description, nil
}

func (k *testKey) use(permitted bool) error {
	switch {
	case k.description.Disabled:
		return &xks.Error{Name: xks.InvalidStateException, Message: "disabled"}
	case !permitted:
		return &xks.Error{Name: xks.InvalidKeyUsageException, Message: "not permitted"}
	}
	return nil
}

func (k *testKey) Encrypt(_ context.Context, _ uint32, plaintext, aad []byte) (xks.Sealed, error) {
	// As with a token, CDIV on a key that may not decrypt fails in Decrypt.
	if err := k.use(k.description.Encrypt); err != nil {
		return xks.Sealed{}, err
	}
	iv := k.fixedIV
	if iv == nil {
		iv = filled(cmp.Or(k.ivSize, xks.IVSize))
	}
	gcm, err := cipher.NewGCMWithNonceSize(k.block, len(iv))
	if err != nil {
		return xks.Sealed{}, err
	}
	out := gcm.Seal(nil, iv, plaintext, k.aad(aad))
	return xks.Sealed{IV: iv, Ciphertext: out[:len(plaintext)], Tag: out[len(plaintext):]}, nil
}

func (k *testKey) aad(aad []byte) []byte {
	if k.ignoresAAD {
		return nil
	}
	return aad
}

func (k *testKey) Decrypt(_ context.Context, version uint32, s xks.Sealed, aad []byte) ([]byte, error) {
	if err := k.use(k.description.Decrypt); err != nil {
		return nil, err
	}
	corrupted := &xks.Error{Name: xks.InvalidCiphertextException, Message: "corrupted"}
	if version != 1 {
		return nil, corrupted
	}
	if k.trusting {
		plaintext := make([]byte, len(s.Ciphertext))
		// What GCM does to the text, for IVs of 12 bytes.
		counter := append(slices.Clone(s.IV[:xks.IVSize]), 0, 0, 0, 2)
		cipher.NewCTR(k.block, counter).XORKeyStream(plaintext, s.Ciphertext)
		return plaintext, nil
	}
	gcm, err := cipher.NewGCMWithNonceSize(k.block, len(s.IV))
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, s.IV, slices.Concat(s.Ciphertext, s.Tag), k.aad(aad))
	if err != nil {
		return nil, corrupted
	}
	return plaintext, nil
}

// testProxy is hyok's own server with whatever a test wants to be wrong about it.
type testProxy struct {
	keys       *testKeys
	credential xks.Credential
	wrap       func(http.Handler) http.Handler // between listener and server; nil: nothing
	tls        func(*xks.TLSOptions)           // changes what the listener demands; nil: mTLS as it should be
	plain      bool
}

func newTestProxy(t *testing.T) *testProxy {
	return &testProxy{keys: newTestKeys(t), credential: xks.NewCredential()}
}

// start serves until the test ends and returns the target with all its keys.
func (p *testProxy) start(t *testing.T) Target {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	server, err := xks.NewServer(xks.Config{
		Stores: []xks.Store{{
			Name: "test", Prefix: "/example/prefix", Keys: p.keys,
			Allow:       func(string) bool { return true },
			Credentials: []xks.Credential{p.credential},
		}},
		Deadline: time.Minute, // a busy machine must not make a check fail
	}, logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler = server
	if p.wrap != nil {
		handler = p.wrap(server)
	}
	ca := newTestCA(t)
	options := xks.ListenerOptions{Logger: logger}
	scheme := "http"
	if !p.plain {
		scheme = "https"
		options.TLS = &xks.TLSOptions{Certificate: ca.issue(t, "proxy"), ClientCAs: ca.pool, ClientNames: []string{testClientName}}
		if p.tls != nil {
			p.tls(options.TLS)
		}
	}
	client := ca.issue(t, testClientName)
	return Target{
		URL:              scheme + "://" + serve(t, handler, options) + "/example/prefix",
		Credential:       p.credential,
		KeyID:            "key",
		EncryptOnlyKeyID: "encrypt-only", DecryptOnlyKeyID: "decrypt-only", ImpotentKeyID: "impotent", DisabledKeyID: "disabled",
		RootCAs:           ca.pool,
		ClientCertificate: &client,
		Timeout:           time.Minute,
	}
}

func serve(t *testing.T, handler http.Handler, options xks.ListenerOptions) string {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := xks.NewListener(inner, handler, options)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()            // cut off what is left open
		_ = l.Shutdown(ctx) // returns that ctx has ended
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return inner.Addr().String()
}

// testCA issues certificates for 127.0.0.1 and for clients.
type testCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{pool: x509.NewCertPool()}
	der := ca.sign(t, &x509.Certificate{
		Subject:  pkix.Name{CommonName: "test CA"},
		IsCA:     true,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true,
	})
	var err error
	if ca.certificate, err = x509.ParseCertificate(der.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	ca.key = der.PrivateKey.(*ecdsa.PrivateKey)
	ca.pool.AddCert(ca.certificate)
	return ca
}

func (ca *testCA) issue(t *testing.T, name string) tls.Certificate {
	return ca.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// sign issues the template, by itself if there is no CA yet.
func (ca *testCA) sign(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := ca.certificate, ca.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
