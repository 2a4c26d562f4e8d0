package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/internal/kmstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/xks"
)

const suiteCluster = "cluster-abcdefgh234"

const suiteConfig = kmsConfig + `  deadline: 8s
  cloudhsm_clusters:
    ` + suiteCluster + `: {token: hsm, trust_anchor: ca.crt}
`

// newSuiteRig is newKMSRig with an identity in each account of the suite, and a
// second token as a cluster.
func newSuiteRig(t *testing.T) *rig {
	t.Helper()
	r := newKMSRig(t)
	var identities []string
	for _, account := range []string{kmstest.Account, kmstest.OtherAccount} {
		identities = append(identities, fmt.Sprintf(`{"accessKeyId":"of_%s","secretAccessKey":"secret-of-%[1]s","account":%[1]q,"arn":"arn:aws:iam::%[1]s:user/alice"}`, account))
	}
	r.write("credentials/kms.json", `{"identities":[`+strings.Join(identities, ",")+`]}`)
	cluster := tokentest.NewToken(t, &modules)
	// Who makes a key store has the PIN: the configuration need not.
	r.configure(strings.Replace(suiteConfig, "tokens:\n", fmt.Sprintf("tokens:\n  hsm: {uri: \"pkcs11:token=%s?module-path=%s\"}\n", cluster.Token, cluster.ModulePath), 1))
	return r
}

// TestSuite is what users see of the embedded KMS through the official client,
// over HTTP with TLS and Signature Version 4, of the whole server. Its external
// key store is the XKS proxy of the same process.
func TestSuite(t *testing.T) {
	r := newSuiteRig(t)
	externalKeys := [2]string{"external-a", "external-b"}
	for _, id := range externalKeys {
		r.generate(id, both)
	}
	r.start()
	transport := &http.Transport{TLSClientConfig: r.tlsClient()}
	t.Cleanup(transport.CloseIdleConnections)
	endpoint := "https://" + r.proxy.KMSAddresses()[0].String()
	credential := r.load().Stores[0].Credentials[0]
	var lacks []types.KeySpec
	for _, spec := range r.named.Lacks {
		lacks = append(lacks, types.KeySpec(spec))
	}
	kmstest.Run(t, kmstest.Target{
		Open: func(account, region string) engine.API {
			return kms.New(kms.Options{
				Region: region, BaseEndpoint: aws.String(endpoint), HTTPClient: &http.Client{Transport: transport}, Retryer: aws.NopRetryer{},
				Credentials: credentials.NewStaticCredentialsProvider("of_"+account, "secret-of-"+account, ""),
			})
		},
		Proxy: kmstest.Proxy{
			Endpoint: "https://" + r.proxy.Addresses()[0].String(), Path: "/keystores/default" + xks.APIPath,
			AccessKeyID: credential.AccessKeyID, SecretAccessKey: credential.SecretAccessKey, Keys: externalKeys,
			SetEnabled: func(id string, enabled bool) {
				if err := r.token.SetEnabled(t.Context(), id, enabled); err != nil {
					t.Error(err)
				}
			},
		},
		Lacks:   lacks,
		Cluster: kmstest.Cluster{ID: suiteCluster, Password: tokentest.PIN, TrustAnchor: string(r.ca.PEM())},
	})
}
