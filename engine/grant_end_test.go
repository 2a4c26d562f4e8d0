package engine_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// TestEndGrants tests who can end which grant, how it is named, and that it is
// gone then.
func TestEndGrants(t *testing.T) {
	f := newEngine(t)
	ctx := t.Context()
	owner, foreign := f.client(), f.as(foreignAccount, region)
	k, second := freshKey(t, owner), freshKey(t, owner)
	as := func(arn string) *engine.Client {
		return f.Client(region, engine.Caller{Account: strings.Split(arn, ":")[4], ARN: arn})
	}
	principals := func(grantee, retiring string, operations ...types.GrantOperation) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) {
			in.GranteePrincipal = &grantee
			if retiring != "" {
				in.RetiringPrincipal = &retiring
			}
			in.Operations = append(in.Operations, operations...)
		}
	}
	otherRoot, otherRole := "arn:aws:iam::"+foreignAccount+":root", "arn:aws:iam::"+foreignAccount+":role/path/admin"
	for _, test := range []struct {
		name   string
		grant  func(*kms.CreateGrantInput)
		caller *engine.Client
		code   string
	}{
		{"owner", principals(bob, carol), owner, ""},
		{"any identity of the owner", principals(bob, carol), as("arn:aws:iam::" + account + ":user/zoe"), ""},
		{"retiring principal", principals(bob, carol), as(carol), ""},
		{"retiring account", principals(bob, otherRoot), foreign, ""},
		{"retiring role, its session", principals(bob, otherRole), as("arn:aws:sts::" + foreignAccount + ":assumed-role/admin/x"), ""},
		{"retiring role, another's session", principals(bob, otherRole), as("arn:aws:sts::" + foreignAccount + ":assumed-role/admins/x"), "AccessDeniedException"},
		{"retiring role, another account's", principals(bob, otherRole), as("arn:aws:sts::777788889999:assumed-role/admin/x"), "AccessDeniedException"},
		{"grantee that may", principals(carol, "", types.GrantOperationRetireGrant), as(carol), ""},
		{"grantee that may not", principals(carol, bob), as(carol), "AccessDeniedException"},
		{"a stranger", principals(bob, carol, types.GrantOperationRetireGrant), foreign, "AccessDeniedException"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, by := range []string{"token", "id"} {
				out := grantTo(t, owner, k.KeyId, test.grant)
				in := &kms.RetireGrantInput{GrantToken: out.GrantToken}
				if by == "id" {
					in = &kms.RetireGrantInput{KeyId: k.Arn, GrantId: out.GrantId}
				}
				dry := *in
				dry.DryRun = aws.Bool(true)
				_, err := test.caller.RetireGrant(ctx, &dry)
				refused(t, err, cmpCode(test.code, "DryRunOperationException"), "")
				_, err = test.caller.RetireGrant(ctx, in)
				refused(t, err, test.code, "")
				left := len(allGrants(t, owner, kms.ListGrantsInput{KeyId: k.KeyId, GrantId: out.GrantId}))
				if (left == 1) != (test.code != "") {
					t.Errorf("by %s: %d grants left, error %v", by, left, err)
				}
			}
		})
	}

	out := grantTo(t, owner, k.KeyId, principals(bob, carol))
	unknown := aws.String(strings.Repeat("0", 64))
	for _, test := range []struct {
		name          string
		caller        *engine.Client
		in            kms.RetireGrantInput
		code, message string
	}{
		{"nothing", owner, kms.RetireGrantInput{}, "ValidationException", "must be specified"},
		{"no key", owner, kms.RetireGrantInput{GrantId: out.GrantId}, "ValidationException", "must be specified"},
		{"no grant", owner, kms.RetireGrantInput{KeyId: k.Arn}, "ValidationException", "must be specified"},
		{"both", owner, kms.RetireGrantInput{KeyId: k.Arn, GrantId: out.GrantId, GrantToken: out.GrantToken}, "ValidationException", "must be specified"},
		{"no id", owner, kms.RetireGrantInput{KeyId: k.Arn, GrantId: aws.String("x")}, "InvalidGrantIdException", ""},
		{"unknown", owner, kms.RetireGrantInput{KeyId: k.Arn, GrantId: unknown}, "NotFoundException", ""},
		{"of another key", owner, kms.RetireGrantInput{KeyId: second.Arn, GrantId: out.GrantId}, "NotFoundException", ""},
		{"another's unknown", as(carol), kms.RetireGrantInput{KeyId: k.Arn, GrantId: unknown}, "AccessDeniedException", "kms:RetireGrant"},
		{"another's key id", as(carol), kms.RetireGrantInput{KeyId: k.KeyId, GrantId: out.GrantId}, "NotFoundException", "does not exist"},
	} {
		_, err := test.caller.RetireGrant(ctx, &test.in)
		refused(t, err, test.code, test.message)
	}
	for _, test := range []struct {
		caller *engine.Client
		in     kms.RevokeGrantInput
		code   string
	}{
		{as(carol), kms.RevokeGrantInput{KeyId: k.Arn, GrantId: out.GrantId}, "AccessDeniedException"}, // only the owner can
		{owner, kms.RevokeGrantInput{KeyId: second.Arn, GrantId: out.GrantId}, "NotFoundException"},
		{owner, kms.RevokeGrantInput{KeyId: k.Arn, GrantId: unknown}, "NotFoundException"},
		{owner, kms.RevokeGrantInput{KeyId: k.Arn, GrantId: aws.String("x")}, "InvalidGrantIdException"},
		{owner, kms.RevokeGrantInput{KeyId: k.Arn, GrantId: out.GrantId, DryRun: aws.Bool(true)}, "DryRunOperationException"},
		{owner, kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: aws.String(strings.ToUpper(*out.GrantId))}, ""},
		{owner, kms.RevokeGrantInput{KeyId: k.KeyId, GrantId: out.GrantId}, "NotFoundException"},
	} {
		_, err := test.caller.RevokeGrant(ctx, &test.in)
		refused(t, err, test.code, "")
	}
	f.reopen()
	if got := allGrants(t, f.client(), kms.ListGrantsInput{KeyId: k.KeyId, GrantId: out.GrantId}); len(got) != 0 {
		t.Errorf("a revoked grant is back: %+v", got)
	}
}

func cmpCode(code, otherwise string) string {
	if code != "" {
		return code
	}
	return otherwise
}
