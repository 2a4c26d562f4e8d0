package kmstest

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// keyCombinations tries every key spec with every usage and every origin: keys
// are made of those that AWS KMS allows and that are served, the others are
// refused, and which they are is recorded. Combinations of usage and spec are
// made with the origin EXTERNAL, which needs no material.
func (s *suite) keyCombinations() {
	valid := map[keyKind]bool{}
	for _, form := range forms(types.KeySpecRsa4096) {
		if form.in.KeySpec != "" {
			valid[keyKind{form.in.KeySpec, form.usage}] = true
		}
	}
	valid[keyKind{types.KeySpecRsa3072, types.KeyUsageTypeSignVerify}] = true
	valid[keyKind{types.KeySpecRsa4096, types.KeyUsageTypeEncryptDecrypt}] = true
	served := map[types.KeySpec]bool{}
	for kind := range valid {
		served[kind.spec] = true
	}
	for _, spec := range types.KeySpec("").Values() {
		s.sub(string(spec), func(s *suite) {
			for _, usage := range append(types.KeyUsageType("").Values(), "") {
				in := &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage, Origin: types.OriginTypeExternal}
				symmetric := spec == types.KeySpecSymmetricDefault
				switch {
				case !served[spec]:
					refused(s, s.CreateKey, in, "UnsupportedOperationException")
				case valid[keyKind{spec, usage}] || usage == "" && symmetric:
					s.record.made(s.create(in))
				default:
					refused(s, s.CreateKey, in, "ValidationException")
					in.Origin = types.OriginTypeAwsKms
					refused(s, s.CreateKey, in, "ValidationException")
				}
			}
			s.originsOf(spec, served[spec])
		})
	}
}

// originsOf tries a key spec with the origins that keys need more for: none is
// made, as there is no key store.
func (s *suite) originsOf(spec types.KeySpec, served bool) {
	s.Helper()
	for kind, id := range s.keys {
		if kind.spec == spec {
			s.record.made(s.describe(&id))
			in := kms.CreateKeyInput{KeySpec: spec, KeyUsage: kind.usage, CustomKeyStoreId: aws.String("cks-0123456789abcdef0")}
			for _, origin := range []types.OriginType{types.OriginTypeAwsKms, types.OriginTypeExternal} {
				in := in
				in.Origin = origin
				refused(s, s.CreateKey, &in, "ValidationException")
			}
		}
	}
	in := kms.CreateKeyInput{KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify, XksKeyId: aws.String("some-key")}
	if spec == types.KeySpecSymmetricDefault {
		in.KeyUsage = types.KeyUsageTypeEncryptDecrypt
	}
	if strings.HasPrefix(string(spec), "HMAC") {
		in.KeyUsage = types.KeyUsageTypeGenerateVerifyMac
	}
	code := "ValidationException"
	if !served {
		code = "UnsupportedOperationException"
	}
	for _, origin := range types.OriginType("").Values() {
		in := in
		in.Origin = origin
		refused(s, s.CreateKey, &in, code) // without a key store an external key means nothing
	}
}
