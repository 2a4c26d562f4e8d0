package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/config"
)

func TestIdentityLifeCycle(t *testing.T) {
	b := newBench(t, withKMS)
	o := b.run(0, "identity", "create", "--account", "111122223333")
	first := b.config().KMS.Identities[0]
	o.expect(t, "Identity "+first.AccessKeyID+" is arn:aws:iam::111122223333:root.\n", "is in "+b.path("credentials/kms.json"))
	b.expectMode("credentials/kms.json", 0o600)
	if !strings.HasPrefix(first.AccessKeyID, "HYOK") || len(first.AccessKeyID) != 20 || len(first.SecretAccessKey) != 40 || first.Created.IsZero() {
		t.Errorf("made %s with a secret of %d characters", first.AccessKeyID, len(first.SecretAccessKey))
	}

	b.run(0, "identity", "create", "--arn", "arn:aws:iam::111122223333:user/alice") // the account is in it
	if err := os.WriteFile(b.path("secret"), []byte("fromAFile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(0, "identity", "create", "--access-key-id", "AKIAIOSFODNN7EXAMPLE", "--secret-file", b.path("secret")) // of the only account
	b.runWith("test\n", 0, "identity", "create", "--account", "000000000000", "--access-key-id", "test", "--secret-file", "-")
	all := b.config().KMS.Identities
	if len(all) != 4 || all[1].ARN != "arn:aws:iam::111122223333:user/alice" || all[2].Account != "111122223333" || all[2].SecretAccessKey != "fromAFile" ||
		all[3].AccessKeyID != "test" || all[3].SecretAccessKey != "test" || all[3].ARN != "arn:aws:iam::000000000000:root" {
		t.Fatalf("identities %v", all)
	}

	var views []identityView
	b.runOpenly(0, "identity", "list", "-o", "json").decode(t, &views)
	if len(views) != 4 || views[1].ARN != all[1].ARN || views[3].AccessKeyID != "test" || views[0].SecretAccessKey != "" || views[0].File != b.path("credentials/kms.json") {
		t.Errorf("list -o json: %+v", views)
	}
	list := b.runOpenly(0, "identity", "list") // whose secret "test" is also an id
	list.expect(t, "ACCESS KEY ID", "PRINCIPAL", first.AccessKeyID, "arn:aws:iam::000000000000:root")
	if strings.Contains(list.stdout, "fromAFile") || strings.Contains(list.stdout, first.SecretAccessKey) {
		t.Errorf("list shows a secret: %s", list.stdout)
	}

	b.run(0, "identity", "delete", "test", "--yes").expect(t, "Identity test was deleted.\n")
	b.run(3, "identity", "delete", first.AccessKeyID).expect(t, "not confirmed", "--yes")
	b.run(1, "identity", "delete", "test", "--yes").expect(t, `identity "test" does not exist`)
	var view identityView
	b.run(0, "identity", "delete", first.AccessKeyID, "--yes", "-o", "json").decode(t, &view)
	if view.AccessKeyID != first.AccessKeyID || len(b.config().KMS.Identities) != 2 {
		t.Errorf("deleted %+v, left %v", view, b.config().KMS.Identities)
	}
}

func TestIdentityCreateRefuses(t *testing.T) {
	b := newBench(t, withKMS)
	b.run(0, "identity", "create", "--account", "111122223333", "--access-key-id", "taken")
	b.run(0, "identity", "create", "--account", "444455556666")
	before, err := os.ReadFile(b.path("credentials/kms.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		stdin string
		code  int
		args  []string
		want  string
	}{
		{"", 2, nil, "kms.json has 2 accounts: say by --account which one to use"},
		{"", 2, []string{"--account", "1"}, "hyok: account must be 12 digits"},
		{"", 2, []string{"--arn", "alice"}, "--arn must be that of a principal"},
		{"", 2, []string{"--account", "444455556666", "--arn", "arn:aws:iam::111122223333:user/alice"}, "arn must have the account"},
		{"", 2, []string{"--account", "444455556666", "--access-key-id", "a b"}, "accessKeyId must be 1 to 128 of"},
		{"", 1, []string{"--account", "444455556666", "--access-key-id", "taken"}, "identity taken exists already"},
		{"", 2, []string{"--account", "444455556666", "--secret-file", "none"}, "secret access key: stat none"},
		{"", 2, []string{"--account", "444455556666", "--secret-file", "-"}, "secretAccessKey must be 1 to 256"},
		{"canary secret", 2, []string{"--account", "444455556666", "--secret-file", "-"}, "secretAccessKey must be 1 to 256"},
		{strings.Repeat("canary", 700), 2, []string{"--account", "444455556666", "--secret-file", "-"}, "there is too much of it"},
		{"", 3, []string{"--account", "444455556666", "--show-secret"}, "to a terminal, or with -o json"},
		{"", 2, []string{"test"}, "usage: hyok identity create"},
	} {
		o := b.runWith(test.stdin, test.code, append([]string{"identity", "create"}, test.args...)...)
		o.expect(t, test.want)
		if strings.Contains(o.stderr, "canary") {
			t.Errorf("the error repeats the secret: %s", o.stderr)
		}
	}
	if after, err := os.ReadFile(b.path("credentials/kms.json")); err != nil || string(after) != string(before) {
		t.Errorf("a refused command changed the file: %v", err)
	}
	without := newBench(t, oneToken)
	without.run(1, "identity", "create", "--account", "111122223333").expect(t, "has no section kms")
	without.run(1, "identity", "create").expect(t, "has no section kms")
	without.run(1, "identity", "list").expect(t, "has no section kms")
}

func TestIdentityCreateShowsTheSecretOnlyWhenAsked(t *testing.T) {
	b := newBench(t, withKMS)
	var view identityView
	b.run(0, "identity", "create", "--account", "111122223333", "-o", "json").decode(t, &view)
	if view.SecretAccessKey != "" {
		t.Error("-o json has the secret unasked")
	}
	b.runOpenly(0, "identity", "create", "--show-secret", "-o", "json").decode(t, &view)
	if all := b.config().KMS.Identities; view.SecretAccessKey != all[1].SecretAccessKey || view.SecretAccessKey == "" {
		t.Error("the secret shown is not the one in the file")
	}
}

func TestIdentityCompletion(t *testing.T) {
	b := newBench(t, withKMS)
	b.run(0, "identity", "create", "--account", "111122223333", "--access-key-id", "one")
	data := &dataFlags{config: filepath.Join(b.dir, config.FileName)}
	if got, _ := data.completeIdentity(nil, nil, ""); len(got) != 1 || got[0] != "one" {
		t.Errorf("completes %v", got)
	}
	if got, _ := data.completeIdentity(nil, []string{"one"}, ""); len(got) != 0 {
		t.Errorf("completes %v after the one argument", got)
	}
}
