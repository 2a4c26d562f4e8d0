package kmstest

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// aliases name keys, and stand for them where AWS KMS allows it.
func (s *suite) aliases() {
	first, second := s.newKey(), s.newKey()
	name := aws.String("alias/suite/first")
	ok(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: name, TargetKeyId: first})
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: name, TargetKeyId: second}, "AlreadyExistsException")
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: aws.String("alias/x"), TargetKeyId: name}, "ValidationException")
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: aws.String("no-prefix"), TargetKeyId: first}, "ValidationException")
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: aws.String("alias/aws/mine"), TargetKeyId: first}, "NotAuthorizedException")
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: aws.String("alias/" + strings.Repeat("a", 251)), TargetKeyId: first}, "ValidationException")
	refused(s, s.CreateAlias, &kms.CreateAliasInput{AliasName: aws.String("alias/a b"), TargetKeyId: first}, "ValidationException")

	aliasARN := aws.String("arn:aws:kms:" + Region + ":" + Account + ":" + *name)
	for _, id := range []*string{name, aliasARN} {
		if m := s.describe(id); *m.KeyId != *first {
			s.Errorf("%s is %s", *id, *m.KeyId)
		}
		if out := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}); *out.KeyId != arn(first) {
			s.Errorf("encrypted by %s", *out.KeyId)
		}
	}
	out := ok(s, s.ListAliases, &kms.ListAliasesInput{KeyId: first})
	if len(out.Aliases) != 1 || *out.Aliases[0].AliasArn != *aliasARN || *out.Aliases[0].AliasName != *name || *out.Aliases[0].TargetKeyId != *first {
		s.Errorf("aliases %+v", out.Aliases)
	}
	s.checkMembers(&out.Aliases[0], "AliasArn AliasName CreationDate LastUpdatedDate TargetKeyId")

	ok(s, s.UpdateAlias, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: second})
	if m := s.describe(name); *m.KeyId != *second {
		s.Errorf("the alias is still that of %s", *m.KeyId)
	}
	signer := s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	refused(s, s.UpdateAlias, &kms.UpdateAliasInput{AliasName: name, TargetKeyId: signer}, "ValidationException")
	refused(s, s.UpdateAlias, &kms.UpdateAliasInput{AliasName: aws.String("alias/none"), TargetKeyId: first}, "NotFoundException")
	s.noAliases(name)
	ok(s, s.DeleteAlias, &kms.DeleteAliasInput{AliasName: name})
	refused(s, s.DeleteAlias, &kms.DeleteAliasInput{AliasName: name}, "NotFoundException")
	refused(s, s.DescribeKey, &kms.DescribeKeyInput{KeyId: name}, "NotFoundException")
}

// noAliases tries the operations that take key ids only.
func (s *suite) noAliases(name *string) {
	s.Helper()
	for _, in := range []any{
		&kms.DisableKeyInput{KeyId: name}, &kms.ScheduleKeyDeletionInput{KeyId: name}, &kms.EnableKeyRotationInput{KeyId: name},
		&kms.RotateKeyOnDemandInput{KeyId: name}, &kms.UpdateKeyDescriptionInput{KeyId: name, Description: aws.String("d")},
		&kms.GetKeyPolicyInput{KeyId: name}, &kms.ListKeyPoliciesInput{KeyId: name}, &kms.GetKeyLastUsageInput{KeyId: name},
		&kms.TagResourceInput{KeyId: name, Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}}},
		&kms.CreateGrantInput{KeyId: name, GranteePrincipal: principal("bob"), Operations: []types.GrantOperation{types.GrantOperationDecrypt}},
		&kms.ReplicateKeyInput{KeyId: name, ReplicaRegion: aws.String(OtherRegion)},
	} {
		if err := s.invoke(in); !hasCode(err, "InvalidArnException") && !hasCode(err, "NotFoundException") {
			s.Errorf("%s by an alias: %v", operationName(in), err)
		}
	}
}

// tags are added, replaced and removed.
func (s *suite) tags() {
	tag := func(key, value string) types.Tag {
		return types.Tag{TagKey: aws.String(key), TagValue: aws.String(value)}
	}
	id := s.create(&kms.CreateKeyInput{Tags: []types.Tag{tag("a", "1"), tag("b", "2")}}).KeyId
	list := func() string {
		s.Helper()
		var all []string
		for _, t := range ok(s, s.ListResourceTags, &kms.ListResourceTagsInput{KeyId: id}).Tags {
			all = append(all, *t.TagKey+"="+*t.TagValue)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	if got := list(); got != "a=1 b=2" {
		s.Errorf("tags %s", got)
	}
	ok(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag("b", ""), tag("c", "3")}})
	ok(s, s.UntagResource, &kms.UntagResourceInput{KeyId: id, TagKeys: []string{"a", "none"}})
	if got := list(); got != "b= c=3" {
		s.Errorf("tags %s", got)
	}
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag("aws:x", "1")}}, "TagException")
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag("d", "1"), tag("d", "2")}}, "TagException")
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag("", "1")}}, "ValidationException")
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag(strings.Repeat("k", 129), "1")}}, "ValidationException")
	refused(s, s.TagResource, &kms.TagResourceInput{KeyId: id, Tags: []types.Tag{tag("k", strings.Repeat("v", 257))}}, "ValidationException")
}

// policies are kept as they are given, and nobody locks itself out unasked.
func (s *suite) policies() {
	id := s.newKey()
	out := ok(s, s.GetKeyPolicy, &kms.GetKeyPolicyInput{KeyId: id})
	s.checkMembers(out, "Policy PolicyName")
	for _, part := range []string{`"arn:aws:iam::` + Account + `:root"`, `"kms:*"`} {
		if !strings.Contains(*out.Policy, part) {
			s.Errorf("the default policy has no %s:\n%s", part, *out.Policy)
		}
	}
	names := ok(s, s.ListKeyPolicies, &kms.ListKeyPoliciesInput{KeyId: id})
	if len(names.PolicyNames) != 1 || names.PolicyNames[0] != "default" || names.Truncated || *out.PolicyName != "default" {
		s.Errorf("policies %v", names.PolicyNames)
	}
	mine := policyOf(300)
	ok(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: &mine, PolicyName: aws.String("default")})
	if got := ok(s, s.GetKeyPolicy, &kms.GetKeyPolicyInput{KeyId: id}); *got.Policy != mine {
		s.Errorf("policy %s, want %s", *got.Policy, mine)
	}
	refused(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String("{}")}, "MalformedPolicyDocumentException")
	refused(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String("no policy")}, "MalformedPolicyDocumentException")
	lockout := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + OtherAccount + `:root"},"Action":"kms:*","Resource":"*"}]}`
	refused(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: &lockout}, "MalformedPolicyDocumentException")
	refused(s, s.CreateKey, &kms.CreateKeyInput{Policy: &lockout}, "MalformedPolicyDocumentException")
	ok(s, s.PutKeyPolicy, &kms.PutKeyPolicyInput{KeyId: id, Policy: &lockout, BypassPolicyLockoutSafetyCheck: true})
	s.create(&kms.CreateKeyInput{Policy: &lockout, BypassPolicyLockoutSafetyCheck: true})
}
