package engine_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/tlstest"
)

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
