package engine

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// customStore is a custom key store.
type customStore struct {
	Account string                   `json:"a"`
	Region  string                   `json:"r"`
	ID      string                   `json:"id"` // cks- and 17 hexadecimal digits
	Name    string                   `json:"n"`
	Type    types.CustomKeyStoreType `json:"t"`
	Created time.Time                `json:"c"`

	State     types.ConnectionStateType     `json:"s"`
	ErrorCode types.ConnectionErrorCodeType `json:"e,omitzero"` // why it is FAILED

	// Secret is the password of the token, or the secret access key of the
	// proxy's credential, encrypted (see Engine.sealSecret).
	Secret []byte `json:"x"`

	// AWS_CLOUDHSM:
	ClusterID   string `json:"cl,omitzero"`
	TrustAnchor string `json:"ta,omitzero"` // PEM

	// EXTERNAL_KEY_STORE:
	Connectivity types.XksProxyConnectivityType `json:"co,omitzero"`
	Endpoint     string                         `json:"ep,omitzero"` // https://host[:port]
	Path         string                         `json:"pa,omitzero"` // with /kms/xks/v1
	VPCService   string                         `json:"vs,omitzero"`
	VPCOwner     string                         `json:"vo,omitzero"`
	AccessKeyID  string                         `json:"ak,omitzero"`
}

func (s *customStore) ref() string { return storeRef(s.Account, s.Region, s.ID) }

// customStore returns a custom key store, or nil.
func (s *state) customStore(account, region, id string) *customStore {
	s.mu.RLock()
	defer s.mu.RUnlock()
	cks, _ := s.stores.Get(storeRef(account, region, id))
	return cks
}

// isConnected reports whether the custom key store of a key is connected.
func (s *state) isConnected(k *key) bool {
	cks := s.customStore(k.Account, k.Region, k.StoreID)
	return cks != nil && cks.State == types.ConnectionStateTypeConnected
}
