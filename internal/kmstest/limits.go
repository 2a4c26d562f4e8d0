package kmstest

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// limits tries what is too long, too many and too much, and what just fits.
func (s *suite) limits() {
	id := s.newKey()
	text := strings.Repeat
	tags := func(n int) []types.Tag {
		var list []types.Tag
		for i := range n {
			list = append(list, types.Tag{TagKey: aws.String("k" + text("x", i)), TagValue: aws.String("")})
		}
		return list
	}
	m := s.create(&kms.CreateKeyInput{Description: aws.String(text("d", 8192)), Tags: tags(50)})
	if len(*m.Description) != 8192 {
		s.Errorf("description of %d characters", len(*m.Description))
	}
	refused(s, s.CreateKey, &kms.CreateKeyInput{Description: aws.String(text("d", 8193))}, "ValidationException")
	refused(s, s.UpdateKeyDescription, &kms.UpdateKeyDescriptionInput{KeyId: id, Description: aws.String(text("d", 8193))}, "ValidationException")
	refused(s, s.CreateKey, &kms.CreateKeyInput{Tags: tags(51)}, "TagException")
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: m.KeyId, Tags: []types.Tag{{TagKey: aws.String("one more"), TagValue: aws.String("")}}}, "LimitExceededException")

	refused(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String(policyOf(32*1024 + 1))}, "LimitExceededException")
	ok(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String(policyOf(32 * 1024))})

	ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: make([]byte, 4096)})
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: make([]byte, 4097)}, "ValidationException")
	refused(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte{}}, "ValidationException")
	refused(s, s.GenerateRandom, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(1025)}, "ValidationException")
	refused(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: id, NumberOfBytes: aws.Int32(1025)}, "ValidationException")

	signer := s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	sign := func(n int) *kms.SignInput {
		return &kms.SignInput{KeyId: signer, Message: make([]byte, n), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256}
	}
	ok(s, s.Sign, sign(4096))
	refused(s, s.Sign, sign(4097), "ValidationException")
	mac := s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)
	generate := func(n int) *kms.GenerateMacInput {
		return &kms.GenerateMacInput{KeyId: mac, Message: make([]byte, n), MacAlgorithm: types.MacAlgorithmSpecHmacSha256}
	}
	ok(s, s.GenerateMac, generate(4096))
	refused(s, s.GenerateMac, generate(4097), "ValidationException")

	for _, days := range []int32{6, 31} {
		refused(s, s.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(days)}, "ValidationException")
	}
	for _, days := range []int32{89, 2561} {
		refused(s, s.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: aws.Int32(days)}, "ValidationException")
	}
	for _, days := range []int32{90, 2560} {
		ok(s, s.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: aws.Int32(days)})
	}
}

// policyOf returns a key policy of so many bytes that keeps the account in.
func policyOf(size int) string {
	before := `{"Version":"2012-10-17","Statement":[{"Sid":"` + "all"
	after := `","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + Account + `:root"},"Action":"kms:*","Resource":"*"}]}`
	return before + strings.Repeat(" ", size-len(before)-len(after)) + after
}
