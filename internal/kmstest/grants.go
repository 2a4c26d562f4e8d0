package kmstest

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func principal(name string) *string { return aws.String("arn:aws:iam::" + Account + ":user/" + name) }

// grants are made, listed, retired and revoked.
func (s *suite) grants() {
	id := s.newKey()
	in := &kms.CreateGrantInput{
		KeyId: id, GranteePrincipal: principal("bob"), RetiringPrincipal: principal("suite-retirer"), Name: aws.String("grant"),
		Operations:  []types.GrantOperation{types.GrantOperationEncrypt, types.GrantOperationDecrypt},
		Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "b"}},
	}
	grant := ok(s, s.CreateGrant, in)
	s.checkMembers(grant, "GrantId GrantToken")
	if again := ok(s, s.CreateGrant, in); *again.GrantId != *grant.GrantId {
		s.Error("a grant of the same name and content is made twice")
	}
	refused(s, s.CreateGrant, &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String("nobody"), Operations: in.Operations}, "InvalidArnException")
	refused(s, s.CreateGrant, &kms.CreateGrantInput{KeyId: id, GranteePrincipal: principal("bob"), Operations: []types.GrantOperation{types.GrantOperationSign}}, "ValidationException")

	list := ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id}).Grants
	if len(list) != 1 {
		s.Fatalf("grants %+v", list)
	}
	s.checkMembers(&list[0], "Constraints CreationDate GrantId GranteePrincipal IssuingAccount KeyId Name Operations RetiringPrincipal")
	if g := list[0]; *g.GrantId != *grant.GrantId || *g.GranteePrincipal != *principal("bob") || *g.Name != "grant" || *g.KeyId != arn(id) ||
		len(g.Operations) != 2 || g.Constraints.EncryptionContextSubset["a"] != "b" {
		s.Errorf("grant %+v", g)
	}
	if n := len(ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id, GranteePrincipal: principal("carol")}).Grants); n != 0 {
		s.Errorf("%d grants of another principal", n)
	}
	retirable := ok(s, s.ListRetirableGrants, &kms.ListRetirableGrantsInput{RetiringPrincipal: principal("suite-retirer")})
	if len(retirable.Grants) != 1 || *retirable.Grants[0].GrantId != *grant.GrantId {
		s.Errorf("retirable grants %+v", retirable.Grants)
	}
	ok(s, s.RetireGrant, &kms.RetireGrantInput{KeyId: aws.String(arn(id)), GrantId: grant.GrantId})
	refused(s, s.RevokeGrant, &kms.RevokeGrantInput{KeyId: id, GrantId: grant.GrantId}, "NotFoundException")
	second := ok(s, s.CreateGrant, in)
	ok(s, s.RevokeGrant, &kms.RevokeGrantInput{KeyId: id, GrantId: second.GrantId})
	if n := len(ok(s, s.ListGrants, &kms.ListGrantsInput{KeyId: id}).Grants); n != 0 {
		s.Errorf("%d grants are left", n)
	}
}
