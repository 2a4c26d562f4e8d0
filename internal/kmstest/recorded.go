package kmstest

import (
	"bytes"
	"crypto/rand"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// recording is an answer that was recorded at AWS KMS.
type recording struct {
	name          string
	in            any // the input of an operation
	code, message string
}

// check fails the test for every answer that is another than AWS's.
func (s *suite) check(recordings []recording) {
	s.Helper()
	for _, r := range recordings {
		code, message := codeOf(s.invoke(r.in))
		if message == "UnknownError" { // the official client's word for none
			message = ""
		}
		if code != r.code || message != r.message {
			s.Errorf("%s: %s answers %s %q, want %s %q", r.name, operationName(r.in), code, message, r.code, r.message)
		}
	}
}

// recorded asks what users of AWS KMS have asked it: the answer has the same code
// and message, and so, where a request has two faults, what is looked at first is
// the same.
func (s *suite) recorded() {
	s.sub("Names", (*suite).recordedNames)
	s.sub("Usage", (*suite).recordedUsage)
	s.sub("States", (*suite).recordedStates)
	s.sub("Ciphertexts", (*suite).recordedCiphertexts)
	s.sub("Messages", (*suite).recordedMessages)
	s.sub("Rotation", (*suite).recordedRotation)
	s.sub("Imports", (*suite).recordedImports)
	s.sub("Replicas", (*suite).recordedReplicas)
	s.sub("Creation", (*suite).recordedCreation)
	s.sub("Grants", (*suite).recordedGrants)
	s.sub("Policies", (*suite).recordedPolicies)
	s.sub("Tags", (*suite).recordedTags)
}

const (
	keyPrefix = "arn:aws:kms:" + Region + ":" + Account + ":key/"
	noKey     = "12345678-1234-1234-1234-123456789012"
)

func (s *suite) recordedNames() {
	foreign := "arn:aws:kms:" + OtherRegion + ":" + Account + ":"
	missing := "Alias arn:aws:kms:" + Region + ":" + Account + ":alias/missing is not found."
	describe := func(id string) *kms.DescribeKeyInput { return &kms.DescribeKeyInput{KeyId: aws.String(id)} }
	var all []recording
	for id, message := range map[string]string{
		noKey:                                  "Key '" + keyPrefix + noKey + "' does not exist",
		"786CA7CD-B74B-42B3-B887-902AD7AB6429": "Key '" + keyPrefix + "786CA7CD-B74B-42B3-B887-902AD7AB6429' does not exist",
		"mrk-1234567812341234123412345678901a": "Key '" + keyPrefix + "mrk-1234567812341234123412345678901a' does not exist",
		keyPrefix + noKey:                      "Key '" + keyPrefix + noKey + "' does not exist",
		keyPrefix + "foo":                      "Invalid keyId foo",
		"foo":                                  "Invalid keyId 'foo'",
		"12345678123412341234123456789012":     "Invalid keyId '12345678123412341234123456789012'",
		"mrk-fake-key-id":                      "Invalid keyId 'mrk-fake-key-id'",
		foreign + "key/" + noKey:               "Invalid arn " + OtherRegion,
		foreign + "alias/missing":              "Invalid arn " + OtherRegion,
		"alias/missing":                        missing,
		"arn:aws:kms:" + Region + ":" + Account + ":alias/missing": missing,
	} {
		all = append(all, recording{id, describe(id), "NotFoundException", message})
	}
	const noAliases = "Key Aliases are not supported for this operation."
	s.check(append(all,
		recording{"alias of a key", &kms.EnableKeyInput{KeyId: aws.String("alias/missing")}, "InvalidArnException", noAliases},
		recording{"alias without its prefix", &kms.CreateAliasInput{AliasName: aws.String("no-prefix"), TargetKeyId: s.symmetric()}, "ValidationException",
			`Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`},
		recording{"alias of AWS", &kms.CreateAliasInput{AliasName: aws.String("alias/aws/s4"), TargetKeyId: s.symmetric()}, "NotAuthorizedException", ""},
		recording{"alias of an alias", &kms.CreateAliasInput{AliasName: aws.String("alias/a"), TargetKeyId: aws.String("alias/b")}, "ValidationException", "Aliases must refer to keys. Not aliases"},
		recording{"missing alias", &kms.UpdateAliasInput{AliasName: aws.String("alias/missing"), TargetKeyId: s.symmetric()}, "NotFoundException", missing},
		recording{"missing alias", &kms.DeleteAliasInput{AliasName: aws.String("alias/missing")}, "NotFoundException", missing},
	))
}

// using returns inputs that use a key by operations of all usages.
func using(id *string) map[string]any {
	message, algorithm := []byte("message"), types.SigningAlgorithmSpecEcdsaSha256
	return map[string]any{
		"Sign":        &kms.SignInput{KeyId: id, Message: message, SigningAlgorithm: algorithm},
		"Verify":      &kms.VerifyInput{KeyId: id, Message: message, SigningAlgorithm: algorithm, Signature: message},
		"Encrypt":     &kms.EncryptInput{KeyId: id, Plaintext: message},
		"GenerateMac": &kms.GenerateMacInput{KeyId: id, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256},
		"VerifyMac":   &kms.VerifyMacInput{KeyId: id, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256, Mac: message},
		"DeriveSharedSecret": &kms.DeriveSharedSecretInput{
			KeyId: id, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: message,
		},
		"GenerateDataKey":                 &kms.GenerateDataKeyInput{KeyId: id, KeySpec: types.DataKeySpecAes256},
		"GenerateDataKeyWithoutPlaintext": &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: id, KeySpec: types.DataKeySpecAes256},
	}
}

// recordedUsage is what keys are not for. It is looked at before their state, and
// their state before the algorithm.
func (s *suite) recordedUsage() {
	const code = "InvalidKeyUsageException"
	mac, signer := s.create(&kms.CreateKeyInput{KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac}).KeyId,
		s.create(&kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify}).KeyId
	for range 2 { // enabled, then disabled
		for _, key := range []struct {
			id    *string
			usage string
			skip  []string
		}{
			{mac, "GENERATE_VERIFY_MAC", []string{"GenerateMac", "VerifyMac"}},
			{signer, "SIGN_VERIFY", []string{"Sign", "Verify"}},
		} {
			all := using(key.id)
			for _, op := range key.skip {
				delete(all, op)
			}
			for op, in := range all {
				s.check([]recording{{"usage", in, code, arn(key.id) + " key usage is " + key.usage + " which is not valid for " + op + "."}})
			}
		}
		ok(s, s.DisableKey, &kms.DisableKeyInput{KeyId: mac})
		ok(s, s.DisableKey, &kms.DisableKeyInput{KeyId: signer})
	}
	rsaKey := s.key(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)
	neither, asymmetric := "Please specify either number of bytes or key spec.", "You cannot generate a data key with an asymmetric CMK"
	s.check([]recording{
		{"neither", &kms.GenerateDataKeyInput{KeyId: mac}, "ValidationException", neither},
		{"both", &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: mac, KeySpec: types.DataKeySpecAes128, NumberOfBytes: aws.Int32(9)}, "ValidationException", neither},
		{"asymmetric", using(rsaKey)["GenerateDataKey"], code, asymmetric},
		{"asymmetric", using(rsaKey)["GenerateDataKeyWithoutPlaintext"], code, asymmetric},
		{"state before algorithm", &kms.GenerateMacInput{KeyId: mac, Message: []byte("m"), MacAlgorithm: types.MacAlgorithmSpecHmacSha512},
			"DisabledException", arn(mac) + " is disabled."},
		{"state before algorithm", &kms.SignInput{KeyId: signer, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha384},
			"DisabledException", arn(signer) + " is disabled."},
	})
	if got := ok(s, s.GetPublicKey, &kms.GetPublicKeyInput{KeyId: signer}); *got.KeyId != arn(signer) {
		s.Errorf("the public key of a disabled key is of %s", *got.KeyId)
	}
}

// recordedStates is what the state of a key refuses, before its key spec is
// looked at.
func (s *suite) recordedStates() {
	pending := s.create(&kms.CreateKeyInput{KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac}).KeyId
	ok(s, s.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: pending})
	external, symmetric := s.createExternal("", ""), s.symmetric()
	const code = "KMSInvalidStateException"
	deletion, imported := arn(pending)+" is pending deletion.", arn(external)+" is pending import."
	var all []recording
	for _, in := range []any{
		using(pending)["GenerateMac"], using(pending)["VerifyMac"], &kms.GetPublicKeyInput{KeyId: pending},
		&kms.EnableKeyInput{KeyId: pending}, &kms.DisableKeyInput{KeyId: pending}, &kms.ScheduleKeyDeletionInput{KeyId: pending},
		&kms.UpdateKeyDescriptionInput{KeyId: pending, Description: aws.String("d")},
		&kms.TagResourceInput{KeyId: pending, Tags: tagsOf("k", "v")}, &kms.UntagResourceInput{KeyId: pending, TagKeys: []string{"k"}},
		&kms.CreateGrantInput{KeyId: pending, GranteePrincipal: principal("bob"), Operations: []types.GrantOperation{types.GrantOperationGenerateMac}},
		&kms.CreateAliasInput{AliasName: aws.String("alias/recorded-pending"), TargetKeyId: pending},
		&kms.EnableKeyRotationInput{KeyId: pending}, &kms.DisableKeyRotationInput{KeyId: pending}, &kms.RotateKeyOnDemandInput{KeyId: pending},
	} {
		all = append(all, recording{"pending deletion", in, code, deletion})
	}
	for _, in := range []any{
		using(external)["Encrypt"], using(external)["GenerateDataKey"], using(external)["GenerateDataKeyWithoutPlaintext"],
		&kms.EnableKeyInput{KeyId: external}, &kms.DisableKeyInput{KeyId: external}, &kms.GetPublicKeyInput{KeyId: external},
		&kms.RotateKeyOnDemandInput{KeyId: external},
	} {
		all = append(all, recording{"pending import", in, code, imported})
	}
	wrong := func(id *string, origin string) string {
		return arn(id) + " origin is " + origin + " which is not valid for this operation."
	}
	s.check(append(all,
		recording{"no public key", &kms.GetPublicKeyInput{KeyId: symmetric}, "UnsupportedOperationException", ""},
		recording{"origin", &kms.EnableKeyRotationInput{KeyId: external}, "UnsupportedOperationException", wrong(external, "EXTERNAL")},
		recording{"origin", &kms.DisableKeyRotationInput{KeyId: external}, "UnsupportedOperationException", wrong(external, "EXTERNAL")},
		recording{"origin", &kms.DeleteImportedKeyMaterialInput{KeyId: symmetric}, "UnsupportedOperationException", wrong(symmetric, "AWS_KMS")},
		recording{"origin", &kms.GetParametersForImportInput{
			KeyId: symmetric, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
		}, "UnsupportedOperationException", wrong(symmetric, "AWS_KMS")},
		recording{"not pending", &kms.CancelKeyDeletionInput{KeyId: symmetric}, code, arn(symmetric) + " is not pending deletion."},
	))
}

// recordedCiphertexts is what does not decrypt.
func (s *suite) recordedCiphertexts() {
	symmetric, rsaKey := s.symmetric(), s.key(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)
	mac, external := s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac), s.createExternal("", "")
	disabled := s.newKey()
	ok(s, s.DisableKey, &kms.DisableKeyInput{KeyId: disabled})
	in := &kms.EncryptInput{KeyId: symmetric, Plaintext: []byte("hello"), EncryptionContext: map[string]string{"a": "b"}}
	blob := ok(s, s.Encrypt, in).CiphertextBlob
	bare := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: rsaKey, Plaintext: []byte("hello"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256}).CiphertextBlob
	var all []recording
	for _, other := range []*string{rsaKey, mac, external, disabled, s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)} {
		const code, message = "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation."
		all = append(all, recording{"another key", &kms.DecryptInput{CiphertextBlob: blob, KeyId: other}, code, message},
			recording{"another source", &kms.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: other, DestinationKeyId: mac}, code, message})
	}
	asRSA := func(id *string, b []byte) *kms.DecryptInput {
		return &kms.DecryptInput{KeyId: id, CiphertextBlob: b, EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256}
	}
	encrypting := in.EncryptionContext
	const invalid, usage = "InvalidCiphertextException", "InvalidKeyUsageException"
	s.check(append(all,
		recording{"garbage", &kms.DecryptInput{CiphertextBlob: []byte("abc")}, invalid, ""},
		recording{"another context", &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: map[string]string{"a": "c"}}, invalid, ""},
		recording{"no context", &kms.DecryptInput{CiphertextBlob: blob}, invalid, ""},
		recording{"no context, bad destination", &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: mac}, invalid, ""},
		recording{"garbage of RSA", asRSA(rsaKey, bytes.Repeat([]byte{1}, 256)), invalid, ""},
		recording{"short of RSA", asRSA(rsaKey, bytes.Repeat([]byte{1}, 10)), invalid, ""},
		recording{"of RSA by the usual algorithm", &kms.DecryptInput{KeyId: rsaKey, CiphertextBlob: bare}, invalid, ""},
		recording{"RSA by the usual algorithm", &kms.EncryptInput{KeyId: rsaKey, Plaintext: []byte("p")}, usage, "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048."},
		recording{"destination", &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: encrypting, DestinationKeyId: mac}, usage,
			arn(mac) + " key usage is GENERATE_VERIFY_MAC which is not valid for ReEncryptTo."},
		recording{"destination pending import", &kms.ReEncryptInput{CiphertextBlob: blob, SourceEncryptionContext: encrypting, DestinationKeyId: external},
			"KMSInvalidStateException", arn(external) + " is pending import."},
		recording{"destination disabled, dry run", &kms.ReEncryptInput{
			CiphertextBlob: blob, SourceEncryptionContext: encrypting, DestinationKeyId: disabled, DryRun: aws.Bool(true),
		}, "DisabledException", arn(disabled) + " is disabled."},
		recording{"long", &kms.EncryptInput{KeyId: symmetric, Plaintext: make([]byte, 4097)}, "ValidationException",
			"1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096"},
		recording{"long for RSA", &kms.EncryptInput{
			KeyId: rsaKey, Plaintext: make([]byte, 191), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256,
		}, "ValidationException", "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than 190 bytes."},
	))
}

// signed is the input that signs n zeros.
func signed(id *string, a types.SigningAlgorithmSpec, kind types.MessageType, n int) *kms.SignInput {
	return &kms.SignInput{KeyId: id, Message: make([]byte, n), MessageType: kind, SigningAlgorithm: a}
}

// recordedMessages is what cannot be signed, verified or agreed on.
func (s *suite) recordedMessages() {
	p256 := s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	mac, agreement := s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac), s.key(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)
	const validation, usage = "ValidationException", "InvalidKeyUsageException"
	const ecdsa256, ecdsa384 = types.SigningAlgorithmSpecEcdsaSha256, types.SigningAlgorithmSpecEcdsaSha384
	s.check([]recording{
		{"digest", signed(p256, ecdsa256, types.MessageTypeDigest, 20), validation, "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"digest", &kms.VerifyInput{
			KeyId: p256, Message: make([]byte, 48), MessageType: types.MessageTypeDigest, SigningAlgorithm: ecdsa256, Signature: []byte("s"),
		}, validation, "Digest is invalid length for algorithm ECDSA_SHA_256."},
		{"key spec before digest", signed(p256, ecdsa384, types.MessageTypeDigest, 20), usage, "Algorithm ECDSA_SHA_384 is incompatible with key spec ECC_NIST_P256."},
		{"signature", using(p256)["Verify"], "KMSInvalidSignatureException", ""},
		{"MAC", using(mac)["VerifyMac"], "KMSInvalidMacException", ""},
		{"MAC algorithm", &kms.VerifyMacInput{KeyId: mac, Message: []byte("m"), Mac: []byte("m"), MacAlgorithm: types.MacAlgorithmSpecHmacSha512}, usage,
			"Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256."},
		{"public key", using(agreement)["DeriveSharedSecret"], validation, ""},
		{"random", &kms.GenerateRandomInput{}, validation, "NumberOfBytes is required."},
		{"random", &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(1025)}, validation,
			"1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
	})
	if !s.lacks(types.KeySpecEccNistEdwards25519) {
		s.recordedEd25519()
	}
}

func (s *suite) recordedEd25519() {
	const validation, usage = "ValidationException", "InvalidKeyUsageException"
	const ed, edPH = types.SigningAlgorithmSpecEd25519Sha512, types.SigningAlgorithmSpecEd25519PhSha512
	ed25519 := s.key(types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify)
	s.check([]recording{
		{"Ed25519 digest", signed(ed25519, ed, types.MessageTypeDigest, 64), validation, "Message type DIGEST is incompatible with algorithm ED25519_SHA_512."},
		{"Ed25519ph raw", signed(ed25519, edPH, types.MessageTypeRaw, 64), validation, "Message type RAW is incompatible with algorithm ED25519_PH_SHA_512."},
		{"Ed25519ph digest", signed(ed25519, edPH, types.MessageTypeDigest, 20), validation, "Digest is invalid length for algorithm ED25519_PH_SHA_512."},
		{"Ed25519 by ECDSA", signed(ed25519, types.SigningAlgorithmSpecEcdsaSha512, types.MessageTypeRaw, 64), usage,
			"Algorithm ECDSA_SHA_512 is incompatible with key spec ECC_NIST_EDWARDS25519."},
	})
}

func (s *suite) recordedRotation() {
	mac := s.create(&kms.CreateKeyInput{KeySpec: types.KeySpecHmac224, KeyUsage: types.KeyUsageTypeGenerateVerifyMac}).KeyId
	s.check([]recording{
		{"enable", &kms.EnableKeyRotationInput{KeyId: mac}, "UnsupportedOperationException", ""},
		{"rotate", &kms.RotateKeyOnDemandInput{KeyId: mac}, "UnsupportedOperationException", ""},
		{"period", &kms.EnableKeyRotationInput{KeyId: aws.String(noKey), RotationPeriodInDays: aws.Int32(89)}, "ValidationException",
			"1 validation error detected: Value '89' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value greater than or equal to 90"},
		{"no key", &kms.RotateKeyOnDemandInput{KeyId: aws.String(noKey)}, "NotFoundException", "Key '" + keyPrefix + noKey + "' does not exist"},
	})
	ok(s, s.DisableKeyRotation, &kms.DisableKeyRotationInput{KeyId: mac})
	id := s.newKey()
	if got := *ok(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id}).KeyId; got != arn(id) {
		s.Errorf("RotateKeyOnDemand answers the key %s", got)
	}
	if got := *ok(s, s.GetKeyRotationStatus, &kms.GetKeyRotationStatusInput{KeyId: id}).KeyId; got != arn(id) {
		s.Errorf("GetKeyRotationStatus answers the key %s", got)
	}
	if got := *ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id}).Rotations[0].KeyId; got != *id {
		s.Errorf("ListKeyRotations answers the key %s", got)
	}
	for range 24 {
		ok(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id})
	}
	s.check([]recording{{"limit", &kms.RotateKeyOnDemandInput{KeyId: id}, "LimitExceededException",
		"The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: " + arn(id)}})
	for _, off := range []*string{id, mac} {
		ok(s, s.DisableKey, &kms.DisableKeyInput{KeyId: off})
		for _, in := range []any{&kms.RotateKeyOnDemandInput{KeyId: off}, &kms.EnableKeyRotationInput{KeyId: off}, &kms.DisableKeyRotationInput{KeyId: off}} {
			s.check([]recording{{"disabled", in, "DisabledException", arn(off) + " is disabled."}})
		}
	}
}

func (s *suite) recordedImports() {
	id := s.createExternal("", "")
	material := func(b byte, kind types.ImportType) *kms.ImportKeyMaterialInput {
		in := s.wrapped(id, types.AlgorithmSpecRsaesOaepSha256, bytes.Repeat([]byte{b}, 32))
		in.ImportType = kind
		return in
	}
	forever := material(1, "")
	expiring := *forever
	expiring.ExpirationModel = types.ExpirationModelTypeKeyMaterialExpires
	s.check([]recording{
		{"no end", &expiring, "ValidationException", "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"},
	})
	ok(s, s.ImportKeyMaterial, forever)
	s.check([]recording{
		{"nothing to rotate to", &kms.RotateKeyOnDemandInput{KeyId: id}, "KMSInvalidStateException",
			"No available key material pending rotation for the key: " + arn(id) + "."},
	})
	second := ok(s, s.ImportKeyMaterial, material(2, types.ImportTypeNewKeyMaterial))
	third := material(3, types.ImportTypeNewKeyMaterial)
	code, message := codeOf(s.invoke(third))
	before, after, found := strings.Cut(message, " cannot be imported into KMS key "+arn(id)+", because another key material (id: ")
	if code != "KMSInvalidStateException" || !found || len(before) != len("New key material (id: )")+64 || after != *second.KeyMaterialId+") is pending rotation." {
		s.Errorf("a second material beside one that waits: %s %q", code, message)
	}
	blob := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}).CiphertextBlob
	ok(s, s.DeleteImportedKeyMaterial, &kms.DeleteImportedKeyMaterialInput{KeyId: id})
	s.check([]recording{
		{"material deleted", &kms.DecryptInput{CiphertextBlob: blob}, "KMSInvalidStateException", arn(id) + " is pending import."},
		{"material deleted", &kms.DecryptInput{CiphertextBlob: blob, KeyId: id}, "KMSInvalidStateException", arn(id) + " is pending import."},
		{"material deleted", &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: s.symmetric()}, "KMSInvalidStateException", arn(id) + " is pending import."},
	})
}

// recordedReplicas replicates a replica at once, while it is Creating.
func (s *suite) recordedReplicas() {
	const third = "ap-southeast-1"
	id, there := s.create(&kms.CreateKeyInput{MultiRegion: aws.Bool(true)}).KeyId, s.in(Account, OtherRegion)
	out := ok(s, s.ReplicateKey, &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String(OtherRegion)})
	s.checkMembers(out, "ReplicaKeyMetadata ReplicaPolicy")
	s.checkMembers(out.ReplicaKeyMetadata, common+" CustomerMasterKeySpec EncryptionAlgorithms MultiRegionConfiguration")
	if *out.ReplicaKeyMetadata.Description != "" || out.ReplicaKeyMetadata.KeyState != types.KeyStateCreating {
		s.Errorf("replica %+v", *out.ReplicaKeyMetadata)
	}
	for _, region := range []string{OtherRegion, third} {
		there.check([]recording{{"a replica", &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String(region)}, "UnsupportedOperationException",
			*out.ReplicaKeyMetadata.Arn + " is not a multi-region primary key."}})
	}
	there.wait("the replica is enabled", func() bool { return there.state(id) == types.KeyStateEnabled })
	if there.describe(id).CurrentKeyMaterialId == nil {
		s.Error("DescribeKey of a replica leaves out its key material")
	}
}

func (s *suite) recordedCreation() {
	const code = "ValidationException"
	s.check([]recording{
		{"no usage", &kms.CreateKeyInput{KeySpec: types.KeySpecHmac256}, code, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."},
		{"usage of another spec", &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeKeyAgreement}, code,
			"KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048"},
		{"two specs", &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, CustomerMasterKeySpec: types.CustomerMasterKeySpecRsa2048}, code,
			"You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated."},
	})
}

// recordedGrants makes grants as Terraform's provider does.
func (s *suite) recordedGrants() {
	id := s.newKey()
	s.check([]recording{{"grantee", &kms.CreateGrantInput{
		KeyId: id, GranteePrincipal: aws.String("nobody"), Operations: []types.GrantOperation{types.GrantOperationDecrypt},
	}, "InvalidArnException", "ARN does not refer to a valid principal: nobody"}})
	const service = "dynamodb.us-west-1.amazonaws.com"
	some, none := map[string]string{"foo": "bar"}, map[string]string{}
	for name, constraints := range map[string]*types.GrantConstraints{
		"equals": {EncryptionContextEquals: some, EncryptionContextSubset: none},
		"subset": {EncryptionContextEquals: none, EncryptionContextSubset: some},
		"none":   {EncryptionContextEquals: none, EncryptionContextSubset: none},
	} {
		grant := ok(s, s.CreateGrant, &kms.CreateGrantInput{
			KeyId: id, GranteePrincipal: aws.String(service), RetiringPrincipal: aws.String(service), Constraints: constraints,
			Operations: []types.GrantOperation{types.GrantOperationDecrypt},
		})
		list := ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id, GrantId: grant.GrantId, GranteePrincipal: aws.String(service)}).Grants
		if len(list) != 1 || *list[0].GranteePrincipal != service || *list[0].RetiringPrincipal != service {
			s.Fatalf("%s: grants %+v", name, list)
		}
		if name == "none" {
			if list[0].Constraints != nil {
				s.Errorf("a grant without constraints has %+v", list[0].Constraints)
			}
			continue
		}
		s.checkMembers(list[0].Constraints, "EncryptionContext"+strings.ToUpper(name[:1])+name[1:])
	}
	retirable := ok(s, s.ListRetirableGrants, &kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(service)}).Grants
	if len(retirable) != 3 {
		s.Errorf("%d retirable grants, want 3", len(retirable))
	}
}

func (s *suite) recordedPolicies() {
	id := s.newKey()
	put := func(document string) *kms.PutKeyPolicyInput {
		return &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String(document)}
	}
	const code = "MalformedPolicyDocumentException"
	statement := func(who string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + who + `"},"Action":"kms:*","Resource":"*"}}`
	}
	s.check([]recording{
		{"no JSON", put("my policy"), code, ""},
		{"principal", put(statement("arn:aws:iam::" + Account + ":group/g")), code, "Policy contains a statement with one or more invalid principals."},
		{"lockout", put(statement("arn:aws:iam::" + Account + ":role/other")), code, "The new key policy will not allow you to update the key policy in the future."},
		{"name", &kms.GetKeyPolicyInput{KeyId: id, PolicyName: aws.String("other")}, "NotFoundException", "No such policy exists"},
	})
}

func tagsOf(keysAndValues ...string) []types.Tag {
	var tags []types.Tag
	for i := 0; i < len(keysAndValues); i += 2 {
		tags = append(tags, types.Tag{TagKey: &keysAndValues[i], TagValue: &keysAndValues[i+1]})
	}
	return tags
}

func (s *suite) recordedTags() {
	id := s.newKey()
	tag := func(keysAndValues ...string) *kms.TagResourceInput {
		return &kms.TagResourceInput{KeyId: id, Tags: tagsOf(keysAndValues...)}
	}
	var many []string
	for range 51 {
		many = append(many, rand.Text(), "v")
	}
	long := strings.Repeat("v", 257)
	const code, reserved = "TagException", "Tags beginning with aws: are reserved"
	s.check([]recording{
		{"twice", tag("k", "1", "k", "2"), code, "Duplicate tag keys"},
		{"reserved", tag("aws:k", "v"), code, reserved},
		{"reserved", tag("AWS:k", "v"), code, reserved},
		{"too many", &kms.CreateKeyInput{Tags: tagsOf(many...)}, code, "Too many tags"},
		{"long value", tag("k", long), "ValidationException",
			"1 validation error detected: Value '" + long + "' at 'tags.1.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256"},
	})
}
