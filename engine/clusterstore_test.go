package engine_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

const (
	clusterID      = "cluster-abcdefgh234"
	otherClusterID = "cluster-bbcdefgh234"
	clusterVault   = "cluster"
)

// clusterRig is a token that AWS_CLOUDHSM key stores can stand on.
type clusterRig struct {
	t       testing.TB
	options keystore.Options // of the token, with the PIN of the process, if it has one
	anchor  string
	opened  atomic.Int32 // how often a password was tried
	// before runs first when the token is opened, and may fail it.
	before atomic.Pointer[func(context.Context) error]

	mu    sync.Mutex
	token *keystore.Token // as opened last; guarded by mu
}

func newClusterRig(t testing.TB) *clusterRig {
	t.Helper()
	c := &clusterRig{t: t, options: tokentest.Options(tokentest.NewToken(t, &modules)), anchor: string(tlstest.NewCA(t).PEM())}
	c.options.PIN = nil
	return c
}

func (c *clusterRig) use(config *engine.Config) {
	real := engine.NewCluster(&modules, c.options, keystore.VaultOptions{Name: clusterVault}, c.anchor)
	counted := real
	counted.Open = func(ctx context.Context, pin func() (string, error)) (*keystore.Token, *keystore.Vault, error) {
		c.opened.Add(1)
		if before := c.before.Load(); before != nil {
			if err := (*before)(ctx); err != nil {
				return nil, nil, err
			}
		}
		token, vault, err := real.Open(ctx, pin)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.token = token
		return token, vault, err
	}
	config.Clusters = map[string]engine.Cluster{clusterID: counted}
}

func (c *clusterRig) first(before func(context.Context) error) {
	if before == nil {
		c.before.Store(nil)
		return
	}
	c.before.Store(&before)
}

// current is the token as it was opened last.
func (c *clusterRig) current() *keystore.Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

func (c *clusterRig) input(name string) *kms.CreateCustomKeyStoreInput {
	return &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String(name), CloudHsmClusterId: aws.String(clusterID), KeyStorePassword: aws.String(tokentest.PIN),
		TrustAnchorCertificate: aws.String(c.anchor),
	}
}

func (c *clusterRig) create(client *engine.Client) *string {
	c.t.Helper()
	out, err := client.CreateCustomKeyStore(c.t.Context(), c.input("cluster"))
	if err != nil {
		c.t.Fatal(err)
	}
	return out.CustomKeyStoreId
}

func clusterKeyInput(storeID *string) *kms.CreateKeyInput {
	return &kms.CreateKeyInput{Origin: types.OriginTypeAwsCloudhsm, CustomKeyStoreId: storeID}
}

func clusterKey(t testing.TB, c *engine.Client, storeID *string) *types.KeyMetadata {
	t.Helper()
	out, err := c.CreateKey(t.Context(), clusterKeyInput(storeID))
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata
}

func keyStateOf(t testing.TB, c *engine.Client, keyID *string) types.KeyState {
	t.Helper()
	out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: keyID})
	if err != nil {
		t.Fatal(err)
	}
	return out.KeyMetadata.KeyState
}

func TestClusterStore(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	want := types.CustomKeyStoresListEntry{
		CloudHsmClusterId: aws.String(clusterID), ConnectionState: types.ConnectionStateTypeDisconnected, CreationDate: aws.Time(f.clock.now()),
		CustomKeyStoreId: storeID, CustomKeyStoreName: aws.String("cluster"), CustomKeyStoreType: types.CustomKeyStoreTypeAwsCloudhsm,
		TrustAnchorCertificate: aws.String(r.anchor),
	}
	if got := describeStore(t, c, storeID); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	_, err := c.CreateKey(t.Context(), clusterKeyInput(storeID))
	wantCode(t, err, storeState)
	_, err = c.GenerateRandom(t.Context(), &kms.GenerateRandomInput{CustomKeyStoreId: storeID, NumberOfBytes: aws.Int32(16)})
	wantCode(t, err, storeState)

	connect(t, c, storeID)
	m := clusterKey(t, c, storeID)
	wantMetadata := &types.KeyMetadata{
		AWSAccountId: aws.String(account), Arn: m.Arn, CloudHsmClusterId: aws.String(clusterID), CreationDate: aws.Time(f.clock.now()),
		//nolint:staticcheck // deprecated, and answered.
		CustomKeyStoreId: storeID, CustomerMasterKeySpec: types.CustomerMasterKeySpecSymmetricDefault, Description: aws.String(""), Enabled: true,
		EncryptionAlgorithms: []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault}, KeyId: m.KeyId,
		KeyManager: types.KeyManagerTypeCustomer, KeySpec: types.KeySpecSymmetricDefault, KeyState: types.KeyStateEnabled,
		KeyUsage: types.KeyUsageTypeEncryptDecrypt, MultiRegion: aws.Bool(false), Origin: types.OriginTypeAwsCloudhsm,
	}
	if !reflect.DeepEqual(m, wantMetadata) {
		t.Errorf("got  %+v\nwant %+v", m, wantMetadata)
	}
	if n := countKeys(t, r.current(), residentPart); n != 1 {
		t.Errorf("%d keys in the cluster", n)
	}
	context := map[string]string{"a": "b"}
	blob := encrypt(t, c, m.KeyId, "hello", context)
	wantPlaintext(t, c, blob, context, "hello")
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, err, "InvalidCiphertextException")
	random := must(c.GenerateRandom(t.Context(), &kms.GenerateRandomInput{CustomKeyStoreId: storeID, NumberOfBytes: aws.Int32(16)}))
	if len(random.Plaintext) != 16 {
		t.Errorf("%d random bytes", len(random.Plaintext))
	}
	_, err = c.GenerateDataKeyPair(t.Context(), &kms.GenerateDataKeyPairInput{KeyId: m.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
	wantCode(t, err, "UnsupportedOperationException")
	must(c.ConnectCustomKeyStore(t.Context(), &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: storeID})) // it is

	disconnect(t, c, storeID)
	if s := keyStateOf(t, c, m.KeyId); s != types.KeyStateUnavailable {
		t.Error(s)
	}
	_, err = c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context})
	wantCode(t, err, keyState)
	_, err = c.CreateKey(t.Context(), clusterKeyInput(storeID))
	wantCode(t, err, storeState)
	connect(t, c, storeID)
	wantPlaintext(t, c, blob, context, "hello")
}

// residentPart is in the labels of resident keys, and of no other.
const residentPart = "-"

// A password that the token refused is not tried again, however often one asks:
// tokens lock themselves.
func TestWrongPassword(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	in := r.input("cluster")
	in.KeyStorePassword = aws.String("a wrong PIN")
	storeID := must(c.CreateCustomKeyStore(t.Context(), in)).CustomKeyStoreId
	for range 3 {
		begin(t, c, storeID)
		if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeFailed || s.ConnectionErrorCode != types.ConnectionErrorCodeTypeInvalidCredentials {
			t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
		}
		disconnect(t, c, storeID)
		f.reopen()
		c = f.client()
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("the password was tried %d times", n)
	}
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String(tokentest.PIN)}))
	connect(t, c, storeID)
}

// A token that this process is logged in to takes any PIN: the password counts
// all the same.
func TestPasswordOfATokenInUse(t *testing.T) {
	for _, x := range []struct {
		name, password string
		known          bool // the process knows the PIN by which it logged in
		code           types.ConnectionErrorCodeType
	}{
		{"right", tokentest.PIN, true, ""},
		{"wrong", "a wrong PIN", true, types.ConnectionErrorCodeTypeInvalidCredentials},
		{"cannot be proven", tokentest.PIN, false, types.ConnectionErrorCodeTypeUserLoggedIn},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newClusterRig(t)
			o := r.options
			o.PIN = func() (string, error) { return tokentest.PIN, nil }
			tokentest.Open(t, &modules, o)
			if x.known {
				r.options = o
			}
			f := newEngine(t, r.use)
			c := f.client()
			in := r.input("cluster")
			in.KeyStorePassword = aws.String(x.password)
			storeID := must(c.CreateCustomKeyStore(t.Context(), in)).CustomKeyStoreId
			begin(t, c, storeID)
			if s := settled(t, c, storeID); s.ConnectionErrorCode != x.code || (x.code == "") != (s.ConnectionState == types.ConnectionStateTypeConnected) {
				t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
			}
		})
	}
}

func TestClusterConnectionErrorCodes(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	for _, x := range []struct {
		err  error
		code types.ConnectionErrorCodeType
	}{
		{keystore.ErrTokenNotFound, types.ConnectionErrorCodeTypeClusterNotFound},
		{&keystore.TokenError{Err: errors.New("the network")}, types.ConnectionErrorCodeTypeNetworkErrors},
		{context.DeadlineExceeded, types.ConnectionErrorCodeTypeNetworkErrors},
		{errors.New("something else"), types.ConnectionErrorCodeTypeInternalError},
		{errors.Join(keystore.ErrPINIncorrect, keystore.ErrPINLocked), types.ConnectionErrorCodeTypeUserLockedOut},
	} {
		r.first(func(context.Context) error { return x.err })
		begin(t, c, storeID)
		if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeFailed || s.ConnectionErrorCode != x.code {
			t.Errorf("%v: %s %s", x.err, s.ConnectionState, s.ConnectionErrorCode)
		}
		disconnect(t, c, storeID)
	}
	f.config.Clusters = nil
	f.reopen()
	c = f.client()
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String(tokentest.PIN)}))
	begin(t, c, storeID)
	if s := settled(t, c, storeID); s.ConnectionErrorCode != types.ConnectionErrorCodeTypeClusterNotFound {
		t.Error(s.ConnectionErrorCode)
	}
}

// Whoever destroys a key in the token, or withdraws its use, by any tool has
// stopped the KMS key.
func TestKeyMaterialGoneFromTheCluster(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k := clusterKey(t, c, storeID)
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	try := func(want string) {
		t.Helper()
		err := eventuallyFails(t, func() error { // within the second that is promised
			_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
			return err
		})
		wantError(t, err, keyState, want)
		_, err = c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("x")})
		wantError(t, err, keyState, want)
	}
	if n := forbidKeys(t, r.current(), residentPart); n != 1 {
		t.Fatalf("%d keys", n)
	}
	try("does not permit this operation")
	if n := destroyKeys(t, r.current(), residentPart); n != 1 {
		t.Fatalf("%d keys", n)
	}
	try("is not in its token any more")
}

// After a restart a store that was connected is so again, and until then its keys
// are Unavailable.
func TestConnectedStoresAreReconnected(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k := clusterKey(t, c, storeID)
	blob := encrypt(t, c, k.KeyId, "hello", nil)

	release := make(chan struct{})
	var tries atomic.Int32
	r.first(func(context.Context) error {
		<-release
		if tries.Add(1) == 1 {
			return &keystore.TokenError{Err: errors.New("the network is not up yet")}
		}
		return nil
	})
	f.reopen()
	c = f.client()
	if s := describeStore(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnecting {
		t.Error(s.ConnectionState)
	}
	if s := keyStateOf(t, c, k.KeyId); s != types.KeyStateUnavailable {
		t.Error(s)
	}
	_, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	wantCode(t, err, keyState)
	close(release)
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
	if tries.Load() != 2 {
		t.Errorf("%d tries", tries.Load())
	}
	wantPlaintext(t, c, blob, nil, "hello")

	disconnect(t, c, storeID)
	f.reopen()
	if s := describeStore(t, f.client(), storeID); s.ConnectionState != types.ConnectionStateTypeDisconnected {
		t.Error(s.ConnectionState)
	}
}

// What was CONNECTING when the process ended goes on after it.
func TestConnectingGoesOnAfterARestart(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r.first(hang)
	begin(t, c, storeID)
	must(c.ConnectCustomKeyStore(t.Context(), &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: storeID}))
	_, err := c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, NewCustomKeyStoreName: aws.String("new")})
	wantCode(t, err, storeState)
	_, err = c.DeleteCustomKeyStore(t.Context(), &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: storeID})
	wantCode(t, err, storeState)
	f.close()
	r.first(nil)
	f.open()
	c = f.client()
	if s := settled(t, c, storeID); s.ConnectionState != types.ConnectionStateTypeConnected {
		t.Errorf("%s %s", s.ConnectionState, s.ConnectionErrorCode)
	}
	// One that hangs can be disconnected.
	disconnect(t, c, storeID)
	r.first(hang)
	begin(t, c, storeID)
	disconnect(t, c, storeID)
	r.first(nil)
	connect(t, c, storeID)
}

func TestClustersAreTakenOnce(t *testing.T) {
	r := newClusterRig(t)
	f := newEngine(t, r.use)
	c := f.client()
	in := r.input("one")
	in.CloudHsmClusterId = aws.String(otherClusterID)
	_, err := c.CreateCustomKeyStore(t.Context(), in)
	wantCode(t, err, "CloudHsmClusterNotFoundException")
	for _, anchor := range []string{string(tlstest.NewCA(t).PEM()), "no certificate"} {
		in = r.input("one")
		in.TrustAnchorCertificate = aws.String(anchor)
		_, err = c.CreateCustomKeyStore(t.Context(), in)
		wantCode(t, err, "IncorrectTrustAnchorException")
	}
	in = r.input("one")
	in.TrustAnchorCertificate = aws.String(strings.ReplaceAll(r.anchor, "\n", "\r\n"))
	must(c.CreateCustomKeyStore(t.Context(), in))
	for _, other := range []*engine.Client{c, f.as("444455556666", "us-east-1")} {
		_, err = other.CreateCustomKeyStore(t.Context(), r.input("two"))
		wantCode(t, err, "CloudHsmClusterInUseException")
	}
}

func TestClusterIsReplacedByARelatedOne(t *testing.T) {
	r, related := newClusterRig(t), newClusterRig(t)
	f := newEngine(t, r.use, func(c *engine.Config) {
		first := c.Clusters[clusterID]
		related.anchor = first.TrustAnchor
		related.use(c)
		unrelated := c.Clusters[clusterID]
		unrelated.TrustAnchor = string(tlstest.NewCA(t).PEM())
		c.Clusters = map[string]engine.Cluster{clusterID: first, otherClusterID: c.Clusters[clusterID], "cluster-unrelated22": unrelated}
	})
	c := f.client()
	storeID := r.create(c)
	update := func(id string) error {
		_, err := c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, CloudHsmClusterId: aws.String(id)})
		return err
	}
	wantCode(t, update("cluster-missing2222"), "CloudHsmClusterNotFoundException")
	wantCode(t, update("cluster-unrelated22"), "CloudHsmClusterNotRelatedException")
	connect(t, c, storeID)
	wantError(t, update(otherClusterID), storeState, "only while the custom key store is disconnected")
	disconnect(t, c, storeID)
	if err := update(otherClusterID); err != nil {
		t.Fatal(err)
	}
	connect(t, c, storeID)
	if s := describeStore(t, c, storeID); *s.CloudHsmClusterId != otherClusterID || related.current() == nil {
		t.Error(*s.CloudHsmClusterId)
	}
}

// The object of a key whose creation was cut short is destroyed in the cluster's
// token when its store is connected the next time, and no other is.
func TestLeftoversInACluster(t *testing.T) {
	r := newClusterRig(t)
	cut := new(cutStore)
	f := newEngine(t, r.use)
	c := f.client()
	storeID := r.create(c)
	connect(t, c, storeID)
	k := clusterKey(t, c, storeID)
	blob := encrypt(t, c, k.KeyId, "hello", nil)
	f.close()

	f.openOn(cut)
	c = f.client()
	settled(t, c, storeID)
	cut.after.Store(1) // the intent, and no more
	if _, err := c.CreateKey(t.Context(), clusterKeyInput(storeID)); err == nil {
		t.Fatal("a key that was not stored")
	}
	cut.after.Store(0)
	// The process could still tidy up; it is as if it had been killed before.
	if n := countKeys(t, r.current(), residentPart); n > 2 {
		t.Fatalf("%d keys", n)
	}
	f.reopen()
	c = f.client()
	settled(t, c, storeID)
	err := eventuallyFails(t, func() error {
		if countKeys(t, r.current(), residentPart) == 1 {
			return errTidy
		}
		return nil
	})
	if err != errTidy {
		t.Fatal("the object of a key that was never made stays")
	}
	wantPlaintext(t, c, blob, nil, "hello")
}

var errTidy = errors.New("one key is left")

// cutStore fails all changes but the first few, as if the process had ended.
type cutStore struct {
	store.Store
	after atomic.Int32 // 0: none fails
	n     atomic.Int32
}

func (s *cutStore) Apply(ctx context.Context, changes ...store.Change) error {
	if after := s.after.Load(); after > 0 && s.n.Add(1) > after {
		return errors.New("the process was killed")
	}
	return s.Store.Apply(ctx, changes...)
}

func (f *fixture) openOn(s *cutStore) {
	f.t.Helper()
	db, err := store.OpenSQLite(f.t.Context(), f.path, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	s.Store = db
	f.config.Store = s
	if f.Engine, err = engine.Open(f.t.Context(), f.config); err != nil {
		f.t.Fatal(err)
	}
}

// Secrets are stored encrypted, and neither logged nor told.
func TestSecretsStaySecret(t *testing.T) {
	r, p := newClusterRig(t), newProxyRig(t)
	var log lockedBuffer
	f := newEngine(t, r.use, p.use, func(c *engine.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := f.client()
	secrets := []string{tokentest.PIN, "a wrong PIN", p.credentials[prefixA].SecretAccessKey, p.credentials[prefixB].SecretAccessKey}
	storeID := r.create(c)
	connect(t, c, storeID)
	external := p.connected(c, "xks")
	disconnect(t, c, storeID)
	must(c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: storeID, KeyStorePassword: aws.String("a wrong PIN")}))
	begin(t, c, storeID)
	settled(t, c, storeID)
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	_, err := c.UpdateCustomKeyStore(t.Context(), &kms.UpdateCustomKeyStoreInput{
		CustomKeyStoreId: external, XksProxyAuthenticationCredential: p.input("", prefixB).XksProxyAuthenticationCredential,
	})
	text := log.String() + err.Error()
	files, err := filepath.Glob(filepath.Dir(f.path) + "/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is not secret", secret)
		}
	}
	if !strings.Contains(text, "cks-") {
		t.Error("nothing was looked at")
	}
}

// lockedBuffer is a log that a test can read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
