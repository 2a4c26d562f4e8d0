package engine

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// customStore is a custom key store. Like a key, it is never changed once the
// state has it: see clone.
type customStore struct {
	Account string                   `json:"a"`
	Region  string                   `json:"r"`
	ID      string                   `json:"id"` // cks- and 17 hexadecimal digits
	Name    string                   `json:"n"`
	Type    types.CustomKeyStoreType `json:"t"`
	Created time.Time                `json:"c"`

	State     types.ConnectionStateType     `json:"s"`
	ErrorCode types.ConnectionErrorCodeType `json:"e,omitzero"` // why it is FAILED
	// Refused is why the token refused the password. It is not tried again until
	// it was updated, since tokens lock themselves after a few wrong ones.
	Refused types.ConnectionErrorCodeType `json:"rf,omitzero"`
	// resumes tells that the store is CONNECTING because it was connected when
	// the former process ended.
	resumes bool

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

// lock names the lock of whoever changes the store.
func (s *customStore) lock() string { return "store/" + s.ref() }

// clone returns a copy that may be changed, but for the bytes of its secret.
func (s *customStore) clone() *customStore {
	c := *s
	return &c
}

func (s *customStore) isExternal() bool {
	return s.Type == types.CustomKeyStoreTypeExternalKeyStore
}

func (s *customStore) isConnected() bool { return s.State == types.ConnectionStateTypeConnected }

func (s *customStore) usesVPC() bool {
	return s.Connectivity == types.XksProxyConnectivityTypeVpcEndpointService
}

// restored returns the store as it is when a process starts: what was connected
// is yet to be connected again, and what was being disconnected is.
func (s *customStore) restored() *customStore {
	switch s.State {
	case types.ConnectionStateTypeConnected:
		s.State, s.resumes = types.ConnectionStateTypeConnecting, true
	case types.ConnectionStateTypeDisconnecting:
		s.State = types.ConnectionStateTypeDisconnected
	}
	return s
}

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
	return cks != nil && cks.isConnected()
}

// findStore returns the caller's custom key store of an id.
func (c *Client) findStore(id string) (*customStore, error) {
	cks := c.engine.state.customStore(c.caller.Account, c.region, id)
	if cks == nil {
		return nil, &types.CustomKeyStoreNotFoundException{Message: message("Custom key store %s does not exist.", []any{quote(id)})}
	}
	return cks, nil
}
