package engine

import (
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/keystore"
)

// key is one KMS key in one Region. A key that the state has is never changed:
// an operation clones it, changes the clone, and commits that in its place. It
// is stored as JSON.
type key struct {
	// What is read whenever a key is looked at comes first: among 100,000 keys, each
	// line of memory that is touched is a wait.
	Account     string             `json:"a"`
	Region      string             `json:"r"`
	ID          string             `json:"id"`
	Created     time.Time          `json:"c"`
	Spec        types.KeySpec      `json:"s"`
	Usage       types.KeyUsageType `json:"u"`
	Origin      types.OriginType   `json:"o"`
	Description string             `json:"d,omitzero"`
	StoreID     string             `json:"cks,omitzero"` // of a custom key store

	Disabled        bool         `json:"off,omitzero"`
	PendingReplicas bool         `json:"rep,omitzero"` // deletion waits for the replicas'
	DeleteWindow    int32        `json:"win,omitzero"` // days; while pending deletion or waiting for replicas
	MultiRegion     *multiRegion `json:"m,omitzero"`   // nil: a single-Region key
	DeleteAt        time.Time    `json:"del,omitzero"` // zero: not pending deletion
	SettlesAt       time.Time    `json:"setat,omitzero"`

	Current string `json:"cur,omitzero"` // id of the material that new ciphertext uses; empty: none was there yet
	// Materials are in the order in which they became or will become current.
	Materials []material `json:"mat,omitempty"`
	used      *usage     // of all clones; set once the state has the key

	Settling types.KeyState `json:"set,omitzero"` // Creating or Updating, until SettlesAt
	Policy   string         `json:"p,omitzero"`   // empty: AWS's default
	Tags     []tag          `json:"t,omitempty"`
	Rotation rotation       `json:"rot,omitzero"`
	XksKeyID string         `json:"xks,omitzero"`
	Managed  string         `json:"mgd,omitzero"` // service that an AWS managed key is for; empty: a customer managed key
}

// tag is a tag of a key, which has them sorted by their keys.
type tag struct {
	Key   string `json:"k"`
	Value string `json:"v"`
}

// multiRegion relates the keys of one key id in several Regions. All related
// keys store the same.
type multiRegion struct {
	Primary  string   `json:"p"`           // Region of the primary key
	Replicas []string `json:"r,omitempty"` // Regions of the replica keys, sorted
}

// rotation is what is known of the rotation of a key.
type rotation struct {
	Enabled  bool      `json:"e,omitzero"`
	Period   int32     `json:"p,omitzero"` // days, while enabled
	Next     time.Time `json:"n,omitzero"` // of automatic rotation, while enabled
	OnDemand int       `json:"d,omitzero"` // rotations on demand so far
}

// material is one key material of a key.
type material struct {
	ID      string             `json:"id"`         // KeyMaterialId: 64 hexadecimal digits
	Vault   *keystore.Material `json:"v,omitzero"` // nil: imported material that expired or was deleted
	Since   time.Time          `json:"s,omitzero"` // when it became current; zero: it never did
	Rotated types.RotationType `json:"r,omitzero"` // how it became current; empty: it is the first

	// Of imported material:
	Description string    `json:"ds,omitzero"`
	ValidTo     time.Time `json:"vt,omitzero"` // zero: does not expire
}

// isThere reports whether the material can be used at a time.
func (m *material) isThere(now time.Time) bool {
	return m.Vault != nil && (m.ValidTo.IsZero() || now.Before(m.ValidTo))
}

// keyRef names a key: account/region/id.
type keyRef string

func newKeyRef(account, region, id string) keyRef {
	return keyRef(account + "/" + region + "/" + id)
}

func (k *key) ref() keyRef { return newKeyRef(k.Account, k.Region, k.ID) }

// family names all related keys of a multi-Region key, or a single key: what is
// locked to change any of them.
func (k *key) family() string { return familyOf(k.Account, k.ID) }

func familyOf(account, id string) string { return "key/" + account + "/" + id }

func (k *key) arn() string { return keyARN(k.Account, k.Region, k.ID) }

// arnIn is the ARN of the related key in another Region.
func (k *key) arnIn(region string) string { return keyARN(k.Account, region, k.ID) }

// clone returns a copy that may be changed. What slices and pointers refer to is
// copied where operations change it in place.
func (k *key) clone() *key {
	c := *k
	c.Tags = slices.Clone(k.Tags)
	c.Materials = slices.Clone(k.Materials)
	if k.MultiRegion != nil {
		m := *k.MultiRegion
		m.Replicas = slices.Clone(m.Replicas)
		c.MultiRegion = &m
	}
	return &c
}

func (k *key) isPrimary() bool { return k.MultiRegion != nil && k.MultiRegion.Primary == k.Region }

// current returns the material that new ciphertext uses, nil if there is none.
func (k *key) current() *material { return k.material(k.Current) }

// material returns the material of an id, or nil.
func (k *key) material(id string) *material {
	if id == "" {
		return nil
	}
	// The newest are asked for most.
	for i := len(k.Materials) - 1; i >= 0; i-- {
		if k.Materials[i].ID == id {
			return &k.Materials[i]
		}
	}
	return nil
}

// isPendingImport reports whether material that the key needs has to be imported
// first: it has none, or any that was ever current is missing, since AWS KMS
// stops the use of the whole key then.
func (k *key) isPendingImport(now time.Time) bool {
	if k.Origin != types.OriginTypeExternal {
		return false
	}
	if k.awaitsFirstImport() {
		return true
	}
	for i := range k.Materials {
		if m := &k.Materials[i]; !m.Since.IsZero() && !m.isThere(now) {
			return true
		}
	}
	return false
}

// awaitsFirstImport reports whether the key never had the material that it needs.
func (k *key) awaitsFirstImport() bool {
	return k.Origin == types.OriginTypeExternal && k.Current == ""
}

// isPendingDeletion reports whether the key waits for its deletion, or for that
// of its replicas first.
func (k *key) isPendingDeletion() bool { return k.PendingReplicas || !k.DeleteAt.IsZero() }

// isGone reports whether the key's time has come: it is no more, even if the
// worker has not got to it yet.
func (k *key) isGone(now time.Time) bool { return !k.DeleteAt.IsZero() && !now.Before(k.DeleteAt) }

// metadata describes the key as AWS KMS does: every member that a key of this
// kind has, and no other.
func (k *key) metadata(s *state, now time.Time) *types.KeyMetadata {
	status := s.stateOf(k, now)
	m := &types.KeyMetadata{
		AWSAccountId: aws.String(k.Account), Arn: aws.String(k.arn()), CreationDate: aws.Time(k.Created),
		//nolint:staticcheck // deprecated, and sent
		CustomerMasterKeySpec: customerMasterKeySpec(k.Spec), Description: aws.String(k.Description),
		Enabled: status == types.KeyStateEnabled, KeyId: aws.String(k.ID), KeyManager: k.manager(),
		KeySpec: k.Spec, KeyState: status, KeyUsage: k.Usage, MultiRegion: aws.Bool(k.MultiRegion != nil), Origin: k.Origin,
	}
	k.describeAlgorithms(m)
	k.describeDeletion(m)
	if k.MultiRegion != nil {
		m.MultiRegionConfiguration = k.multiRegionConfiguration()
	}
	if k.Origin == types.OriginTypeExternal {
		k.describeImport(m, now)
	}
	if k.Current != "" && k.rotates() {
		m.CurrentKeyMaterialId = aws.String(k.Current)
	}
	if k.StoreID != "" {
		m.CustomKeyStoreId = aws.String(k.StoreID)
		if k.XksKeyID != "" {
			m.XksKeyConfiguration = &types.XksKeyConfigurationType{Id: aws.String(k.XksKeyID)}
		} else if cks := s.customStore(k.Account, k.Region, k.StoreID); cks != nil {
			m.CloudHsmClusterId = aws.String(cks.ClusterID)
		}
	}
	return m
}

func (k *key) manager() types.KeyManagerType {
	if k.Managed != "" {
		return types.KeyManagerTypeAws
	}
	return types.KeyManagerTypeCustomer
}

// rotates reports whether the key is of a kind whose material can change:
// symmetric, made by KMS or imported.
func (k *key) rotates() bool {
	return k.Spec == types.KeySpecSymmetricDefault && (k.Origin == types.OriginTypeAwsKms || k.Origin == types.OriginTypeExternal)
}

func (k *key) describeAlgorithms(m *types.KeyMetadata) {
	sp, _ := specOf(k.Spec)
	switch k.Usage {
	case types.KeyUsageTypeEncryptDecrypt:
		m.EncryptionAlgorithms = sp.encryption
	case types.KeyUsageTypeSignVerify:
		m.SigningAlgorithms = sp.signing
	case types.KeyUsageTypeGenerateVerifyMac:
		m.MacAlgorithms = sp.mac
	case types.KeyUsageTypeKeyAgreement:
		m.KeyAgreementAlgorithms = sp.agreement
	}
}

func (k *key) describeDeletion(m *types.KeyMetadata) {
	switch {
	case k.PendingReplicas:
		m.PendingDeletionWindowInDays = aws.Int32(k.DeleteWindow)
	case !k.DeleteAt.IsZero():
		m.DeletionDate = aws.Time(k.DeleteAt)
	}
}

func (k *key) describeImport(m *types.KeyMetadata, now time.Time) {
	current := k.current()
	if current == nil || !current.isThere(now) {
		return
	}
	m.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
	if !current.ValidTo.IsZero() {
		m.ExpirationModel = types.ExpirationModelTypeKeyMaterialExpires
		m.ValidTo = aws.Time(current.ValidTo)
	}
}

func (k *key) multiRegionConfiguration() *types.MultiRegionConfiguration {
	c := &types.MultiRegionConfiguration{
		MultiRegionKeyType: types.MultiRegionKeyTypeReplica,
		PrimaryKey:         &types.MultiRegionKey{Arn: aws.String(k.arnIn(k.MultiRegion.Primary)), Region: aws.String(k.MultiRegion.Primary)},
		ReplicaKeys:        []types.MultiRegionKey{}, // sent although empty
	}
	if k.isPrimary() {
		c.MultiRegionKeyType = types.MultiRegionKeyTypePrimary
	}
	for _, region := range k.MultiRegion.Replicas {
		c.ReplicaKeys = append(c.ReplicaKeys, types.MultiRegionKey{Arn: aws.String(k.arnIn(region)), Region: aws.String(region)})
	}
	return c
}

// customerMasterKeySpec is the older name of a key spec, which only the older
// specs have.
func customerMasterKeySpec(s types.KeySpec) types.CustomerMasterKeySpec {
	older := types.CustomerMasterKeySpec(s)
	if slices.Contains(older.Values(), older) {
		return older
	}
	return ""
}
