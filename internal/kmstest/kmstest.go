// Package kmstest is one suite of what users see of AWS KMS, for everything that
// has the method set of its client: the embedded engine, and the official client
// in front of a server. It knows the API alone, so that what it asserts holds for
// whoever serves it.
package kmstest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// The accounts and Regions that the suite uses.
const (
	Account      = "111122223333"
	OtherAccount = "444455556666"
	Region       = "eu-central-1"
	OtherRegion  = "us-east-1"
)

// Target is the KMS under test. Its keys are left behind.
type Target struct {
	// Open returns the KMS as a user of the account sees it in a Region. Both
	// accounts are empty at first.
	Open    func(account, region string) engine.API
	Proxy   Proxy
	Cluster Cluster
	// RSA4096 has a key of this size made, which on a busy machine takes longer
	// than servers wait.
	RSA4096 bool
	// Lacks are the key specs that the token of the KMS cannot serve: their keys have to
	// be refused.
	Lacks []types.KeySpec
}

// Proxy is an XKS proxy that the KMS can reach and trusts.
type Proxy struct {
	Endpoint string // https URL without a path
	Path     string // of one of its key stores, up to /kms/xks/v1
	// Of that key store:
	AccessKeyID, SecretAccessKey string
	Keys                         [2]string          // usable external keys
	SetEnabled                   func(string, bool) // withdraws or restores an external key in the proxy
}

// Cluster is a token that the KMS takes for an AWS CloudHSM cluster.
type Cluster struct {
	ID, Password, TrustAnchor string
}

// Run runs the suite and returns what it has seen.
func Run(t *testing.T, target Target) *Record {
	all := &shared{target: target, record: newRecord(), keys: map[keyKind]string{}, wrapping: map[string]*kms.GetParametersForImportOutput{}}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"CreateKey", (*suite).createKeys},
		{"KeyCombinations", (*suite).keyCombinations},
		{"Limits", (*suite).limits},
		{"Encrypt", (*suite).encrypt},
		{"DataKeys", (*suite).dataKeys},
		{"RSAEncryption", (*suite).rsaEncryption},
		{"Signatures", (*suite).signatures},
		{"MACs", (*suite).macs},
		{"KeyAgreement", (*suite).keyAgreement},
		{"GenerateRandom", (*suite).generateRandom},
		{"Import", (*suite).importMaterial},
		{"Vectors", (*suite).vectors},
		{"Lifecycle", (*suite).lifecycle},
		{"Rotation", (*suite).rotation},
		{"MultiRegion", (*suite).multiRegion},
		{"Aliases", (*suite).aliases},
		{"Tags", (*suite).tags},
		{"Policies", (*suite).policies},
		{"Grants", (*suite).grants},
		{"Recorded", (*suite).recorded},
		{"LastUsage", (*suite).lastUsage},
		{"Names", (*suite).names},
		{"Paging", (*suite).paging},
		{"DryRun", (*suite).dryRun},
		{"GrantTokens", (*suite).grantTokens},
		{"Recipient", (*suite).recipient},
		{"ExternalKeyStore", (*suite).externalKeyStore},
		{"CloudHSMKeyStore", (*suite).cloudHSMKeyStore},
		{"NotServed", (*suite).notServed},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, shared: all, API: target.Open(Account, Region)})
		})
	}
	return all.record
}

// suite is one test of the suite. The KMS of the first account in the first
// Region is its own.
type suite struct {
	*testing.T
	engine.API
	*shared
}

// shared is what tests have in common. They run one after the other.
type shared struct {
	target Target
	record *Record
	keys   map[keyKind]string
	// wrapping has import parameters by the key id and the wrapping algorithm.
	wrapping map[string]*kms.GetParametersForImportOutput
}

type keyKind struct {
	spec  types.KeySpec
	usage types.KeyUsageType
}

// method is an operation of the API.
type method[I, O any] func(context.Context, *I, ...func(*kms.Options)) (*O, error)

// ok calls an operation and ends the test unless it succeeds.
func ok[I, O any](s *suite, do method[I, O], in *I) *O {
	s.Helper()
	out, err := patiently(s, do, in)
	if err != nil {
		s.Fatalf("%s: %v", operationOf[I](), err)
	}
	s.record.succeeded(operationOf[I]())
	return out
}

// refused calls an operation and fails the test unless it answers an error of
// this code. It returns the message.
func refused[I, O any](s *suite, do method[I, O], in *I, code string) string {
	s.Helper()
	_, err := patiently(s, do, in)
	got, message := codeOf(err)
	if got != code {
		s.Errorf("%s: error %v, want %s", operationOf[I](), err, code)
	}
	s.record.refused(operationOf[I](), got, message)
	return message
}

// patiently calls an operation again when it answers that the token or a proxy was
// too slow: how fast the machine is must not decide.
func patiently[I, O any](s *suite, do method[I, O], in *I) (out *O, err error) {
	const attempts = 20
	for range attempts {
		out, err = do(s.Context(), in)
		code, message := codeOf(err)
		if code != "DependencyTimeoutException" && !strings.Contains(message, "Retry the request") {
			break
		}
	}
	return out, err
}

// in returns a test of the same KMS for another account or Region.
func (s *suite) in(account, region string) *suite {
	return &suite{T: s.T, shared: s.shared, API: s.target.Open(account, region)}
}

// sub runs a part of a test.
func (s *suite) sub(name string, run func(*suite)) {
	s.Run(name, func(t *testing.T) {
		run(&suite{T: t, shared: s.shared, API: s.API})
	})
}

// create makes a key and returns its metadata.
func (s *suite) create(in *kms.CreateKeyInput) *types.KeyMetadata {
	s.Helper()
	return ok(s, s.CreateKey, in).KeyMetadata
}

// newKey makes a symmetric key and returns its id.
func (s *suite) newKey() *string {
	s.Helper()
	return s.create(&kms.CreateKeyInput{}).KeyId
}

// key returns the id of a key of the first account that tests share: none may
// change it.
func (s *suite) key(spec types.KeySpec, usage types.KeyUsageType) *string {
	s.Helper()
	kind := keyKind{spec, usage}
	if s.keys[kind] == "" {
		s.keys[kind] = *s.create(&kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage}).KeyId
	}
	return aws.String(s.keys[kind])
}

// symmetric returns the shared symmetric key.
func (s *suite) symmetric() *string {
	s.Helper()
	return s.key(types.KeySpecSymmetricDefault, types.KeyUsageTypeEncryptDecrypt)
}

func (s *suite) describe(id *string) *types.KeyMetadata {
	s.Helper()
	return ok(s, s.DescribeKey, &kms.DescribeKeyInput{KeyId: id}).KeyMetadata
}

// lacks reports whether the token cannot serve keys of a spec.
func (s *suite) lacks(spec types.KeySpec) bool { return slices.Contains(s.target.Lacks, spec) }

// longestRSA is the spec of the longest RSA key that is made.
func (s *suite) longestRSA() types.KeySpec {
	if s.target.RSA4096 {
		return types.KeySpecRsa4096
	}
	return types.KeySpecRsa3072
}

func (s *suite) state(id *string) types.KeyState {
	s.Helper()
	return s.describe(id).KeyState
}

// arn is the ARN of a key of the first account in the first Region.
func arn(id *string) string { return "arn:aws:kms:" + Region + ":" + Account + ":key/" + *id }
