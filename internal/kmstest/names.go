package kmstest

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// names are ids and ARNs, of keys that are there and of those that are not.
func (s *suite) names() {
	id := s.symmetric()
	for _, name := range []*string{id, aws.String(arn(id))} {
		if m := s.describe(name); *m.KeyId != *id {
			s.Errorf("%s is %s", *name, *m.KeyId)
		}
	}
	unknown := "12345678-1234-1234-1234-123456789012"
	aliased := "alias/none"
	for name, code := range map[string]string{
		unknown:                                "NotFoundException",
		aliased:                                "NotFoundException",
		"no-key":                               "NotFoundException",
		"mrk-12345678123412341234123456789012": "NotFoundException",
		arn(&unknown):                          "NotFoundException",
		"arn:aws:kms:" + Region + ":" + Account + ":" + aliased:            "NotFoundException",
		"arn:aws:kms:" + OtherRegion + ":" + Account + ":key/" + *id:       "NotFoundException",
		"arn:aws:kms:" + Region + ":" + OtherAccount + ":key/" + *id:       "AccessDeniedException",
		"arn:aws:kms:" + Region + ":" + OtherAccount + ":alias/" + aliased: "AccessDeniedException",
		"arn:aws:s3:" + Region + ":" + Account + ":key/" + *id:             "InvalidArnException",
		"arn:aws:kms:" + Region + ":" + Account + ":nothing/" + *id:        "InvalidArnException",
		"arn:aws-cn:kms:" + Region + ":" + Account + ":key/" + *id:         "InvalidArnException",
	} {
		refused(s, s.DescribeKey, &kms.DescribeKeyInput{KeyId: &name}, code)
		refused(s, s.Encrypt, &kms.EncryptInput{KeyId: &name, Plaintext: []byte("p")}, code)
	}
	refused(s, s.DescribeKey, &kms.DescribeKeyInput{KeyId: aws.String("")}, "ValidationException")
	refused(s, s.DescribeKey, &kms.DescribeKeyInput{KeyId: aws.String(strings.Repeat("k", 2049))}, "ValidationException")

	// Another account, and another Region, have keys of their own.
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})
	for _, other := range []*suite{s.in(OtherAccount, Region), s.in(Account, OtherRegion)} {
		refused(other, other.DescribeKey, &kms.DescribeKeyInput{KeyId: id}, "NotFoundException")
		refused(other, other.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}, "AccessDeniedException")
		for _, k := range ok(other, other.ListKeys, &kms.ListKeysInput{Limit: aws.Int32(1000)}).Keys {
			if *k.KeyId == *id {
				s.Error("a key shows in another account or Region")
			}
		}
	}
}
