package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func (c *Client) describeCustomKeyStores(_ context.Context, in *kms.DescribeCustomKeyStoresInput) (*kms.DescribeCustomKeyStoresOutput, error) {
	if in.CustomKeyStoreId != nil && in.CustomKeyStoreName != nil {
		return nil, invalid("CustomKeyStoreId and CustomKeyStoreName cannot be specified in the same request.")
	}
	p, err := newPage(c, "DescribeCustomKeyStores", in.Limit, in.Marker, 100, 1000)
	if err != nil {
		return nil, err
	}
	out := &kms.DescribeCustomKeyStoresOutput{CustomKeyStores: []types.CustomKeyStoresListEntry{}}
	s := c.engine.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	prefix := storeRef(c.caller.Account, c.region, "")
	out.NextMarker, out.Truncated = scan(p, &s.stores, prefix, func(cks *customStore) bool {
		if in.CustomKeyStoreId != nil && *in.CustomKeyStoreId != cks.ID || in.CustomKeyStoreName != nil && *in.CustomKeyStoreName != cks.Name {
			return false
		}
		out.CustomKeyStores = append(out.CustomKeyStores, cks.entry())
		return true
	})
	if named := firstOf(in.CustomKeyStoreId, in.CustomKeyStoreName); named != nil && len(out.CustomKeyStores) == 0 {
		return nil, &types.CustomKeyStoreNotFoundException{Message: message("Custom key store %s does not exist.", []any{quote(*named)})}
	}
	return out, nil
}

func firstOf(a, b *string) *string {
	if a != nil {
		return a
	}
	return b
}

// entry describes the store, without its secret.
func (s *customStore) entry() types.CustomKeyStoresListEntry {
	entry := types.CustomKeyStoresListEntry{
		ConnectionState: s.State, CreationDate: aws.Time(s.Created), CustomKeyStoreId: aws.String(s.ID),
		CustomKeyStoreName: aws.String(s.Name), CustomKeyStoreType: s.Type,
	}
	if s.State == types.ConnectionStateTypeFailed {
		entry.ConnectionErrorCode = s.ErrorCode
	}
	if !s.isExternal() {
		entry.CloudHsmClusterId, entry.TrustAnchorCertificate = aws.String(s.ClusterID), aws.String(s.TrustAnchor)
		return entry
	}
	entry.XksProxyConfiguration = &types.XksProxyConfigurationType{
		AccessKeyId: aws.String(s.AccessKeyID), Connectivity: s.Connectivity, UriEndpoint: aws.String(s.Endpoint), UriPath: aws.String(s.Path),
	}
	if s.usesVPC() {
		entry.XksProxyConfiguration.VpcEndpointServiceName = aws.String(s.VPCService)
		entry.XksProxyConfiguration.VpcEndpointServiceOwner = aws.String(s.VPCOwner)
	}
	return entry
}
