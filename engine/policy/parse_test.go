package policy_test

import (
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/engine/policy"
)

func TestParseAccepts(t *testing.T) {
	for name, doc := range map[string]string{
		"default":           policy.Default(account),
		"one statement":     `{"Version": "2012-10-17", "Statement": ` + allow(rootMayDo) + `}`,
		"no version":        `{"Statement": [` + allow(rootMayDo) + `]}`,
		"old version":       `{"Version": "2008-10-17", "Id": "", "Statement": [` + allow(rootMayDo) + `]}`,
		"white space":       " \r\n\t" + document(allow(rootMayDo)) + "\n",
		"spaces in the Sid": document(allow(`"Sid": "Let all do all", ` + rootMayDo)),
		"kinds": document(allow(`"Principal": {"AWS": ["*", "` + session + `", "arn:aws-cn:iam::111122223333:role/a/b",
			"arn:aws:sts::111122223333:federated-user/bob"], "Service": ["logs.amazonaws.com"],
			"Federated": "cognito-identity.amazonaws.com", "CanonicalUser": "79a59df900b949e55d96a1e698fbaced"}, ` + all)),
		"conditions": document(allow(condition(`{"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"},
			"Bool": {"kms:GrantIsForAWSResource": true}, "NumericGreaterThan": {"aws:MultiFactorAuthAge": [1, 2.5]},
			"IpAddress": {"aws:SourceIp": ["192.0.2.0/24"]}, "ForAnyValue:StringNotLike": {"a:b": "c"}}`))),
		"no effect":       document(allow(root)),
		"a 32 KiB policy": document(allow(`"Sid": "` + strings.Repeat("s", policy.MaxSize-300) + `", ` + rootMayDo)),
	} {
		if _, err := policy.Parse(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	principal := func(s string) string { return document(allow(`"Principal": ` + s + `, ` + all)) }
	const invalid = "Policy contains a statement with one or more invalid principals."
	for _, test := range []struct{ document, want string }{
		{``, "the policy is no valid JSON"},
		{`{`, "the policy is no valid JSON"},
		{`my policy`, "the policy is no valid JSON"},
		{policy.Default(account) + `}`, "the policy is no valid JSON"},
		{strings.Replace(policy.Default(account), `"*"`, "\"\xff\"", 1), "the policy is no valid JSON"},
		{strings.Repeat("[", 100000), "the policy is no valid JSON"},
		{`{"Statement": ` + strings.Repeat("[", 100000), "the policy is no valid JSON"},
		{`{"Statement": ` + strings.Repeat(`{"Condition":`, 5000) + "1" + strings.Repeat("}", 5001), `statement 1 must have the Effect "Allow" or "Deny"`},
		{`null`, "the policy is no JSON object"},
		{`[]`, "the policy is no JSON object"},
		{`"*"`, "the policy is no JSON object"},
		{`{"Version": "2012-10-17", "Version": "2012-10-17"}`, "the policy is no valid JSON: duplicate"},
		{document(allow(`"Principal": {"AWS": "*", "AWS": "*"}, ` + all)), "the policy is no valid JSON: duplicate"},
		{`{"Statements": []}`, `the policy has the unknown element "Statements"`},
		{`{"version": "2012-10-17"}`, `the policy has the unknown element "version"`},
		{`{"Version": "2012-10-18", "Statement": []}`, `the policy's Version must be "2012-10-17" or "2008-10-17", not "2012-10-18"`},
		{`{"Version": 1}`, "the policy must have a string as its Version"},
		{`{"Id": null}`, "the policy must have a string as its Id"},
		{`{}`, "the policy must have at least one Statement"},
		{`{"Statement": []}`, "the policy must have at least one Statement"},
		{`{"Statement": null}`, "statement 1 is no JSON object"},
		{document(allow(rootMayDo), `"x"`), "statement 2 is no JSON object"},
		{document(allow(`"Actions": [], ` + rootMayDo)), `statement 1 has the unknown element "Actions"`},
		{document(allow(`"Sid": 1, ` + rootMayDo)), "statement 1 must have a string as its Sid"},
		{document(`{` + rootMayDo + `}`), `statement 1 must have the Effect "Allow" or "Deny"`},
		{document(`{"Effect": "allow", ` + rootMayDo + `}`), `statement 1 must have the Effect "Allow" or "Deny"`},
		{document(`{"Effect": ["Allow"], ` + rootMayDo + `}`), `statement 1 must have the Effect "Allow" or "Deny"`},

		{document(allow(all)), "statement 1 has no principal"},
		{principal(`{}`), "statement 1 has no principal"},
		{principal(`[]`), invalid},
		{principal(`"arn:aws:iam::111122223333:root"`), invalid},
		{principal(`{"AWS": []}`), invalid},
		{principal(`{"AWS": [1]}`), invalid},
		{principal(`{"User": "x"}`), invalid},
		{principal(`{"AWS": "alice"}`), invalid},
		{principal(`{"AWS": "11112222333"}`), invalid},
		{principal(`{"AWS": ["*", ""]}`), invalid},
		{principal(`{"AWS": "arn:aws:iam::111122223333:user/*"}`), invalid},
		{principal(`{"AWS": "arn:aws:iam::111122223333:group/g"}`), invalid},
		{principal(`{"AWS": "arn:aws:iam::1:root"}`), invalid},
		{principal(`{"AWS": "arn:aws:sts::111122223333:root"}`), invalid},
		{principal(`{"AWS": "arn:aws:sts::111122223333:assumed-role/admin"}`), invalid},
		{principal(`{"AWS": "arn:aws:iam::111122223333:user/"}`), invalid},
		{principal(`{"Service": "*"}`), invalid},
		{principal(`{"Service": "logs"}`), invalid},
		{document(allow(`"NotPrincipal": "*", ` + rootMayDo)), "statement 1 must not have both Principal and NotPrincipal"},

		{document(allow(root + `, "Action": []`)), "statement 1 must have a string or a list of strings as its Action"},
		{document(allow(root + `, "Action": {}`)), "statement 1 must have a string or a list of strings as its Action"},
		{document(allow(root + `, "NotAction": [null]`)), "statement 1 must have a string or a list of strings as its Action"},
		{document(allow(root + `, "Action": "Encrypt"`)), `statement 1 has the invalid action "Encrypt"`},
		{document(allow(root + `, "Action": "kms:"`)), `statement 1 has the invalid action "kms:"`},
		{document(allow(root + `, "Action": "kms:Put Key"`)), `statement 1 has the invalid action "kms:Put Key"`},
		{document(allow(root + `, "Action": "*", "NotAction": "*"`)), "statement 1 must not have both Action and NotAction"},
		{document(allow(root + `, "Resource": ["*", "key"]`)), `statement 1 has the invalid resource "key"`},
		{document(allow(root + `, "Resource": "*", "NotResource": "*"`)), "statement 1 must not have both Resource and NotResource"},

		{document(allow(condition(`[]`))), "statement 1 has a Condition that is no JSON object"},
		{document(allow(condition(`{"StringEqual": {"a": "b"}}`))), `statement 1 has a Condition in which "StringEqual" is no condition operator`},
		{document(allow(condition(`{"NotBool": {"a": "b"}}`))), `statement 1 has a Condition in which "NotBool" is no condition operator`},
		{document(allow(condition(`{"NullIfExists": {"a": "b"}}`))), `statement 1 has a Condition in which "NullIfExists" is no condition operator`},
		{document(allow(condition(`{"StringEquals": "a"}`))), "statement 1 has a Condition whose StringEquals is no JSON object"},
		{document(allow(condition(`{"StringEquals": {"a": {}}}`))), `statement 1 has a Condition whose StringEquals of "a" is not a value or a list of values`},
		{document(allow(condition(`{"StringEquals": {"a": [["b"]]}}`))), `statement 1 has a Condition whose StringEquals of "a" is not a value or a list of values`},
		{document(allow(condition(`{"StringEquals": {"a": []}}`))), `statement 1 has a Condition whose StringEquals of "a" is not a value or a list of values`},
	} {
		p, err := policy.Parse(test.document)
		if err == nil || p != nil {
			t.Errorf("accepted %.200s", test.document)
		} else if !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%.200s:\ngot  %v\nwant %s", test.document, err, test.want)
		}
	}
}

// FuzzParse looks for panics, and for a policy that lets alice change it although
// nothing in it speaks of her, of her account or of everyone.
func FuzzParse(f *testing.F) {
	f.Add(policy.Default(account))
	f.Add(document(allow(rootMayDo), deny(condition(`{"StringLike": {"aws:PrincipalArn": "*a?b**"}}`))))
	f.Add(document(allow(`"NotPrincipal": {"AWS": "` + alice + `"}, "NotAction": ["kms:?*"], "NotResource": "` + key + `"`)))
	f.Add(document(allow(`"Principal": {"Service": "a.b"}, ` + all)))
	f.Fuzz(func(t *testing.T, doc string) {
		p, err := policy.Parse(doc)
		if (err == nil) == (p == nil) {
			t.Fatalf("policy %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		allowed := p.AllowsPutKeyPolicy(alice, account, key)
		p.AllowsPutKeyPolicy(session, account, key)
		if allowed && !strings.ContainsAny(doc, `*\`) && !strings.Contains(doc, account) && !strings.Contains(doc, "NotPrincipal") {
			t.Errorf("alice may change\n%s", doc)
		}
	})
}
