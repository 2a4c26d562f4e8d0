package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/proxy"
)

// folder is a data folder on which a test runs commands.
type folder struct {
	t   *testing.T
	dir string
}

// outcome is what a command printed and its exit code.
type outcome struct {
	stdout, stderr string
	code           int
}

const oneToken = `# our proxy
version: 1
tokens:
  main: {uri: "pkcs11:token=hyok"}
listeners:
  - address: 127.0.0.1:8080
    plain_http: true
`

// withKMS is oneToken with the embedded KMS, and no file of identities yet.
const withKMS = oneToken + `kms:
  token: main
  identities: credentials/kms.json
  listeners:
    - address: 127.0.0.1:8444
      plain_http: true
`

func newBench(t *testing.T, text string) *folder {
	t.Helper()
	b := &folder{t, t.TempDir()}
	if err := os.WriteFile(b.path(config.FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *folder) path(name string) string { return filepath.Join(b.dir, name) }

// run runs a command, and fails the test if it exits with another code or prints
// a secret.
func (b *folder) run(code int, args ...string) outcome {
	b.t.Helper()
	o := b.runOpenly(code, args...)
	for _, secret := range b.secrets() {
		if strings.Contains(o.stdout+o.stderr, secret) {
			b.t.Errorf("hyok %v prints a secret: %s%s", args, o.stdout, o.stderr)
		}
	}
	return o
}

// runOpenly is run for a command that may print a secret.
func (b *folder) runOpenly(code int, args ...string) outcome {
	b.t.Helper()
	return b.runWith("", code, args...)
}

// runWith is runOpenly with this on standard input.
func (b *folder) runWith(stdin string, code int, args ...string) outcome {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	root := &cobra.Command{Use: "hyok"}
	root.AddCommand(newStoreCommand(), newCredentialCommand(), newIdentityCommand(), newConfigCommand())
	root.SetArgs(append(args, "--data", b.dir))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	o := outcome{code: execute(b.t.Context(), root)}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	if o.code != code {
		b.t.Fatalf("hyok %v: code %d, want %d: %s%s", args, o.code, code, o.stdout, o.stderr)
	}
	return o
}

// config returns the configuration, which must be a good one.
func (b *folder) config() *config.Config {
	b.t.Helper()
	c, err := config.Load(b.path(config.FileName))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// secrets returns all secrets of the data folder.
func (b *folder) secrets() []string {
	c, err := config.Read(b.path(config.FileName))
	if err != nil {
		return nil // the test broke it
	}
	var all []string
	for _, s := range c.Stores {
		for _, cred := range s.Credentials {
			all = append(all, cred.SecretAccessKey)
		}
	}
	if c.KMS != nil {
		for _, id := range c.KMS.Identities {
			all = append(all, id.SecretAccessKey)
		}
	}
	return all
}

func (o outcome) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(o.stdout+o.stderr, w) {
			t.Errorf("got\n%s%s\nwithout %q", o.stdout, o.stderr, w)
		}
	}
}

func (o outcome) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.stdout), into, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v in %s", err, o.stdout)
	}
}

func (b *folder) expectMode(name string, want fs.FileMode) {
	b.t.Helper()
	if info, err := os.Stat(b.path(name)); err != nil || info.Mode() != want {
		b.t.Errorf("%s has mode %v, %v, want %v", name, info.Mode(), err, want)
	}
}

func TestStoreCreateListShow(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "default", "--key", "a", "--key", "b").
		expect(t, "/keystores/default/kms/xks/v1", b.path("credentials/default.json"), "hyok store export default")
	b.run(0, "store", "create", "prod", "--prefix", "", "--key-pattern", "prod-*", "--region", "eu-central-1", "--rate", "1800", "--token", "main")
	b.expectMode(config.FileName, 0o600)
	b.expectMode("credentials", fs.ModeDir|0o700)
	b.expectMode("credentials/prod.json", 0o600)

	c := b.config()
	if s := c.Store("default"); s.Prefix != "/keystores/default" || len(s.Keys) != 2 || s.Tokens[0] != "main" || len(s.Credentials) != 1 {
		t.Errorf("default is %+v", *s)
	}
	if s := c.Store("prod"); s.Prefix != "" || s.KeyPattern != "prod-*" || s.Regions[0] != "eu-central-1" || s.RateLimit.PerSecond != 1800 {
		t.Errorf("prod is %+v", *s)
	}
	const table = `NAME     URI PATH                       TOKENS  KEYS            CREDENTIALS
default  /keystores/default/kms/xks/v1  main    2 listed        1
prod     /kms/xks/v1                    main    pattern prod-*  1
`
	if o := b.run(0, "store", "list"); o.stdout != table {
		t.Errorf("got\n%s\nwant\n%s", o.stdout, table)
	}
	var views []storeView
	b.run(0, "store", "list", "-o", "json").decode(t, &views)
	if len(views) != 2 || views[0].Keys[1] != "b" || views[1].AccessKeyIDs[0] != c.Store("prod").Credentials[0].AccessKeyID {
		t.Errorf("list -o json: %+v", views)
	}
	b.run(0, "store", "show", "prod").expect(t, "prod-*", "eu-central-1", "1800/s, burst 1800", views[1].AccessKeyIDs[0])
	var view storeView
	b.run(0, "store", "show", "default", "-o", "json").decode(t, &view)
	if view.URIPath != "/keystores/default/kms/xks/v1" {
		t.Errorf("show -o json: %+v", view)
	}
}

func TestStoreCreateRefuses(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "prod")
	for _, test := range []struct {
		code int
		args []string
		want string
	}{
		{2, []string{"a b"}, "NAME must be a name"},
		{2, []string{"x", "--prefix", "/x/"}, "--prefix must be empty, or"},
		{2, []string{"x", "--key", "a/b"}, "--key must be an external key id"},
		{2, []string{"x", "--key", "a", "--key-pattern", "*"}, "either --key or --key-pattern"},
		{2, []string{"x", "--rate", "0"}, "--rate must be 1 at least"},
		{1, []string{"x", "--token", "none"}, "stores.x.tokens[0]: must be the name of a token"},
		{1, []string{"x", "--region", "Frankfurt"}, "stores.x.regions[0]: must be an AWS Region"},
		{1, []string{"prod"}, "key store prod exists already"},
	} {
		b.run(test.code, append([]string{"store", "create"}, test.args...)...).expect(t, test.want)
	}
	two := newBench(t, strings.Replace(oneToken, "listeners", "  spare: {uri: \"pkcs11:token=b\"}\nlisteners", 1))
	two.run(2, "store", "create", "x").expect(t, "has 2 tokens: say by --token")
	b.run(1, "store", "show", "none").expect(t, `key store "none" does not exist`, "hyok store list")
}

func TestStoreExport(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "prod", "--prefix", "/prod")
	b.run(0, "credential", "create", "prod")
	creds := b.config().Store("prod").Credentials
	out := b.path("prod.json")
	b.run(0, "store", "export", "prod", "--out", out).expect(t, out, creds[1].AccessKeyID)
	b.expectMode("prod.json", 0o600)
	expectConsoleFile(t, out, creds[1])

	b.run(3, "store", "export", "prod", "--out", out, "--access-key-id", creds[0].AccessKeyID).expect(t, "--force replaces it")
	if err := os.Chmod(out, 0o644); err != nil {
		t.Fatal(err)
	}
	b.run(0, "store", "export", "prod", "--out", out, "--access-key-id", creds[0].AccessKeyID, "--force", "-o", "json")
	b.expectMode("prod.json", 0o600)
	expectConsoleFile(t, out, creds[0])

	b.run(3, "store", "export", "prod", "--out", b.dir, "--force").expect(t, "is not a regular file")
	b.run(1, "store", "export", "prod", "--out", b.path("x"), "--access-key-id", "NONE").expect(t, "does not exist")
	var file consoleFile
	b.runOpenly(0, "store", "export", "prod", "--out", "-").decode(t, &file)
	if file.Credential.SecretAccessKey != creds[1].SecretAccessKey {
		t.Error("standard output has another secret")
	}
}

// expectConsoleFile compares with the form that AWS documents.
func expectConsoleFile(t *testing.T, path string, c config.Credential) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"XksProxyUriPath":"/prod/kms/xks/v1","XksProxyAuthenticationCredential":{"AccessKeyId":"` + c.AccessKeyID + `","RawSecretAccessKey":"` + c.SecretAccessKey + `"}}`
	if got := strings.NewReplacer(" ", "", "\n", "").Replace(string(data)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCredentialLifeCycle(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "prod")
	b.run(0, "store", "create", "other")
	first := b.config().Store("prod").Credentials[0].AccessKeyID
	o := b.run(0, "credential", "create", "prod")
	second := b.config().Store("prod").Credentials[1].AccessKeyID
	o.expect(t, second, b.path("credentials/prod.json"))
	b.expectMode("credentials/prod.json", 0o600)

	if o := b.run(0, "credential", "list", "prod"); strings.Count(o.stdout, "\n") != 3 {
		t.Errorf("list of prod: %s", o.stdout)
	}
	b.run(0, "credential", "list").expect(t, "STORE", first, second, "other")
	var views []credentialView
	b.run(0, "credential", "list", "-o", "json").decode(t, &views)
	if len(views) != 3 || views[1].AccessKeyID != second || views[1].Created.IsZero() {
		t.Errorf("list -o json: %+v", views)
	}

	b.run(3, "credential", "revoke", "prod", first).expect(t, "not confirmed", "--yes")
	b.run(0, "credential", "revoke", "prod", first, "--yes").expect(t, "was revoked")
	b.run(1, "credential", "revoke", "prod", first, "--yes").expect(t, "does not exist")
	b.run(3, "credential", "revoke", "prod", second, "--yes").expect(t, "is the last credential", "--force")
	if got := b.config().Store("prod").Credentials; len(got) != 1 || got[0].AccessKeyID != second {
		t.Errorf("left: %v", got)
	}
	b.run(0, "credential", "revoke", "prod", second, "--yes", "--force", "-o", "json")
	b.run(1, "store", "export", "prod").expect(t, "hyok credential create prod")
	b.run(1, "credential", "create", "none").expect(t, `key store "none" does not exist`)
}

func TestCredentialCreateShowsTheSecretOnlyWhenAsked(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "prod")
	var view credentialView
	b.run(0, "credential", "create", "prod", "-o", "json").decode(t, &view)
	if view.SecretAccessKey != "" {
		t.Error("-o json has the secret unasked")
	}
	b.run(3, "credential", "create", "prod", "--show-secret").expect(t, "to a terminal, or with -o json")
	if n := len(b.config().Store("prod").Credentials); n != 2 {
		t.Errorf("%d credentials after a refusal, want 2", n)
	}
	b.runOpenly(0, "credential", "create", "prod", "--show-secret", "-o", "json").decode(t, &view)
	if creds := b.config().Store("prod").Credentials; view.SecretAccessKey != creds[2].SecretAccessKey {
		t.Error("the secret shown is not the one in the file")
	}
}

func TestConfigCheckOfTheKMS(t *testing.T) {
	served := strings.Replace(withKMS, "token=hyok", "token=hyok?module-path=/m.so&pin-source=file:pin", 1)
	b := newBench(t, served)
	b.run(1, "config", "check").expect(t, "credentials/kms.json: does not exist")
	b.run(0, "identity", "create", "--account", "111122223333")
	b.run(1, "config", "check").expect(t, "no key store", "tokens.main: ")
	if err := os.WriteFile(b.path("pin"), []byte("123456\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(0, "store", "create", "prod")
	b.run(0, "config", "check").expect(t, "is good: 1 token, 1 key store, 1 listener; the embedded KMS: 1 listener, 1 identity, 0 clusters\n")

	alone := served[:strings.Index(served, "listeners:")] + served[strings.Index(served, "kms:"):]
	alone = strings.Replace(alone, "tokens:", "tokens:\n  hsm: {uri: \"pkcs11:token=hsm?module-path=/m.so\"}", 1) + "  cloudhsm_clusters: {cluster-abcdefghijk: {token: hsm}}\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(b.path(config.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(alone)
	var view checkView
	b.run(0, "config", "check", "-o", "json").decode(t, &view)
	if !view.Good || view.Tokens != 2 || view.Listeners != 0 || view.KMS == nil || *view.KMS != (kmsView{1, 1, 1}) {
		t.Errorf("check -o json: %+v", view)
	}
	for _, test := range []struct{ old, new, want string }{
		{"file:pin", "file:none", "tokens.main: "},
		{"token=hsm?", "model=hsm?", "tokens.hsm: "},
		{"token=hsm?", "fruit=hsm?", "tokens.hsm: "},
		{"plain_http: true", "tls: {certificate: c.crt, key: \"pkcs11:object=a\"}", "c.crt: does not exist"},
	} {
		write(strings.Replace(alone, test.old, test.new, 1))
		b.run(1, "config", "check").expect(t, test.want)
	}
}

func TestConfigCheckOfAKeyURIOfTheKMS(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                 "",
		"pkcs11:object=a":                  "listener 127.0.0.1:1: pkcs11:object=a names no token",
		"pkcs11:fruit=a":                   "listener 127.0.0.1:1: ",
		"pkcs11:token=a?module-path=/m.so": "",
		"pkcs11:token=a;object=b":          "names no module",
	} {
		l := config.Listener{Address: "127.0.0.1:1", TLS: &config.TLS{KeyURI: config.URI(uri)}}
		err := proxy.Check(&config.Config{KMS: &config.KMS{Listeners: []config.Listener{l}}})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	served := strings.Replace(oneToken, "token=hyok", "token=hyok?module-path=/m.so&pin-source=file:pin", 1)
	b := newBench(t, served)
	if err := os.WriteFile(b.path("pin"), []byte("123456\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(1, "config", "check").expect(t, "no key store")
	b.run(0, "store", "create", "prod")
	b.run(0, "config", "check").expect(t, "is good: 1 token, 1 key store, 1 listener")
	var view checkView
	b.run(0, "config", "check", "-o", "json").decode(t, &view)
	if !view.Good || view.Tokens != 1 || view.Listeners != 1 || view.File != b.path(config.FileName) {
		t.Errorf("check -o json: %+v", view)
	}
	b.run(2, "config", "check", "x.yaml").expect(t, "give either FILE or")

	b = newBench(t, strings.Replace(oneToken, "version: 1", "version: one\nlimit: 1", 1))
	b.run(1, "config", "check").expect(t, "hyok.yaml:2:10: version: must be 1", "\nhyok: ", "hyok.yaml:3:1: unknown name")
	b.run(1, "config", "check", "-o", "json").decode(t, &view)
	if view.Good || len(view.Errors) != 2 || view.Errors[0].Line != 2 || view.Errors[0].Name != "version" {
		t.Errorf("check -o json: %+v", view)
	}
	b.run(1, "store", "create", "x").expect(t, "version: must be 1")
}

func TestEveryCommandHasHelpAndAnExample(t *testing.T) {
	for _, group := range []*cobra.Command{newStoreCommand(), newCredentialCommand(), newIdentityCommand(), newConfigCommand()} {
		if group.Long == "" {
			t.Errorf("%s has no help", group.CommandPath())
		}
		for _, cmd := range group.Commands() {
			if cmd.Long == "" || !strings.HasPrefix(cmd.Example, "  $ hyok "+cmd.CommandPath()) {
				t.Errorf("%s has no help or no example", cmd.CommandPath())
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t, oneToken)
	b.run(0, "store", "create", "prod")
	data := &dataFlags{data: b.dir}
	if got, _ := data.completeCredential(nil, nil, ""); len(got) != 1 || got[0] != "prod" {
		t.Errorf("stores: %v", got)
	}
	if got, _ := data.completeCredential(nil, []string{"prod"}, ""); len(got) != 1 || got[0] != b.config().Stores[0].Credentials[0].AccessKeyID {
		t.Errorf("credentials: %v", got)
	}
}
