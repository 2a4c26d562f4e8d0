package constraint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
)

const key = "1234abcd-12ab-34cd-56ef-1234567890ab"

func credential(id, secret string) *kms.CreateCustomKeyStoreInput {
	return &kms.CreateCustomKeyStoreInput{
		CustomKeyStoreName: aws.String("s"),
		XksProxyAuthenticationCredential: &types.XksProxyAuthenticationCredentialType{
			AccessKeyId: &id, RawSecretAccessKey: &secret,
		},
	}
}

func tagged(tags ...types.Tag) *kms.TagResourceInput {
	return &kms.TagResourceInput{KeyId: aws.String(key), Tags: tags}
}

func endpoint(s string) *kms.UpdateCustomKeyStoreInput {
	return &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: aws.String("cks-1"), XksProxyUriEndpoint: &s}
}

func path(s string) *kms.UpdateCustomKeyStoreInput {
	return &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: aws.String("cks-1"), XksProxyUriPath: &s}
}

func description(s string) *kms.UpdateKeyDescriptionInput {
	return &kms.UpdateKeyDescriptionInput{KeyId: aws.String(key), Description: &s}
}

func TestMessages(t *testing.T) {
	var (
		long  = strings.Repeat("k", 2049)
		p     = aws.String
		blob  = []byte("a")
		inner = func(s ...string) string {
			n := "1 validation error"
			if len(s) > 1 {
				n = string('0'+rune(len(s))) + " validation errors"
			}
			return n + " detected: " + strings.Join(s, "; ")
		}
		value = func(shown, member, constraint string) string {
			return "Value" + shown + " at '" + member + "' failed to satisfy constraint: Member must " + constraint
		}
	)
	for _, test := range []struct {
		name  string
		input any
		want  []string
	}{
		{"null", &kms.DescribeKeyInput{}, []string{value(" null", "keyId", "not be null")}},
		{"nil input", (*kms.DescribeKeyInput)(nil), []string{value(" null", "keyId", "not be null")}},
		{"null enum", &kms.GenerateMacInput{KeyId: p(key), Message: blob},
			[]string{value(" null", "macAlgorithm", "not be null")}},
		{"null list", &kms.UntagResourceInput{KeyId: p(key)}, []string{value(" null", "tagKeys", "not be null")}},
		{"empty", &kms.GetPublicKeyInput{KeyId: p("")}, []string{
			value(" ''", "keyId", "have length greater than or equal to 1"),
			value(" ''", "keyId", `satisfy regular expression pattern: ^\p{ASCII}+$`)}},
		{"long", &kms.DescribeKeyInput{KeyId: &long},
			[]string{value(" '"+long+"'", "keyId", "have length less than or equal to 2048")}},
		{"not ASCII", &kms.DescribeKeyInput{KeyId: p("ключ")},
			[]string{value(" 'ключ'", "keyId", `satisfy regular expression pattern: ^\p{ASCII}+$`)}},
		{"pattern", &kms.CreateAliasInput{AliasName: p("alias/a!b"), TargetKeyId: p(key)},
			[]string{value(" 'alias/a!b'", "aliasName", "satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$")}},
		{"number too small", &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(0)},
			[]string{value(" '0'", "numberOfBytes", "have value greater than or equal to 1")}},
		{"number too large", &kms.ListKeysInput{Limit: aws.Int32(1001)},
			[]string{value(" '1001'", "limit", "have value less than or equal to 1000")}},
		{"negative", &kms.EnableKeyRotationInput{KeyId: p(key), RotationPeriodInDays: aws.Int32(-1)},
			[]string{value(" '-1'", "rotationPeriodInDays", "have value greater than or equal to 90")}},
		{"enum", &kms.SignInput{KeyId: p(key), Message: blob, MessageType: "FOO", SigningAlgorithm: "ECDSA_SHA_256"},
			[]string{value(" 'FOO'", "messageType", "satisfy enum value set: [RAW, DIGEST, EXTERNAL_MU]")}},
		{"enum in AWS's order", &kms.EncryptInput{KeyId: p(key), Plaintext: blob, EncryptionAlgorithm: "FOO"},
			[]string{value(" 'FOO'", "encryptionAlgorithm",
				"satisfy enum value set: [RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE, SYMMETRIC_DEFAULT]")}},
		{"enum of key specs", &kms.CreateKeyInput{KeySpec: "HMAC_random", KeyUsage: "RANDOM", Origin: "FOO"}, []string{
			value(" 'HMAC_random'", "keySpec", "satisfy enum value set: [RSA_2048, RSA_3072, RSA_4096, ECC_NIST_P256, ECC_NIST_P384, "+
				"ECC_NIST_P521, ECC_SECG_P256K1, ECC_NIST_EDWARDS25519, SYMMETRIC_DEFAULT, HMAC_224, HMAC_256, HMAC_384, HMAC_512, SM2, "+
				"ML_DSA_44, ML_DSA_65, ML_DSA_87, ML_KEM_512, ML_KEM_768, ML_KEM_1024]"),
			value(" 'RANDOM'", "keyUsage", "satisfy enum value set: [ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC, KEY_AGREEMENT, ENCAPSULATE_DECAPSULATE]"),
			value(" 'FOO'", "origin", "satisfy enum value set: [EXTERNAL, EXTERNAL_KEY_STORE, AWS_CLOUDHSM, AWS_KMS]")}},
		{"enum of MACs", &kms.GenerateMacInput{KeyId: p(key), Message: blob, MacAlgorithm: "hmac_sha_256"}, []string{
			value(" 'hmac_sha_256'", "macAlgorithm", "satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]")}},
		{"enum of signatures", &kms.SignInput{KeyId: p(key), Message: blob, SigningAlgorithm: "FOO"},
			[]string{value(" 'FOO'", "signingAlgorithm", "satisfy enum value set: [RSASSA_PSS_SHA_256, "+
				"RSASSA_PSS_SHA_384, RSASSA_PSS_SHA_512, RSASSA_PKCS1_V1_5_SHA_256, RSASSA_PKCS1_V1_5_SHA_384, "+
				"RSASSA_PKCS1_V1_5_SHA_512, ECDSA_SHA_256, ECDSA_SHA_384, ECDSA_SHA_512, ED25519_SHA_512, "+
				"ED25519_PH_SHA_512, SM2DSA, ML_DSA_SHAKE_256]")}},
		{"secret blob absent", &kms.EncryptInput{KeyId: p(key)}, []string{value("", "plaintext", "not be null")}},
		{"secret blob empty", &kms.EncryptInput{KeyId: p(key), Plaintext: []byte{}},
			[]string{value("", "plaintext", "have length greater than or equal to 1")}},
		{"secret blob large", &kms.EncryptInput{KeyId: p(key), Plaintext: make([]byte, 4097)},
			[]string{value("", "plaintext", "have length less than or equal to 4096")}},
		{"blob absent", &kms.DecryptInput{}, []string{value(" null", "ciphertextBlob", "not be null")}},
		{"blob empty", &kms.DecryptInput{CiphertextBlob: []byte{}},
			[]string{value("", "ciphertextBlob", "have length greater than or equal to 1")}},
		{"blob large", &kms.VerifyMacInput{KeyId: p(key), Message: blob, Mac: make([]byte, 6145), MacAlgorithm: "HMAC_SHA_256"},
			[]string{value("", "mac", "have length less than or equal to 6144")}},
		{"dry run with ciphertext", &kms.ReEncryptInput{DestinationKeyId: p(key), DryRun: aws.Bool(true)},
			[]string{value(" null", "ciphertextBlob", "not be null")}},
		{"no dry run", &kms.DecryptInput{DryRunModifiers: types.DryRunModifierType("").Values()},
			[]string{value(" null", "ciphertextBlob", "not be null")}},
		{"long list", &kms.DescribeKeyInput{KeyId: p(key), GrantTokens: strings.Split("a b c d e f g h i j k", " ")},
			[]string{value(" '[a, b, c, d, e, f, g, h, i, j, k]'", "grantTokens", "have length less than or equal to 10")}},
		{"list's member", &kms.DescribeKeyInput{KeyId: p(key), GrantTokens: []string{"a", ""}},
			[]string{value(" '[a, ]'", "grantTokens", "satisfy constraint: [Member must have length less than or equal "+
				"to 8192, Member must have length greater than or equal to 1]")}},
		{"list of enums", &kms.DecryptInput{CiphertextBlob: blob, DryRunModifiers: []types.DryRunModifierType{"ALL"}},
			[]string{value(" '[ALL]'", "dryRunModifiers",
				"satisfy constraint: [Member must satisfy enum value set: [IGNORE_CIPHERTEXT]]")}},
		{"tags", tagged(types.Tag{TagKey: p("k"), TagValue: p("")}, types.Tag{TagKey: p(""), TagValue: p(strings.Repeat("é", 257))}),
			[]string{value(" ''", "tags.2.member.tagKey", "have length greater than or equal to 1"),
				value(" '"+strings.Repeat("é", 257)+"'", "tags.2.member.tagValue", "have length less than or equal to 256")}},
		{"null in a list", tagged(types.Tag{TagKey: p("k")}),
			[]string{value(" null", "tags.1.member.tagValue", "not be null")}},
		{"structure", &kms.CreateGrantInput{KeyId: p(key), Operations: []types.GrantOperation{"Decrypt"},
			Constraints: &types.GrantConstraints{SourceArn: p("arn:aws:s3:::bucket/of-nobody")}},
			[]string{value(" 'arn:aws:s3:::bucket/of-nobody'", "constraints.sourceArn",
				"satisfy regular expression pattern: ^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$")}},
		{"attestation", &kms.GenerateRandomInput{Recipient: &types.RecipientInfo{AttestationDocument: []byte{}}},
			[]string{value("", "recipient.attestationDocument", "have length greater than or equal to 1")}},
		{"secrets", credential("lower-case-secret-key-id", strings.Repeat("!", 43)), []string{
			value("", "xksProxyAuthenticationCredential.accessKeyId", "satisfy regular expression pattern: ^[A-Z2-7]+$"),
			value("", "xksProxyAuthenticationCredential.rawSecretAccessKey", `satisfy regular expression pattern: ^[a-zA-Z0-9\/+=]+$`)}},
		{"password", &kms.UpdateCustomKeyStoreInput{CustomKeyStoreId: p("cks-1"), KeyStorePassword: p("secret")},
			[]string{value("", "keyStorePassword", "have length greater than or equal to 7")}},
		{"endpoint", endpoint("http://proxy.example"),
			[]string{value(" 'http://proxy.example'", "xksProxyUriEndpoint",
				"satisfy regular expression pattern: ^https://[a-zA-Z0-9.-]+(:[0-9]{1,5})?$")}},
		{"end of line", &kms.ReplicateKeyInput{KeyId: p(key), ReplicaRegion: p("eu-west-1\n")},
			[]string{value(" 'eu-west-1\n'", "replicaRegion", `satisfy regular expression pattern: ^([a-z]+-){2,3}\d+$`)}},
		{"policy", &kms.PutKeyPolicyInput{KeyId: p(key), Policy: p("{\x00}")},
			[]string{value(" '{\x00}'", "policy", `satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+`)}},
		{"two members", &kms.GenerateDataKeyInput{KeySpec: "FOO"},
			[]string{value(" null", "keyId", "not be null"),
				value(" 'FOO'", "keySpec", "satisfy enum value set: [AES_256, AES_128]")}},
		{"very long", description(strings.Repeat("é", 8193)), []string{
			value(" '"+strings.Repeat("é", 2048)+"...'", "description", "have length less than or equal to 8192")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := constraint.New().Check(test.input)
			var api *smithy.GenericAPIError
			if !errors.As(err, &api) {
				t.Fatalf("got %v, not an API error", err)
			}
			if want := inner(test.want...); api.Message != want {
				t.Errorf("got\n%s\nwant\n%s", api.Message, want)
			}
			if api.Code != "ValidationException" || api.Fault != smithy.FaultClient {
				t.Errorf("got code %s and fault %s", api.Code, api.Fault)
			}
		})
	}
}

// An answer does not grow with the number of mistakes for ever.
func TestMessagesEnd(t *testing.T) {
	err := constraint.New().Check(tagged(make([]types.Tag, 10000)...))
	if err == nil || !strings.Contains(err.Error(), "100 validation errors detected") || len(err.Error()) > 20000 {
		t.Errorf("got %.200v", err)
	}
}

func TestWhatIsWithinTheConstraints(t *testing.T) {
	c := constraint.New()
	for name, input := range map[string]any{
		"nothing":     &kms.ListKeysInput{},
		"nil":         (*kms.ListKeysInput)(nil),
		"limits":      &kms.ListKeysInput{Limit: aws.Int32(1000), Marker: aws.String("~ÿ ")},
		"description": description(""),
		"characters":  description(strings.Repeat("é", 8192)),
		"empty tag":   tagged(types.Tag{TagKey: aws.String("k"), TagValue: aws.String("")}),
		"no tags":     tagged([]types.Tag{}...),
		"plaintext":   &kms.EncryptInput{KeyId: aws.String(key), Plaintext: make([]byte, 4096)},
		"password": &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: aws.String("s"),
			KeyStorePassword: aws.String("1234567"), CloudHsmClusterId: aws.String("cluster-23b4cdefghi")},
		"port":       endpoint("https://127.0.0.1:8443"),
		"no port":    endpoint("https://proxy.example"),
		"path":       path("/kms/xks/v1"),
		"prefix":     path("/a/b_c/kms/xks/v1"),
		"credential": credential("ABCDEFGHIJKLMNOPQRST", strings.Repeat("/+=aZ09", 7)),
		"region":     &kms.ReplicateKeyInput{KeyId: aws.String(key), ReplicaRegion: aws.String("us-gov-west-1")},
		"service": &kms.CreateGrantInput{KeyId: aws.String(key), Operations: types.GrantOperation("").Values(),
			GranteeServicePrincipal: aws.String("logs.eu-west-1.amazonaws.com")},
		"dry run": &kms.DecryptInput{KeyId: aws.String(key), DryRun: aws.Bool(true),
			DryRunModifiers: []types.DryRunModifierType{"IGNORE_CIPHERTEXT"}},
		"dry re-encryption": &kms.ReEncryptInput{DestinationKeyId: aws.String(key), DryRun: aws.Bool(true),
			DryRunModifiers: []types.DryRunModifierType{"IGNORE_CIPHERTEXT"}},
		"policy": &kms.PutKeyPolicyInput{KeyId: aws.String(key), PolicyName: aws.String("default"), Policy: aws.String("{\r\n\t}")},
	} {
		if err := c.Check(input); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckRefusesWhatIsNoInput(t *testing.T) {
	for _, input := range []any{nil, 1, kms.EncryptInput{}, &kms.EncryptOutput{}, &types.Tag{}} {
		err := constraint.New().Check(input)
		var api smithy.APIError
		if err == nil || errors.As(err, &api) {
			t.Errorf("%T: got %v", input, err)
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	c := constraint.New()
	input := &kms.EncryptInput{
		KeyId:             aws.String("arn:aws:kms:eu-central-1:111122223333:key/" + key),
		Plaintext:         make([]byte, 32),
		EncryptionContext: map[string]string{"tenant": "42", "purpose": "test"},
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Check(input); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		constraint.New()
	}
}
