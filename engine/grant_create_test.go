package engine_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestGrantEntries tests that a grant is shown as it was made, and nothing else,
// also after a restart.
func TestGrantEntries(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	k := freshKey(t, c)
	operations := []types.GrantOperation{types.GrantOperationGenerateDataKey, types.GrantOperationDecrypt, types.GrantOperationRetireGrant}
	common := types.GrantListEntry{
		CreationDate: aws.Time(f.clock.now()), IssuingAccount: aws.String("arn:aws:iam::" + account + ":root"), KeyId: k.Arn,
	}
	for _, test := range []struct {
		name  string
		in    kms.CreateGrantInput
		entry func(*types.GrantListEntry)
	}{
		{"plain", kms.CreateGrantInput{KeyId: k.KeyId, GranteePrincipal: aws.String(bob), Operations: append(operations, operations[0])}, func(e *types.GrantListEntry) {
			e.GranteePrincipal = aws.String(bob)
		}},
		{"full", kms.CreateGrantInput{
			KeyId: k.Arn, GranteePrincipal: aws.String(carol), RetiringPrincipal: aws.String(bob), Name: aws.String("a:b/c_d-1"), Operations: operations,
			Constraints: &types.GrantConstraints{
				EncryptionContextSubset: map[string]string{"a": strings.Repeat("ä", 384), "b": ""}, SourceArn: aws.String(tableARN),
			},
		}, func(e *types.GrantListEntry) {
			e.GranteePrincipal, e.RetiringPrincipal, e.Name = aws.String(carol), aws.String(bob), aws.String("a:b/c_d-1")
			e.Constraints = &types.GrantConstraints{
				EncryptionContextSubset: map[string]string{"a": strings.Repeat("ä", 384), "b": ""}, SourceArn: aws.String(tableARN),
			}
		}},
		{"service", kms.CreateGrantInput{
			KeyId: k.KeyId, GranteeServicePrincipal: aws.String(service), RetiringServicePrincipal: aws.String(service), Operations: operations,
			Constraints: &types.GrantConstraints{SourceArn: aws.String(tableARN), EncryptionContextEquals: map[string]string{"x": "y"}},
		}, func(e *types.GrantListEntry) {
			e.GranteeServicePrincipal, e.RetiringServicePrincipal = aws.String(service), aws.String(service)
			e.Constraints = &types.GrantConstraints{SourceArn: aws.String(tableARN), EncryptionContextEquals: map[string]string{"x": "y"}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := f.client().CreateGrant(t.Context(), &test.in)
			if err != nil {
				t.Fatal(err)
			}
			if len(*out.GrantId) != 64 || len(*out.GrantToken) < 43 || strings.Contains(*out.GrantToken, *out.GrantId) {
				t.Errorf("grant id %q, token %q", *out.GrantId, *out.GrantToken)
			}
			want := common
			want.GrantId, want.Operations = out.GrantId, operations
			test.entry(&want)
			for range 2 {
				got := allGrants(t, f.client(), kms.ListGrantsInput{KeyId: k.KeyId, GrantId: out.GrantId})
				if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
					t.Errorf("grants %+v, want %+v", got, want)
				}
				f.reopen()
			}
			if err := useToken(t.Context(), f.client(), k.KeyId, out.GrantToken); err != nil {
				t.Errorf("the token after a restart: %v", err)
			}
		})
	}
}

func TestGrantChecks(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c)
	hmacKey := freshKey(t, c, specified(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac))
	constrained := func(equals, subset map[string]string) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) {
			in.Constraints = &types.GrantConstraints{EncryptionContextEquals: equals, EncryptionContextSubset: subset}
		}
	}
	many := map[string]string{}
	for i := range 9 {
		many[fmt.Sprint(i)] = "v"
	}
	eight := maps.Clone(many)
	delete(eight, "8")
	grantee := func(s string) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) { in.GranteePrincipal = &s }
	}
	ofService := func(source, retiring string) func(*kms.CreateGrantInput) {
		return func(in *kms.CreateGrantInput) {
			in.GranteePrincipal, in.GranteeServicePrincipal = nil, aws.String(service)
			if source != "" {
				in.Constraints = &types.GrantConstraints{SourceArn: &source}
			}
			if retiring != "" {
				in.RetiringPrincipal = &retiring
			}
		}
	}
	count := func() int {
		t.Helper()
		return len(allGrants(t, c, kms.ListGrantsInput{KeyId: k.KeyId})) + len(allGrants(t, c, kms.ListGrantsInput{KeyId: hmacKey.KeyId}))
	}
	for _, test := range []struct {
		name          string
		key           *string
		change        func(*kms.CreateGrantInput)
		code, message string
	}{
		{"dry run", k.KeyId, func(in *kms.CreateGrantInput) { in.DryRun = aws.Bool(true) }, "DryRunOperationException", "would have succeeded"},
		{"unknown key", aws.String("0d4fe8a8-8a1c-4a3c-9e0a-5b1d7a0a5b1d"), func(*kms.CreateGrantInput) {}, "NotFoundException", "does not exist"},
		{"alias", aws.String("alias/a"), func(*kms.CreateGrantInput) {}, "InvalidArnException", "Key Aliases are not supported for this operation."},
		{"no operation", k.KeyId, func(in *kms.CreateGrantInput) { in.Operations = []types.GrantOperation{} }, "ValidationException", "at least one operation"},
		{"unknown operation", k.KeyId, func(in *kms.CreateGrantInput) { in.Operations[0] = "ScheduleKeyDeletion" }, "ValidationException", "enum value set"},
		{"no grantee", k.KeyId, func(in *kms.CreateGrantInput) { in.GranteePrincipal = nil }, "ValidationException", "GranteeServicePrincipal"},
		{"two grantees", k.KeyId, func(in *kms.CreateGrantInput) { in.GranteeServicePrincipal = aws.String(service) }, "ValidationException", "not both"},
		{"two to retire", k.KeyId, func(in *kms.CreateGrantInput) {
			in.RetiringPrincipal, in.RetiringServicePrincipal = aws.String(bob), aws.String(service)
		}, "ValidationException", "not both"},
		{"service without source", k.KeyId, ofService("", bob), "ValidationException", "SourceArn"},
		{"service, nobody to retire", k.KeyId, ofService(tableARN, ""), "ValidationException", "RetiringPrincipal"},
		{"service without a domain", k.KeyId, func(in *kms.CreateGrantInput) { in.RetiringServicePrincipal = aws.String("dynamodb") }, "ValidationException", "retiringServicePrincipal"},
		{"source that is no ARN", k.KeyId, ofService("nothing of the kind whatsoever", bob), "ValidationException", "sourceArn"},
		{"retiring principal", k.KeyId, func(in *kms.CreateGrantInput) { in.RetiringPrincipal = aws.String("bob") }, "InvalidArnException", "valid principal"},
		{"context of HMAC", hmacKey.KeyId, func(in *kms.CreateGrantInput) {
			in.Operations[0] = types.GrantOperationVerifyMac
			constrained(nil, map[string]string{"a": "b"})(in)
		}, "ValidationException", "encryption context"},
		{"9 pairs", k.KeyId, constrained(many, nil), "ValidationException", "at most 8"},
		{"no pair", k.KeyId, constrained(nil, map[string]string{}), "", ""},
		{"context of HMAC without a pair", hmacKey.KeyId, func(in *kms.CreateGrantInput) {
			in.Operations[0] = types.GrantOperationVerifyMac
			constrained(map[string]string{}, map[string]string{})(in)
		}, "", ""},
		{"service", k.KeyId, grantee("dynamodb.us-west-1.amazonaws.com"), "", ""},
		{"service of no domain", k.KeyId, grantee("dynamodb.example.com"), "InvalidArnException", ""},
		{"service of an empty name", k.KeyId, grantee("a..amazonaws.com"), "InvalidArnException", ""},
		{"service to retire", k.KeyId, func(in *kms.CreateGrantInput) { in.RetiringPrincipal = aws.String("rds.amazonaws.com") }, "", ""},
		{"8 pairs, both constraints", k.KeyId, constrained(eight, eight), "", ""},
		{"long value", k.KeyId, constrained(map[string]string{"a": strings.Repeat("ä", 385)}, nil), "ValidationException", "384"},
		{"name", k.KeyId, named("a b"), "ValidationException", "name"},
		{"grant token", k.KeyId, func(in *kms.CreateGrantInput) { in.GrantTokens = []string{"AQ"} }, "InvalidGrantTokenException", ""},
		{"no principal", k.KeyId, grantee("bob"), "InvalidArnException", "ARN does not refer to a valid principal"},
		{"not of IAM", k.KeyId, grantee(tableARN), "InvalidArnException", ""},
		{"account number", k.KeyId, grantee(account), "InvalidArnException", ""},
		{"group", k.KeyId, grantee("arn:aws:iam::" + account + ":group/admins"), "InvalidArnException", ""},
		{"user without name", k.KeyId, grantee("arn:aws:iam::" + account + ":user/"), "InvalidArnException", ""},
		{"session without name", k.KeyId, grantee("arn:aws:sts::" + account + ":assumed-role/r"), "InvalidArnException", ""},
		{"another partition", k.KeyId, grantee("arn:aws-cn:iam::" + account + ":user/bob"), "InvalidArnException", ""},
		{"short account", k.KeyId, grantee("arn:aws:iam::123:user/bob"), "InvalidArnException", ""},
		{"everybody", k.KeyId, grantee("*"), "ValidationException", "granteePrincipal"},
		{"account", k.KeyId, grantee("arn:aws:iam::" + foreignAccount + ":root"), "", ""},
		{"role", k.KeyId, grantee("arn:aws:iam::" + account + ":role/path/admin"), "", ""},
		{"session", k.KeyId, grantee("arn:aws:sts::" + account + ":assumed-role/admin/s-1"), "", ""},
		{"federated user", k.KeyId, grantee("arn:aws:sts::" + account + ":federated-user/bob"), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := count()
			_, err := c.CreateGrant(ctx, grantInput(test.key, test.change))
			refused(t, err, test.code, test.message)
			if after := count(); (after == before) != (err != nil) {
				t.Errorf("%d grants, %d before", after, before)
			}
		})
	}
	_, err := f.as(foreignAccount, region).CreateGrant(ctx, grantInput(k.Arn))
	refused(t, err, "AccessDeniedException", "kms:CreateGrant")
	must(c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: k.KeyId}))
	_, err = c.CreateGrant(ctx, grantInput(k.KeyId))
	refused(t, err, "DisabledException", *k.Arn+" is disabled.")
}

// TestGrantOperations tests which operations a grant of each kind of key can
// permit.
func TestGrantOperations(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	all := types.GrantOperation("").Values()
	always := []types.GrantOperation{types.GrantOperationCreateGrant, types.GrantOperationDescribeKey, types.GrantOperationRetireGrant}
	crypt := []types.GrantOperation{
		types.GrantOperationDecrypt, types.GrantOperationEncrypt, types.GrantOperationReEncryptFrom, types.GrantOperationReEncryptTo,
	}
	for _, test := range []struct {
		spec      types.KeySpec
		usage     types.KeyUsageType
		permitted []types.GrantOperation
	}{
		{types.KeySpecSymmetricDefault, types.KeyUsageTypeEncryptDecrypt, append([]types.GrantOperation{
			types.GrantOperationGenerateDataKey, types.GrantOperationGenerateDataKeyWithoutPlaintext,
			types.GrantOperationGenerateDataKeyPair, types.GrantOperationGenerateDataKeyPairWithoutPlaintext,
		}, crypt...)},
		{types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt, append([]types.GrantOperation{types.GrantOperationGetPublicKey}, crypt...)},
		{types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify, []types.GrantOperation{
			types.GrantOperationSign, types.GrantOperationVerify, types.GrantOperationGetPublicKey,
		}},
		{types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement, []types.GrantOperation{types.GrantOperationDeriveSharedSecret, types.GrantOperationGetPublicKey}},
		{types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac, []types.GrantOperation{types.GrantOperationGenerateMac, types.GrantOperationVerifyMac}},
	} {
		t.Run(string(test.spec)+" "+string(test.usage), func(t *testing.T) {
			k := freshKey(t, c, specified(test.spec, test.usage))
			for _, op := range all {
				_, err := c.CreateGrant(t.Context(), grantInput(k.KeyId, func(in *kms.CreateGrantInput) {
					in.Operations = []types.GrantOperation{types.GrantOperationDescribeKey, op}
					in.DryRun = aws.Bool(true)
				}))
				if slices.Contains(always, op) || slices.Contains(test.permitted, op) {
					refused(t, err, "DryRunOperationException", "")
				} else {
					refused(t, err, "ValidationException", "The operation "+string(op)+" is not supported")
				}
			}
		})
	}
}
