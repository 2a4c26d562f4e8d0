package engine

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/xks"
)

// storesLock is held while the name, endpoint or cluster of a custom key store
// becomes one's own.
const storesLock = "stores"

func (c *Client) createCustomKeyStore(ctx context.Context, in *kms.CreateCustomKeyStoreInput) (*kms.CreateCustomKeyStoreOutput, error) {
	cks, secret, err := c.draftStore(in)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if err := c.engine.state.checkUnique(cks); err != nil {
		return nil, err
	}
	// A VPC endpoint service need not be there before it is connected.
	if cks.isExternal() && !cks.usesVPC() {
		if _, err := c.checkProxy(ctx, "CreateCustomKeyStore", cks, secret); err != nil {
			return nil, err
		}
	}
	if cks.Secret, err = c.engine.sealSecret(ctx, cks, secret); err != nil {
		return nil, err
	}
	unlock, err := c.engine.locks.lock(ctx, storesLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.engine.state.checkUnique(cks); err != nil {
		return nil, err // somebody was faster
	}
	if err := c.engine.putStore(ctx, cks); err != nil {
		return nil, err
	}
	return &kms.CreateCustomKeyStoreOutput{CustomKeyStoreId: aws.String(cks.ID)}, nil
}

func (e *Engine) putStore(ctx context.Context, cks *customStore) error {
	b := new(batch)
	b.putStore(cks)
	return e.commit(ctx, b)
}

// draftStore returns the key store that in describes, and its secret in the
// clear.
func (c *Client) draftStore(in *kms.CreateCustomKeyStoreInput) (*customStore, []byte, error) {
	cks := &customStore{
		Account: c.caller.Account, Region: c.region, ID: "cks-" + randomHex(9)[1:], Name: aws.ToString(in.CustomKeyStoreName),
		Type: in.CustomKeyStoreType, Created: c.engine.now(), State: types.ConnectionStateTypeDisconnected,
	}
	if cks.Type == "" {
		cks.Type = types.CustomKeyStoreTypeAwsCloudhsm
	}
	cluster := []member{
		{"CloudHsmClusterId", in.CloudHsmClusterId != nil}, {"KeyStorePassword", in.KeyStorePassword != nil},
		{"TrustAnchorCertificate", in.TrustAnchorCertificate != nil},
	}
	proxy := []member{
		{"XksProxyConnectivity", in.XksProxyConnectivity != ""}, {"XksProxyUriEndpoint", in.XksProxyUriEndpoint != nil},
		{"XksProxyUriPath", in.XksProxyUriPath != nil}, {"XksProxyAuthenticationCredential", in.XksProxyAuthenticationCredential != nil},
	}
	endpoint := []member{
		{"XksProxyVpcEndpointServiceName", in.XksProxyVpcEndpointServiceName != nil},
		{"XksProxyVpcEndpointServiceOwner", in.XksProxyVpcEndpointServiceOwner != nil},
	}
	if !cks.isExternal() {
		if err := firstError(require(cks, cluster), refuse(cks, append(proxy, endpoint...))); err != nil {
			return nil, nil, err
		}
		cks.ClusterID, cks.TrustAnchor = *in.CloudHsmClusterId, *in.TrustAnchorCertificate
		return cks, []byte(*in.KeyStorePassword), c.checkCluster(cks)
	}
	if err := firstError(require(cks, proxy), refuse(cks, cluster)); err != nil {
		return nil, nil, err
	}
	cks.Connectivity, cks.Endpoint, cks.Path = in.XksProxyConnectivity, *in.XksProxyUriEndpoint, *in.XksProxyUriPath
	cks.AccessKeyID = aws.ToString(in.XksProxyAuthenticationCredential.AccessKeyId)
	cks.VPCService, cks.VPCOwner = aws.ToString(in.XksProxyVpcEndpointServiceName), aws.ToString(in.XksProxyVpcEndpointServiceOwner)
	return cks, []byte(aws.ToString(in.XksProxyAuthenticationCredential.RawSecretAccessKey)), cks.checkConnectivity()
}

// member is a parameter of a request, and whether it was given.
type member struct {
	name  string
	given bool
}

func require(cks *customStore, members []member) error {
	for _, m := range members {
		if !m.given {
			return invalid("%s is required for a custom key store of type %s.", m.name, cks.Type)
		}
	}
	return nil
}

func refuse(cks *customStore, members []member) error {
	for _, m := range members {
		if m.given {
			return invalid("%s is not valid for a custom key store of type %s.", m.name, cks.Type)
		}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkConnectivity checks what a proxy's address must be, and what it must have
// beside it.
func (s *customStore) checkConnectivity() error {
	switch {
	case s.usesVPC() && s.VPCService == "":
		return invalid("XksProxyVpcEndpointServiceName is required when XksProxyConnectivity is VPC_ENDPOINT_SERVICE.")
	case !s.usesVPC() && (s.VPCService != "" || s.VPCOwner != ""):
		return invalid("XksProxyVpcEndpointServiceName and XksProxyVpcEndpointServiceOwner are valid only when XksProxyConnectivity is VPC_ENDPOINT_SERVICE.")
	case !strings.HasSuffix(s.Path, xks.APIPath):
		return invalid("XksProxyUriPath must end with %s: this is the only version of the proxy API.", xks.APIPath)
	}
	if s.usesVPC() && s.VPCOwner == "" {
		s.VPCOwner = s.Account
	}
	if err := xks.ValidatePrefix(strings.TrimSuffix(s.Path, xks.APIPath)); err != nil {
		return invalid("XksProxyUriPath: %v.", err)
	}
	return nil
}

// checkCluster checks that the cluster of a key store is there and the one that
// is meant.
func (c *Client) checkCluster(cks *customStore) error {
	cluster, ok := c.engine.clusters[cks.ClusterID]
	switch {
	case !ok:
		return &types.CloudHsmClusterNotFoundException{Message: message("CloudHSM cluster %s does not exist: no token is configured under this id.", []any{cks.ClusterID})}
	case cluster.TrustAnchor != "" && !sameCertificate(cluster.TrustAnchor, cks.TrustAnchor):
		return &types.IncorrectTrustAnchorException{Message: message("TrustAnchorCertificate is not the trust anchor certificate of CloudHSM cluster %s.", []any{cks.ClusterID})}
	}
	return nil
}

// sameCertificate reports whether two PEM texts have the same first certificate,
// however they are broken into lines.
func sameCertificate(a, b string) bool {
	x, y := certificate(a), certificate(b)
	return x != nil && y != nil && x.Equal(y)
}

func certificate(text string) *x509.Certificate {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// checkProxy asks the proxy of a key store whether it would serve it.
func (c *Client) checkProxy(ctx context.Context, op string, cks *customStore, secret []byte) (*xks.Client, error) {
	proxy, err := c.engine.proxyWith(cks, secret)
	if err != nil {
		return nil, invalid("The external key store proxy cannot be called so: %v.", err)
	}
	return proxy, managing(c.engine.checkHealth(ctx, cks, proxy, op, requestIDOf(ctx)))
}
