package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/engine/policy"
)

// TestManagedPolicies parses the policies of all AWS managed keys: nobody may change
// one, and a service permits what its policy says.
func TestManagedPolicies(t *testing.T) {
	var names []string
	for _, s := range policy.Services() {
		names = append(names, s.Name)
		document := s.Policy("111122223333", "eu-central-1")
		p, err := policy.Parse(document)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if p.AllowsPutKeyPolicy("arn:aws:iam::111122223333:root", "111122223333", "arn:aws:kms:eu-central-1:111122223333:key/k") {
			t.Errorf("the account can change the policy of %s", s.Name)
		}
		via := s.Name
		if via == "ebs" {
			via = "ec2"
		}
		if !strings.Contains(document, `"kms:ViaService": "`+via+`.eu-central-1.amazonaws.com"`) || !strings.Contains(document, `"kms:CallerAccount": "111122223333"`) {
			t.Errorf("%s: %s", s.Name, document)
		}
		for op, want := range map[string]bool{
			"DescribeKey": true, "GetKeyPolicy": true, "ListResourceTags": true, "Decrypt": true, "GenerateDataKeyWithoutPlaintext": true,
			"CreateGrant": strings.Contains(document, `"kms:CreateGrant"`), "RevokeGrant": strings.Contains(document, `"kms:RevokeGrant"`),
			"Encrypt": strings.Contains(document, `"kms:Encrypt"`), "ReEncryptTo": strings.Contains(document, `"kms:ReEncrypt*"`),
			"ScheduleKeyDeletion": false, "DisableKey": false, "PutKeyPolicy": false, "TagResource": false, "EnableKeyRotation": false,
		} {
			if s.Permits(op) != want {
				t.Errorf("%s permits %s: %t", s.Name, op, !want)
			}
		}
		if same, ok := policy.ServiceNamed(s.Name); !ok || same.Name != s.Name {
			t.Errorf("%s is not found by its name", s.Name)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(names) {
		t.Errorf("services %q", names)
	}
}
