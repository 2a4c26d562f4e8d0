package engine_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
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
