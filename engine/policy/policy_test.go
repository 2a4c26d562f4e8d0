package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/engine/policy"
)

const (
	account = "111122223333"
	alice   = "arn:aws:iam::111122223333:user/team/alice"
	session = "arn:aws:sts::111122223333:assumed-role/admin/alice"
	key     = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// The layout is the one that GetKeyPolicy of AWS returns, byte for byte.
func TestDefaultIsAWSs(t *testing.T) {
	want := strings.Join([]string{
		`{`,
		`  "Version" : "2012-10-17",`,
		`  "Id" : "key-default-1",`,
		`  "Statement" : [ {`,
		`    "Sid" : "Enable IAM User Permissions",`,
		`    "Effect" : "Allow",`,
		`    "Principal" : {`,
		`      "AWS" : "arn:aws:iam::111122223333:root"`,
		`    },`,
		`    "Action" : "kms:*",`,
		`    "Resource" : "*"`,
		`  } ]`,
		`}`,
	}, "\n")
	if got := policy.Default(account); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func allows(t *testing.T, document, principal string) bool {
	t.Helper()
	p, err := policy.Parse(document)
	if err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	return p.AllowsPutKeyPolicy(principal, account, key)
}

func TestDefaultAllowsItsAccount(t *testing.T) {
	for _, principal := range []string{"arn:aws:iam::111122223333:root", alice, session} {
		if !allows(t, policy.Default(account), principal) {
			t.Errorf("locks out %s", principal)
		}
	}
	if allows(t, policy.Default("444455556666"), alice) {
		t.Error("another account's policy allows alice")
	}
}

// allow and deny make a policy of statements from their elements but the effect.
func allow(elements string) string { return `{"Effect": "Allow", ` + elements + `}` }
func deny(elements string) string  { return `{"Effect": "Deny", ` + elements + `}` }

func document(statements ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ", ") + `]}`
}

const (
	root      = `"Principal": {"AWS": "arn:aws:iam::111122223333:root"}`
	all       = `"Action": "kms:*", "Resource": "*"`
	rootMayDo = root + `, ` + all
)

func condition(s string) string { return rootMayDo + `, "Condition": ` + s }

func TestLockout(t *testing.T) {
	for _, test := range []struct {
		name       string
		statements []string
		principal  string // alice, unless it says otherwise
		want       bool
	}{
		{"account id", []string{allow(`"Principal": {"AWS": "111122223333"}, ` + all)}, alice, true},
		{"everyone", []string{allow(`"Principal": "*", ` + all)}, alice, true},
		{"every AWS identity", []string{allow(`"Principal": {"AWS": ["*"]}, ` + all)}, alice, true},
		{"the user", []string{allow(`"Principal": {"AWS": ["` + session + `", "` + alice + `"]}, ` + all)}, alice, true},
		{"another user", []string{allow(`"Principal": {"AWS": "arn:aws:iam::111122223333:user/team/bob"}, ` + all)}, alice, false},
		{"another account", []string{allow(`"Principal": {"AWS": "444455556666"}, ` + all)}, alice, false},
		{"a service", []string{allow(`"Principal": {"Service": "logs.amazonaws.com"}, ` + all)}, alice, false},
		{"a session's role", []string{allow(`"Principal": {"AWS": "arn:aws:iam::111122223333:role/path/admin"}, ` + all)}, session, true},
		{"another role", []string{allow(`"Principal": {"AWS": "arn:aws:iam::111122223333:role/administrator"}, ` + all)}, session, false},
		{"another account's role", []string{allow(`"Principal": {"AWS": "arn:aws:iam::444455556666:role/admin"}, ` + all)}, session, false},
		{"the session", []string{allow(`"Principal": {"AWS": "` + session + `"}, ` + all)}, session, true},
		{"another session", []string{allow(`"Principal": {"AWS": "` + session + `2"}, ` + all)}, session, false},

		{"the action", []string{allow(root + `, "Action": ["kms:Encrypt", "kms:PutKeyPolicy"], "Resource": "*"`)}, alice, true},
		{"in any case", []string{allow(root + `, "Action": "KMS:putkeypolicy", "Resource": "*"`)}, alice, true},
		{"a pattern", []string{allow(root + `, "Action": "kms:Put*", "Resource": "*"`)}, alice, true},
		{"question marks", []string{allow(root + `, "Action": "kms:???KeyPolicy", "Resource": "*"`)}, alice, true},
		{"every action", []string{allow(root + `, "Action": "*", "Resource": "*"`)}, alice, true},
		{"other actions", []string{allow(root + `, "Action": ["kms:Get*", "kms:PutKey", "s3:*"], "Resource": "*"`)}, alice, false},
		{"not other actions", []string{allow(root + `, "NotAction": "kms:Decrypt", "Resource": "*"`)}, alice, true},
		{"not this action", []string{allow(root + `, "NotAction": "kms:Put*", "Resource": "*"`)}, alice, false},
		{"no action", []string{allow(root + `, "Resource": "*"`)}, alice, false},
		{"no resource", []string{allow(root + `, "Action": "kms:*"`)}, alice, false},
		{"the key", []string{allow(root + `, "Action": "kms:*", "Resource": "` + key + `"`)}, alice, true},
		{"keys", []string{allow(root + `, "Action": "kms:*", "Resource": ["arn:aws:kms:*:111122223333:key/*"]`)}, alice, true},
		{"another key", []string{allow(root + `, "Action": "kms:*", "Resource": "` + key + `c"`)}, alice, false},
		{"all but the key", []string{allow(root + `, "Action": "kms:*", "NotResource": "` + key + `"`)}, alice, false},

		{"denied", []string{allow(rootMayDo), deny(`"Principal": {"AWS": "` + alice + `"}, ` + all)}, alice, false},
		{"denied first", []string{deny(`"Principal": "*", ` + all), allow(rootMayDo)}, alice, false},
		{"denied to another", []string{allow(rootMayDo), deny(`"Principal": {"AWS": "` + session + `"}, ` + all)}, alice, true},
		{"denied something else", []string{allow(rootMayDo), deny(root + `, "Action": "kms:Decrypt", "Resource": "*"`)}, alice, true},
		{"only denied others", []string{deny(`"Principal": {"AWS": "` + session + `"}, ` + all)}, alice, false},
		{"denied to all but the user", []string{allow(rootMayDo), deny(`"NotPrincipal": {"AWS": ["` + account + `", "` + alice + `"]}, ` + all)}, alice, true},
		{"denied to all but the account", []string{allow(rootMayDo), deny(`"NotPrincipal": {"AWS": "` + account + `"}, ` + all)}, alice, false},
		{"allowed to all but the user", []string{allow(`"NotPrincipal": {"AWS": "` + alice + `"}, ` + all)}, alice, false},
		{"allowed to all but the account", []string{allow(`"NotPrincipal": {"AWS": "` + account + `"}, ` + all)}, alice, false},
		{"allowed to all but another", []string{allow(`"NotPrincipal": {"AWS": "444455556666"}, ` + all)}, alice, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := allows(t, document(test.statements...), test.principal); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestConditionsOfTheLockoutCheck(t *testing.T) {
	for _, test := range []struct {
		condition string
		principal string
		want      bool
	}{
		{`{}`, alice, true},
		{`{"StringEquals": {"aws:PrincipalArn": "` + alice + `"}}`, alice, true},
		{`{"StringEquals": {"AWS:PRINCIPALARN": ["x", "` + alice + `"]}}`, alice, true},
		{`{"StringEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/*"}}`, alice, false},
		{`{"StringLike": {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/*"}}`, alice, true},
		{`{"StringEqualsIgnoreCase": {"aws:PrincipalArn": "` + strings.ToUpper(alice) + `"}}`, alice, true},
		{`{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*/alice"}}`, alice, true},
		{`{"ArnLike": {"aws:PrincipalArn": "arn:*:user/team/alice"}}`, alice, false},
		{`{"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/admin"}}`, session, true},
		{`{"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}`, alice, false},
		{`{"StringNotEquals": {"aws:PrincipalAccount": "444455556666"}}`, alice, true},
		{`{"StringEquals": {"kms:CallerAccount": "111122223333"}}`, alice, true},
		{`{"StringEquals": {"kms:CallerAccount": "111122223333", "aws:PrincipalArn": "x"}}`, alice, false},
		{`{"StringEquals": {"kms:CallerAccount": "111122223333"}, "Bool": {"aws:MultiFactorAuthPresent": true}}`, alice, false},
		{`{"BoolIfExists": {"aws:MultiFactorAuthPresent": "true"}}`, alice, true},
		{`{"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}}`, alice, false},
		{`{"StringNotEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}}`, alice, true},
		{`{"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}`, alice, true},
		{`{"NumericLessThan": {"aws:MultiFactorAuthAge": 300}}`, alice, false},
		{`{"NumericEquals": {"aws:PrincipalAccount": 111122223333}}`, alice, false},
		{`{"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}`, alice, true},
		{`{"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}`, alice, false},
		{`{"ForAnyValue:StringLikeIfExists": {"aws:PrincipalArn": "*alice"}}`, alice, true},
		{`{"Null": {"kms:BypassPolicyLockoutSafetyCheck": true}}`, alice, true},
		{`{"Null": {"aws:PrincipalArn": "true"}}`, alice, false},
		{`{"Null": {"aws:PrincipalArn": "false"}}`, alice, true},
	} {
		if got := allows(t, document(allow(condition(test.condition))), test.principal); got != test.want {
			t.Errorf("%s: got %t", test.condition, got)
		}
		// The same condition on a deny has the opposite effect.
		if got := allows(t, document(allow(rootMayDo), deny(condition(test.condition))), test.principal); got == test.want {
			t.Errorf("%s on a deny: got %t", test.condition, got)
		}
	}
}

func ExamplePolicy_AllowsPutKeyPolicy() {
	p, err := policy.Parse(policy.Default("111122223333"))
	if err != nil {
		panic(err)
	}
	fmt.Println(p.AllowsPutKeyPolicy("arn:aws:iam::111122223333:user/alice", "111122223333",
		"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"))
	// Output: true
}
