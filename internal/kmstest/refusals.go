package kmstest

import (
	"crypto"
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// HasDryRun reports whether the input of an operation has a DryRun parameter.
func HasDryRun(operation string) bool { return hasMember(operation, "DryRun") }

// hasMember reports whether the input of an operation has a member.
func hasMember(operation, name string) bool {
	method, ok := reflect.TypeFor[engine.API]().MethodByName(operation)
	if !ok {
		return false
	}
	_, ok = method.Type.In(1).Elem().FieldByName(name)
	return ok
}

// invoke calls an operation by its input.
func (s *suite) invoke(in any) error {
	s.Helper()
	name := operationName(in)
	out := reflect.ValueOf(s.API).MethodByName(name).Call([]reflect.Value{reflect.ValueOf(s.Context()), reflect.ValueOf(in)})
	err, _ := out[1].Interface().(error)
	if code, message := codeOf(err); err != nil {
		s.record.refused(name, code, message)
	}
	return err
}

func operationName(in any) string {
	name := reflect.TypeOf(in).Elem().Name()
	return name[:len(name)-len("Input")]
}

// inputs returns a good input of every operation that has a member, such as
// DryRun, and fails the test if one is missing.
func (s *suite) inputs(member string) []any {
	s.Helper()
	message, digest := []byte("message"), digestOf(crypto.SHA256, []byte("message"))
	symmetric, signer := s.symmetric(), s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	mac, agreement := s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac), s.key(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: symmetric, Plaintext: message}).CiphertextBlob
	signature := ok(s, s.Sign, &kms.SignInput{KeyId: signer, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}).Signature
	sum := ok(s, s.GenerateMac, &kms.GenerateMacInput{KeyId: mac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}).Mac
	public := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: agreement}).PublicKey
	grant := func() *kms.CreateGrantInput {
		return &kms.CreateGrantInput{KeyId: symmetric, GranteePrincipal: principal("bob"), Operations: []types.GrantOperation{types.GrantOperationDecrypt}}
	}
	granted := ok(s, s.CreateGrant, grant()).GrantId
	all := []any{
		&kms.EncryptInput{KeyId: symmetric, Plaintext: message},
		&kms.DecryptInput{CiphertextBlob: sealed},
		&kms.ReEncryptInput{CiphertextBlob: sealed, DestinationKeyId: symmetric},
		&kms.GenerateDataKeyInput{KeyId: symmetric, KeySpec: types.DataKeySpecAes256},
		&kms.GenerateDataKeyWithoutPlaintextInput{KeyId: symmetric, KeySpec: types.DataKeySpecAes256},
		&kms.GenerateDataKeyPairInput{KeyId: symmetric, KeyPairSpec: types.DataKeyPairSpecEccNistP256},
		&kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: symmetric, KeyPairSpec: types.DataKeyPairSpecEccNistP256},
		&kms.GenerateRandomInput{NumberOfBytes: aws.Int32(32)},
		&kms.GenerateMacInput{KeyId: mac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256},
		&kms.VerifyMacInput{KeyId: mac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256, Mac: sum},
		&kms.SignInput{KeyId: signer, Message: digest, MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256},
		&kms.VerifyInput{KeyId: signer, Message: message, Signature: signature, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256},
		&kms.DeriveSharedSecretInput{KeyId: agreement, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: public},
		&kms.GetPublicKeyInput{KeyId: signer},
		&kms.DescribeKeyInput{KeyId: symmetric},
		grant(),
		&kms.RetireGrantInput{KeyId: aws.String(arn(symmetric)), GrantId: granted},
		&kms.RevokeGrantInput{KeyId: symmetric, GrantId: granted},
	}
	var chosen []any
	for _, in := range all {
		if hasMember(operationName(in), member) {
			chosen = append(chosen, in)
		}
	}
	for _, o := range s.record.Operations() {
		// What serves ML-KEM keys alone has no good input.
		missing := !slices.ContainsFunc(chosen, func(in any) bool { return operationName(in) == o.Name })
		if missing && hasMember(o.Name, member) && o.Name != "Encapsulate" && o.Name != "Decapsulate" {
			s.Errorf("no input of %s is tried with %s", o.Name, member)
		}
	}
	return chosen
}

// set sets a member of an input.
func set(in any, member string, value any) {
	reflect.ValueOf(in).Elem().FieldByName(member).Set(reflect.ValueOf(value))
}

// dryRun asks each operation that can tell whether it would succeed: it says so,
// and does nothing.
func (s *suite) dryRun() {
	for _, in := range s.inputs("DryRun") {
		set(in, "DryRun", aws.Bool(true))
		if err := s.invoke(in); !hasCode(err, "DryRunOperationException") {
			s.Errorf("%s as a dry run: %v", operationName(in), err)
		}
	}
	// The grants are still there, so that it is refused if the request is no good.
	list := ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: s.symmetric()}).Grants
	if len(list) != 1 {
		s.Errorf("%d grants after dry runs, want the one from before", len(list))
	}
	yes := aws.Bool(true)
	unknown := aws.String("12345678-1234-1234-1234-123456789012")
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: unknown, Plaintext: []byte("p"), DryRun: yes}, "NotFoundException")
	refused(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: []byte("no blob"), DryRun: yes}, "InvalidCiphertextException")
	refused(s, s.Decrypt, &kms.DecryptInput{
		KeyId: s.symmetric(), DryRun: yes, DryRunModifiers: []types.DryRunModifierType{types.DryRunModifierTypeIgnoreCiphertext},
	}, "DryRunOperationException")
	ok(s, s.RevokeGrant, &kms.RevokeGrantInput{KeyId: s.symmetric(), GrantId: list[0].GrantId})
}

func hasCode(err error, code string) bool {
	got, _ := codeOf(err)
	return got == code
}

// grantTokens are those of grants, and no others.
func (s *suite) grantTokens() {
	symmetric := s.symmetric()
	grant := ok(s, s.CreateGrant, &kms.CreateGrantInput{
		KeyId: symmetric, GranteePrincipal: principal("bob"), Operations: []types.GrantOperation{types.GrantOperationDescribeKey},
	})
	ok(s, s.Encrypt, &kms.EncryptInput{KeyId: symmetric, Plaintext: []byte("p"), GrantTokens: []string{*grant.GrantToken}})
	for _, in := range s.inputs("GrantTokens") {
		set(in, "GrantTokens", []string{"no-token"})
		if err := s.invoke(in); !hasCode(err, "InvalidGrantTokenException") {
			s.Errorf("%s with a token that is none: %v", operationName(in), err)
		}
	}
	var many []string
	for range 11 {
		many = append(many, *grant.GrantToken)
	}
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: symmetric, Plaintext: []byte("p"), GrantTokens: many}, "ValidationException")
	for _, g := range ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: symmetric}).Grants {
		ok(s, s.RevokeGrant, &kms.RevokeGrantInput{KeyId: symmetric, GrantId: g.GrantId})
	}
}

// recipient is a Nitro enclave, which cannot be attested here.
func (s *suite) recipient() {
	for _, in := range s.inputs("Recipient") {
		set(in, "Recipient", &types.RecipientInfo{
			AttestationDocument: []byte("document"), KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256,
		})
		if err := s.invoke(in); !hasCode(err, "UnsupportedOperationException") {
			s.Errorf("%s for a recipient: %v", operationName(in), err)
			continue
		}
		s.record.operations[operationName(in)].RecipientRefused = true
	}
	for _, g := range ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: s.symmetric()}).Grants {
		ok(s, s.RevokeGrant, &kms.RevokeGrantInput{KeyId: s.symmetric(), GrantId: g.GrantId})
	}
}

// notServed is what ML-KEM keys are for.
func (s *suite) notServed() {
	id := s.symmetric()
	refused(s, s.Encapsulate, &kms.EncapsulateInput{KeyId: id, EncapsulationAlgorithm: types.EncapsulationAlgorithmSpec("").Values()[0]}, "UnsupportedOperationException")
	refused(s, s.Decapsulate, &kms.DecapsulateInput{
		KeyId: id, SharedSecretCiphertextBlob: make([]byte, 768), EncapsulationAlgorithm: types.EncapsulationAlgorithmSpec("").Values()[0],
	}, "UnsupportedOperationException")
}
