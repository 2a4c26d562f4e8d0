package engine

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// checkUnique returns an error if another custom key store has what only one may
// have.
func (s *state) checkUnique(cks *customStore) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var err error
	s.stores.Scan(func(_ string, other *customStore) bool {
		if other.ref() != cks.ref() {
			err = cks.conflict(other)
		}
		return err == nil
	})
	return err
}

// conflict returns the error of a key store that takes what another has.
func (s *customStore) conflict(other *customStore) error {
	neighbours := s.Account == other.Account && s.Region == other.Region
	switch {
	case neighbours && s.Name == other.Name:
		return &types.CustomKeyStoreNameInUseException{Message: message("The custom key store name %s is already in use.", []any{quote(s.Name)})}
	case s.Type != other.Type:
		return nil
	case !s.isExternal():
		// Of all accounts: who is logged in to a token makes it take any password.
		if s.ClusterID == other.ClusterID {
			return &types.CloudHsmClusterInUseException{Message: message("CloudHSM cluster %s is already associated with a custom key store.", []any{s.ClusterID})}
		}
	case s.Region == other.Region:
		return s.conflictOfProxies(other, neighbours)
	}
	return nil
}

func (s *customStore) conflictOfProxies(other *customStore, neighbours bool) error {
	sameEndpoint := sameHost(s.Endpoint, other.Endpoint)
	switch {
	case neighbours && sameEndpoint && s.Path == other.Path:
		return &types.XksProxyUriInUseException{Message: message("The proxy URI %s%s is already associated with another external key store.", []any{s.Endpoint, s.Path})}
	case sameEndpoint && s.Connectivity != other.Connectivity:
		return &types.XksProxyUriEndpointInUseException{Message: message("The proxy URI endpoint %s is already associated with an external key store of another connectivity.", []any{s.Endpoint})}
	case neighbours && sameEndpoint && s.usesVPC():
		return &types.XksProxyUriEndpointInUseException{Message: message("The proxy URI endpoint %s is already associated with another external key store.", []any{s.Endpoint})}
	case s.usesVPC() && s.VPCService == other.VPCService:
		return &types.XksProxyVpcEndpointServiceInUseException{Message: message("The VPC endpoint service %s is already associated with another external key store.", []any{s.VPCService})}
	}
	return nil
}

// sameHost reports whether two endpoints are the same, as DNS and HTTPS see it.
func sameHost(a, b string) bool {
	const standard = ":443"
	return strings.EqualFold(strings.TrimSuffix(a, standard), strings.TrimSuffix(b, standard))
}
