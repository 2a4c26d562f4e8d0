package kmstest

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// common are the members of KeyMetadata that every key has. Enabled is no pointer
// and tested by its value.
const common = "AWSAccountId Arn CreationDate Description KeyId KeyManager KeySpec KeyState KeyUsage MultiRegion Origin"

var (
	idForm      = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	multiIDForm = regexp.MustCompile(`^mrk-[0-9a-f]{32}$`)
)

// keyForm is a form of CreateKey and what KeyMetadata has for it.
type keyForm struct {
	name       string
	in         kms.CreateKeyInput
	usage      types.KeyUsageType
	members    string // beside the common ones
	algorithms string
}

const (
	rsaEncryption = "RSAES_OAEP_SHA_1 RSAES_OAEP_SHA_256"
	rsaSigning    = "RSASSA_PKCS1_V1_5_SHA_256 RSASSA_PKCS1_V1_5_SHA_384 RSASSA_PKCS1_V1_5_SHA_512 RSASSA_PSS_SHA_256 RSASSA_PSS_SHA_384 RSASSA_PSS_SHA_512"
)

// forms are all kinds of keys but those in custom key stores. There is one longest
// RSA key among them, as it takes long to make.
func forms(longestRSA types.KeySpec) []keyForm {
	const (
		encryption = "CustomerMasterKeySpec EncryptionAlgorithms"
		signing    = "CustomerMasterKeySpec SigningAlgorithms"
		agreement  = "CustomerMasterKeySpec KeyAgreementAlgorithms"
		mac        = "CustomerMasterKeySpec MacAlgorithms"
		current    = " CurrentKeyMaterialId"
		enc        = types.KeyUsageTypeEncryptDecrypt
		sig        = types.KeyUsageTypeSignVerify
		agr        = types.KeyUsageTypeKeyAgreement
		gen        = types.KeyUsageTypeGenerateVerifyMac
	)
	all := []keyForm{
		{name: "no parameters", usage: enc, members: encryption + current, algorithms: "SYMMETRIC_DEFAULT"},
		{name: "multi-Region", in: kms.CreateKeyInput{MultiRegion: aws.Bool(true)}, usage: enc, members: encryption + current + " MultiRegionConfiguration", algorithms: "SYMMETRIC_DEFAULT"},
		{name: "imported", in: kms.CreateKeyInput{Origin: types.OriginTypeExternal}, usage: enc, members: encryption, algorithms: "SYMMETRIC_DEFAULT"},
		{
			name: "multi-Region, imported", in: kms.CreateKeyInput{Origin: types.OriginTypeExternal, MultiRegion: aws.Bool(true)},
			usage: enc, members: encryption + " MultiRegionConfiguration", algorithms: "SYMMETRIC_DEFAULT",
		},
	}
	add := func(spec types.KeySpec, usage types.KeyUsageType, members, algorithms string) {
		all = append(all, keyForm{
			name: string(spec) + " for " + string(usage), in: kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage},
			usage: usage, members: members, algorithms: algorithms,
		})
	}
	add(types.KeySpecSymmetricDefault, enc, encryption+current, "SYMMETRIC_DEFAULT")
	add(types.KeySpecRsa2048, enc, encryption, rsaEncryption)
	add(types.KeySpecRsa2048, sig, signing, rsaSigning)
	add(types.KeySpecRsa3072, enc, encryption, rsaEncryption)
	add(longestRSA, sig, signing, rsaSigning)
	for spec, algorithm := range map[types.KeySpec]string{
		types.KeySpecEccNistP256: "ECDSA_SHA_256", types.KeySpecEccNistP384: "ECDSA_SHA_384", types.KeySpecEccNistP521: "ECDSA_SHA_512",
	} {
		add(spec, sig, signing, algorithm)
		add(spec, agr, agreement, "ECDH")
	}
	add(types.KeySpecEccSecgP256k1, sig, signing, "ECDSA_SHA_256")
	add(types.KeySpecEccNistEdwards25519, sig, "SigningAlgorithms", "ED25519_PH_SHA_512 ED25519_SHA_512")
	for _, size := range []string{"224", "256", "384", "512"} {
		add(types.KeySpec("HMAC_"+size), gen, mac, "HMAC_SHA_"+size)
	}
	return all
}

// createKeys has every form of CreateKey: its metadata has the members that AWS
// KMS returns for a key of the kind, and no other.
func (s *suite) createKeys() {
	for _, form := range forms(s.longestRSA()) {
		s.sub(form.name, func(s *suite) {
			if s.lacks(form.in.KeySpec) && form.in.Origin == "" {
				refused(s, s.CreateKey, &form.in, "UnsupportedOperationException")
				return
			}
			began := time.Now().Add(-time.Second)
			m := s.create(&form.in)
			s.checkMembers(m, common+" "+form.members)
			spec, origin := form.in.KeySpec, form.in.Origin
			if spec == "" {
				spec = types.KeySpecSymmetricDefault
			}
			state := types.KeyStateEnabled
			if origin == "" {
				origin = types.OriginTypeAwsKms
			} else {
				state = types.KeyStatePendingImport
			}
			//nolint:staticcheck // the older name is deprecated, and served.
			older := string(m.CustomerMasterKeySpec)
			switch {
			case *m.AWSAccountId != Account || *m.Arn != arn(m.KeyId) || *m.Description != "" || m.KeyManager != types.KeyManagerTypeCustomer,
				m.KeySpec != spec || older != "" && older != string(spec) || m.KeyUsage != form.usage || m.Origin != origin,
				m.KeyState != state || m.Enabled != (state == types.KeyStateEnabled),
				m.CreationDate.Before(began) || m.CreationDate.After(time.Now().Add(time.Second)):
				s.Errorf("metadata %+v", *m)
			}
			if got := strings.Join(algorithms(m), " "); got != form.algorithms {
				s.Errorf("algorithms %s, want %s", got, form.algorithms)
			}
			s.checkID(m)
			if described := s.describe(m.KeyId); !reflect.DeepEqual(described, m) {
				s.Errorf("DescribeKey tells %+v, CreateKey told %+v", *described, *m)
			}
			if state == types.KeyStateEnabled {
				s.keys[keyKind{spec, form.usage}] = *m.KeyId
			}
		})
	}
	s.sub("older name of the spec", func(s *suite) {
		//nolint:staticcheck // the older name is deprecated, and served.
		m := s.create(&kms.CreateKeyInput{CustomerMasterKeySpec: types.CustomerMasterKeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify})
		//nolint:staticcheck // as above
		if m.KeySpec != types.KeySpecEccNistP256 || m.CustomerMasterKeySpec != types.CustomerMasterKeySpecEccNistP256 {
			s.Errorf("metadata %+v", *m)
		}
		//nolint:staticcheck // as above
		both := &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, CustomerMasterKeySpec: types.CustomerMasterKeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify}
		refused(s, s.CreateKey, both, "ValidationException")
	})
}

// checkID checks the id of a key and what relates it to others.
func (s *suite) checkID(m *types.KeyMetadata) {
	s.Helper()
	if !*m.MultiRegion {
		if !idForm.MatchString(*m.KeyId) {
			s.Errorf("key id %s", *m.KeyId)
		}
		return
	}
	c := m.MultiRegionConfiguration
	if !multiIDForm.MatchString(*m.KeyId) || c.MultiRegionKeyType != types.MultiRegionKeyTypePrimary || *c.PrimaryKey.Arn != *m.Arn ||
		*c.PrimaryKey.Region != Region || c.ReplicaKeys == nil || len(c.ReplicaKeys) != 0 {
		s.Errorf("key id %s, multi-Region configuration %+v", *m.KeyId, *c)
	}
}

// checkMembers fails the test unless a structure has these members and no other.
// Booleans that are no pointers do not count.
func (s *suite) checkMembers(v any, want string) {
	s.Helper()
	wanted := strings.Fields(want)
	slices.Sort(wanted)
	if got := members(v); !slices.Equal(got, wanted) {
		s.Errorf("%T has the members %v, want %v", v, got, wanted)
	}
}

func members(v any) []string {
	var names []string
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Name, value.Field(i)
		if name != "ResultMetadata" && value.Type().Field(i).IsExported() && field.Kind() != reflect.Bool && !field.IsZero() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
