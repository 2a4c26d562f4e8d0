package engine_test

import (
	"testing"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/kmstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/xks"
)

// TestSuite is what users see of the embedded engine; internal/proxy has the same
// through the official client. Its record is docs/kms-operations.md.
func TestSuite(t *testing.T) {
	proxy, cluster := newProxyRig(t), newClusterRig(t)
	externalKeys := [2]string{"external-a", "external-b"}
	proxy.generate(externalKeys[:]...)
	f := newEngine(t, proxy.use, cluster.use, func(c *engine.Config) {
		c.Now, c.SweepInterval = nil, 0 // as in the product
	})
	record := kmstest.Run(t, kmstest.Target{
		Open: func(account, region string) engine.API { return f.as(account, region) },
		Proxy: kmstest.Proxy{
			Endpoint: proxy.server.URL, Path: prefixA + xks.APIPath, AccessKeyID: proxy.credentials[prefixA].AccessKeyID,
			SecretAccessKey: proxy.credentials[prefixA].SecretAccessKey, Keys: externalKeys,
			SetEnabled: func(id string, enabled bool) {
				if err := proxy.token.SetEnabled(t.Context(), id, enabled); err != nil {
					t.Error(err)
				}
			},
		},
		RSA4096: true,
		Cluster: kmstest.Cluster{ID: clusterID, Password: tokentest.PIN, TrustAnchor: cluster.anchor},
	})
	if t.Failed() {
		return
	}
	compareDocument(t, "kms-operations.md", describe(record))
}
