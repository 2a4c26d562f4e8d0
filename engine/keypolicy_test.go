package engine_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
)

func policyOf(t testing.TB, c *engine.Client, id *string) string {
	t.Helper()
	out, err := c.GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: id})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.PolicyName) != "default" {
		t.Errorf("the policy is named %v", out.PolicyName)
	}
	return *out.Policy
}

// allowing is a policy that allows one principal some action with a resource.
func allowing(principal, action, resource string) string {
	return `{"Version":"2012-10-17", "Statement":[{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"` + action + `","Resource":"` + resource + `"}]}`
}

func TestDefaultKeyPolicy(t *testing.T) {
	f := newEngine(t)
	c := f.client()
	var p struct {
		Version   string
		Id        string
		Statement []struct {
			Sid, Effect, Action, Resource string
			Principal                     struct{ AWS string }
		}
	}
	k := freshKey(t, c)
	standard := policyOf(t, c, k.KeyId)
	if err := json.Unmarshal([]byte(standard), &p); err != nil {
		t.Fatal(err)
	}
	if p.Id != "key-default-1" || len(p.Statement) != 1 || p.Statement[0].Effect != "Allow" || p.Statement[0].Action != "kms:*" ||
		p.Statement[0].Resource != "*" || p.Statement[0].Principal.AWS != "arn:aws:iam::"+account+":root" {
		t.Errorf("the policy of a key made without one is %s", standard)
	}
	// What was read can be written again.
	must(c.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: &standard}))
	if got := policyOf(t, c, k.KeyId); got != standard {
		t.Errorf("the policy is %s, want %s", got, standard)
	}
	out := must(c.ListKeyPolicies(t.Context(), &kms.ListKeyPoliciesInput{KeyId: k.Arn}))
	if !slices.Equal(out.PolicyNames, []string{"default"}) || out.Truncated || out.NextMarker != nil {
		t.Errorf("policies %+v", out)
	}
}

func TestKeyPolicyLife(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	root := "arn:aws:iam::" + account + ":root"
	first, second := "\t"+allowing(root, "kms:*", "*")+"\n", allowing(root, "kms:Put*", "*")
	k := freshKey(t, c, func(in *kms.CreateKeyInput) { in.Policy = &first })
	f.reopen()
	c = f.client()
	if got := policyOf(t, c, k.KeyId); got != first {
		t.Errorf("the policy is %q, want %q word for word", got, first)
	}
	must(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.Arn, Policy: &second, PolicyName: aws.String("default")}))
	scheduleDeletion(t, c, k.KeyId) // in which state a policy can still be put
	must(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.Arn, Policy: &first}))
	must(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.Arn, Policy: &second}))
	f.reopen()
	if got := policyOf(t, f.client(), k.Arn); got != second {
		t.Errorf("the policy is %q, want %q", got, second)
	}
}

func TestKeyPolicyChecks(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c)
	root, alice := "arn:aws:iam::"+account+":root", "arn:aws:iam::"+account+":user/alice"
	lockout := "The new key policy will not allow you to update the key policy in the future."
	padding := strings.Repeat(" ", 32768)
	for _, test := range []struct {
		name, policy  string
		bypass        bool
		code, message string
	}{
		{"account", allowing(root, "kms:*", "*"), false, "", ""},
		{"caller", allowing(alice, "kms:PutKeyPolicy", "*"), false, "", ""},
		{"another user", allowing("arn:aws:iam::"+account+":user/bob", "kms:*", "*"), false, "MalformedPolicyDocumentException", lockout},
		{"another user, bypassed", allowing("arn:aws:iam::"+account+":user/bob", "kms:*", "*"), true, "", ""},
		{"another action", allowing(root, "kms:Encrypt", "*"), false, "MalformedPolicyDocumentException", lockout},
		{"another account", allowing("arn:aws:iam::"+foreignAccount+":root", "kms:*", "*"), false, "MalformedPolicyDocumentException", lockout},
		{"no JSON", "{", false, "MalformedPolicyDocumentException", ""},
		{"no JSON, bypassed", "{", true, "MalformedPolicyDocumentException", ""},
		{"no statement", `{"Version":"2012-10-17"}`, true, "MalformedPolicyDocumentException", "Statement"},
		{"no principal", allowing("nobody", "kms:*", "*"), true, "MalformedPolicyDocumentException", "Policy contains a statement with one or more invalid principals."},
		{"32 KiB", (allowing(root, "kms:*", "*") + padding)[:32768], false, "", ""},
		{"more than 32 KiB", (allowing(root, "kms:*", "*") + padding)[:32769], false, "LimitExceededException", "32768"},
		{"empty", "", false, "ValidationException", "policy"},
		{"characters", allowing(root, "kms:*", "*") + "\u0100", false, "ValidationException", "policy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := policyOf(t, c, k.KeyId)
			_, err := c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: &test.policy, BypassPolicyLockoutSafetyCheck: test.bypass})
			refused(t, err, test.code, test.message)
			want := test.policy
			if test.code != "" {
				want = before
			}
			if got := policyOf(t, c, k.KeyId); got != want {
				t.Errorf("the policy is %.200q, want %.200q", got, want)
			}
			out, err := c.CreateKey(ctx, &kms.CreateKeyInput{Policy: &test.policy, BypassPolicyLockoutSafetyCheck: test.bypass})
			refused(t, err, test.code, test.message)
			if err == nil && policyOf(t, c, out.KeyMetadata.KeyId) != test.policy {
				t.Error("the new key has another policy")
			}
		})
	}
	// A statement can name the key itself.
	must(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: aws.String(allowing(root, "kms:*", *k.Arn))}))
	_, err := c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: aws.String(allowing(root, "kms:*", *freshKey(t, c).Arn))})
	refused(t, err, "MalformedPolicyDocumentException", lockout)
}

func TestKeyPolicyNames(t *testing.T) {
	f := newEngine(t)
	c, ctx := f.client(), t.Context()
	k := freshKey(t, c)
	standard := aws.String(policyOf(t, c, k.KeyId))
	_, err := c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: k.KeyId, PolicyName: aws.String("other")})
	refused(t, err, "NotFoundException", "No such policy exists")
	_, err = c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.KeyId, PolicyName: aws.String("other"), Policy: standard})
	refused(t, err, "NotFoundException", "No such policy exists")
	foreign := f.as(foreignAccount, region)
	_, err = foreign.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: k.Arn})
	refused(t, err, "AccessDeniedException", "kms:GetKeyPolicy")
	_, err = foreign.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: k.Arn, Policy: standard})
	refused(t, err, "AccessDeniedException", "kms:PutKeyPolicy")
	_, err = foreign.ListKeyPolicies(ctx, &kms.ListKeyPoliciesInput{KeyId: k.KeyId})
	refused(t, err, "NotFoundException", "does not exist")
	_, err = c.ListKeyPolicies(ctx, &kms.ListKeyPoliciesInput{KeyId: k.KeyId, Limit: aws.Int32(1001)})
	refused(t, err, "ValidationException", "1000")
	_, err = c.ListKeyPolicies(ctx, &kms.ListKeyPoliciesInput{KeyId: k.KeyId, Marker: aws.String("x")})
	refused(t, err, "InvalidMarkerException", "")
	_, err = c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: aws.String("alias/x")})
	refused(t, err, "InvalidArnException", "Key Aliases are not supported for this operation.")
}
