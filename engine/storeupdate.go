package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/xks"
)

func (c *Client) updateCustomKeyStore(ctx context.Context, in *kms.UpdateCustomKeyStoreInput) (*kms.UpdateCustomKeyStoreOutput, error) {
	for {
		present, err := c.findStore(aws.ToString(in.CustomKeyStoreId))
		if err != nil {
			return nil, err
		}
		next, proxy, err := c.updated(ctx, present, in)
		if err != nil {
			return nil, err
		}
		// The proxy was asked without a lock; if the store has changed meanwhile
		// all is checked again.
		done, err := c.replaceStore(ctx, present, next, proxy)
		if done || err != nil {
			return &kms.UpdateCustomKeyStoreOutput{}, err
		}
	}
}

// replaceStore puts next in the place of present; done is false if that is not
// there any more.
func (c *Client) replaceStore(ctx context.Context, present, next *customStore, proxy *xks.Client) (done bool, err error) {
	e := c.engine
	unlock, err := e.locks.lock(ctx, storesLock, present.lock())
	if err != nil {
		return false, err
	}
	defer unlock()
	if e.state.customStore(present.Account, present.Region, present.ID) != present {
		return false, nil
	}
	if err := e.state.checkUnique(next); err != nil {
		return false, err
	}
	if err := e.putStore(ctx, next); err != nil {
		return false, err
	}
	if n := e.connections.get(next.ref()); n != nil && proxy != nil {
		n.proxy.Store(proxy)
	}
	return true, nil
}

// updated returns the key store as in changes it, and a client of its proxy if
// that is called otherwise from now on.
func (c *Client) updated(ctx context.Context, present *customStore, in *kms.UpdateCustomKeyStoreInput) (*customStore, *xks.Client, error) {
	if err := checkUpdatable(present, in); err != nil {
		return nil, nil, err
	}
	next := present.clone()
	if in.NewCustomKeyStoreName != nil {
		next.Name = *in.NewCustomKeyStoreName
	}
	if !next.isExternal() {
		return next, nil, c.updateCluster(ctx, next, in)
	}
	if err := next.updateProxy(in); err != nil {
		return nil, nil, err
	}
	if err := c.engine.state.checkUnique(next); err != nil {
		return nil, nil, err
	}
	if !changesProxy(in) {
		return next, nil, nil
	}
	proxy, err := c.updateSecret(ctx, next, in.XksProxyAuthenticationCredential)
	return next, proxy, err
}

// checkUpdatable returns an error if the type or the state of a key store does
// not permit an update.
func checkUpdatable(cks *customStore, in *kms.UpdateCustomKeyStoreInput) error {
	cluster := []member{{"CloudHsmClusterId", in.CloudHsmClusterId != nil}, {"KeyStorePassword", in.KeyStorePassword != nil}}
	anytime := []member{
		{"XksProxyAuthenticationCredential", in.XksProxyAuthenticationCredential != nil}, {"XksProxyUriPath", in.XksProxyUriPath != nil},
	}
	offline := []member{
		{"XksProxyConnectivity", in.XksProxyConnectivity != ""}, {"XksProxyUriEndpoint", in.XksProxyUriEndpoint != nil},
		{"XksProxyVpcEndpointServiceName", in.XksProxyVpcEndpointServiceName != nil},
		{"XksProxyVpcEndpointServiceOwner", in.XksProxyVpcEndpointServiceOwner != nil},
	}
	foreign := cluster
	if !cks.isExternal() {
		foreign, offline = append(anytime, offline...), cluster
	}
	if err := refuse(cks, foreign); err != nil {
		return err
	}
	switch cks.State {
	case types.ConnectionStateTypeDisconnected:
		return nil
	case types.ConnectionStateTypeConnected:
		for _, m := range offline {
			if m.given {
				return wrongState(cks, "%s can be updated only while the custom key store is disconnected", m.name)
			}
		}
		return nil
	}
	return wrongState(cks, "A custom key store can be updated only while it is disconnected or connected")
}

// wrongState is the answer of operations that a connection state does not permit.
func wrongState(cks *customStore, format string, args ...any) error {
	return storeInvalidState(message(format+", but the connection state of %s is %s.", append(args, cks.ID, cks.State)))
}

func (c *Client) updateCluster(ctx context.Context, next *customStore, in *kms.UpdateCustomKeyStoreInput) (err error) {
	if id := in.CloudHsmClusterId; id != nil && *id != next.ClusterID {
		cluster, ok := c.engine.clusters[*id]
		next.ClusterID, next.Refused = *id, ""
		switch {
		case !ok:
			return c.checkCluster(next)
		case !sameCertificate(cluster.TrustAnchor, next.TrustAnchor):
			return &types.CloudHsmClusterNotRelatedException{Message: message(
				"CloudHSM cluster %s does not have the cluster certificate of the cluster that custom key store %s was created with.", []any{*id, next.ID})}
		}
	}
	if in.KeyStorePassword == nil {
		return nil
	}
	password := []byte(*in.KeyStorePassword)
	defer clear(password)
	next.Refused = ""
	next.Secret, err = c.engine.sealSecret(ctx, next, password)
	return err
}

func changesProxy(in *kms.UpdateCustomKeyStoreInput) bool {
	return in.XksProxyAuthenticationCredential != nil || in.XksProxyUriPath != nil || in.XksProxyUriEndpoint != nil ||
		in.XksProxyConnectivity != "" || in.XksProxyVpcEndpointServiceName != nil || in.XksProxyVpcEndpointServiceOwner != nil
}

// updateProxy changes where the proxy of an external key store is.
func (s *customStore) updateProxy(in *kms.UpdateCustomKeyStoreInput) error {
	if in.XksProxyConnectivity != "" && in.XksProxyConnectivity != s.Connectivity {
		if in.XksProxyUriEndpoint == nil {
			return invalid("XksProxyUriEndpoint is required when XksProxyConnectivity is changed.")
		}
		s.Connectivity, s.VPCService, s.VPCOwner = in.XksProxyConnectivity, "", ""
	}
	for _, m := range []struct {
		to    *string
		given *string
	}{
		{&s.Endpoint, in.XksProxyUriEndpoint},
		{&s.Path, in.XksProxyUriPath},
		{&s.VPCService, in.XksProxyVpcEndpointServiceName},
		{&s.VPCOwner, in.XksProxyVpcEndpointServiceOwner},
	} {
		if m.given != nil {
			*m.to = *m.given
		}
	}
	return s.checkConnectivity()
}

// updateSecret takes over a credential, if there is one, and asks the proxy
// whether it would serve the key store as it is now.
func (c *Client) updateSecret(ctx context.Context, next *customStore, credential *types.XksProxyAuthenticationCredentialType) (*xks.Client, error) {
	var secret []byte
	var err error
	if credential != nil {
		next.AccessKeyID, secret = aws.ToString(credential.AccessKeyId), []byte(aws.ToString(credential.RawSecretAccessKey))
	} else if secret, err = c.engine.openSecret(ctx, next); err != nil {
		return nil, err
	}
	defer clear(secret)
	proxy, err := c.checkProxy(ctx, "UpdateCustomKeyStore", next, secret)
	if err != nil {
		return nil, err
	}
	if credential != nil {
		next.Secret, err = c.engine.sealSecret(ctx, next, secret)
	}
	return proxy, err
}
