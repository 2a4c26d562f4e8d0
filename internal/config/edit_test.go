package config

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestAddStoreKeepsCommentsAndOrder(t *testing.T) {
	path := folder(t, full)
	before, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Store{
		Name: "7", Prefix: "/seven", Tokens: []string{"spare"}, Keys: []string{"true", "k"}, Credentials: []Credential{NewCredential()},
		Regions: []string{"eu-west-1"}, RateLimit: &RateLimit{10, 20}, SampleMetadata: []byte("v1"),
	}
	file, err := AddStore(path, s)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "credentials", "7.json"); file != want {
		t.Errorf("credentials in %s, want %s", file, want)
	}
	after, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s.CredentialsFile = file
	if got := *after.Store("7"); !reflect.DeepEqual(got, s) {
		t.Errorf("added %+v, want %+v", got, s)
	}
	after.Stores = after.Stores[:len(after.Stores)-1]
	before.seen, after.seen = nil, nil
	if !reflect.DeepEqual(before, after) {
		t.Errorf("the rest changed from\n%+v to\n%+v", before, after)
	}
	expectLines(t, path, "# our proxy", "version: 1", "main:   # the first one", "# the other one", "prod:", `"7":`, "listeners:", "log:")
	expectMode(t, path, 0o600)
	expectMode(t, file, 0o600)
}

func TestAddStoreToAFileWithout(t *testing.T) {
	const token = "tokens: {main: {uri: 'pkcs11:token=a'}}\n"
	for _, text := range []string{minimal + token, minimal + token + "stores: {}\n"} {
		path := folder(t, text)
		file, err := AddStore(path, Store{Name: "first", Tokens: []string{"main"}, CredentialsFile: "secret/a.json"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Stores) != 1 || c.Stores[0].CredentialsFile != file || len(c.Stores[0].Keys) != 0 {
			t.Errorf("stores %+v", c.Stores)
		}
		expectMode(t, filepath.Dir(file), 0o700|fs.ModeDir)
		expectLines(t, path, "stores:", "  first:", "    tokens: [main]", "    credentials: secret/a.json")
	}
}

// TestEditsLeaveTheRestOfTheTextAlone looks at the text, the other tests at its
// meaning.
func TestEditsLeaveTheRestOfTheTextAlone(t *testing.T) {
	const head, foot = "# head\n\nversion:   1\n\ntokens:\n    main:\n        uri: 'pkcs11:token=a'   # x\n\n", "\n# The listeners\nlisteners: [ {address: 127.0.0.1:0, plain_http: true} ]\n"
	const store = "default:\n        tokens: [main]\n        credentials: credentials/default.json\n"
	const added = "n:\n  prefix: /n\n  tokens: [main]\n  keys: []\n  credentials: credentials/n.json\n"
	indent := func(n int, s string) string {
		return regexp.MustCompile("(?m)^(.)").ReplaceAllString(s, strings.Repeat(" ", n)+"$1")
	}
	for name, test := range map[string]struct {
		before, after string
		keys          bool // add keys rather than a store
	}{
		"lines":         {head + "stores:\n    " + store + "        keys: [a]\n        # old\n" + foot, head + "stores:\n    " + store + "        keys: [a]\n        # old\n" + indent(4, strings.Replace(added, "n:", `"n":`, 1)) + foot, false},
		"at the end":    {head + foot + "stores:\n  " + store + "        keys: [a]", head + foot + "stores:\n  " + store + "        keys: [a]\n" + indent(2, strings.Replace(added, "n:", `"n":`, 1)), false},
		"empty":         {head + "stores: {} # none\n" + foot, head + "stores: # none\n" + indent(2, strings.Replace(added, "n:", `"n":`, 1)) + foot, false},
		"missing":       {head + foot, head + foot + "stores:\n" + indent(2, strings.Replace(added, "n:", `"n":`, 1)), false},
		"keys brackets": {head + "stores:\n    " + store + "        keys: [a , 'b' ]  # two\n" + foot, head + "stores:\n    " + store + "        keys: [a , 'b' , k, \"7\"]  # two\n" + foot, true},
		"keys none":     {head + "stores:\n    " + store + "        keys: []\n" + foot, head + "stores:\n    " + store + "        keys: [k, \"7\"]\n" + foot, true},
		"keys lines":    {head + "stores:\n    " + store + "        keys:\n        - a # x\n\n" + foot, head + "stores:\n    " + store + "        keys:\n        - a # x\n        - k\n        - \"7\"\n\n" + foot, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := folder(t, test.before)
			var err error
			if test.keys {
				err = AddStoreKeys(path, "default", "k", "7")
			} else {
				_, err = AddStore(path, Store{Name: "n", Prefix: "/n", Tokens: []string{"main"}})
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != test.after {
				t.Errorf("%v, got\n%s\nwant\n%s", err, got, test.after)
			}
		})
	}
}

// TestEditsOfUnusualTextFallBack has texts that cannot be changed in place.
func TestEditsOfUnusualTextFallBack(t *testing.T) {
	const rest = "version: 1\nlisteners: [{address: 127.0.0.1:0, plain_http: true}]\ntokens: {main: {uri: 'pkcs11:a=b'}}\n"
	const store = "tokens: [main], credentials: credentials/default.json, keys: "
	for _, text := range []string{
		rest + "stores: {default: {" + store + "[a]}}\n",
		rest + "stores: {default: {" + store + "[\n  a, # ]\n  b\n ]}}\n",
		rest + "stores: {default: {" + store + "[a,]}}\n...\n",
		utf16LE(rest + "stores: {default: {" + store + "[a]}}\n"),
		strings.ReplaceAll(rest, "\n", "\r") + "stores: {default: {" + store + "[a]}}\r",
		"{version: 1, listeners: [{address: '127.0.0.1:0', plain_http: true}], tokens: {main: {uri: 'pkcs11:a=b'}}, stores: {default: {" + store + "[a]}}}",
	} {
		path := folder(t, text)
		if err := AddStoreKeys(path, "default", "k"); err != nil {
			t.Fatal(err)
		}
		if _, err := AddStore(path, Store{Name: "new", Prefix: "/n", Tokens: []string{"main"}, Keys: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if keys := c.Store("default").Keys; keys[0] != "a" || keys[len(keys)-1] != "k" || c.Store("new") == nil {
			t.Errorf("after the edits of\n%s\nstores are %+v", text, c.Stores)
		}
	}
}

// utf16LE encodes ASCII text.
func utf16LE(s string) string {
	return "\xff\xfe" + strings.Join(strings.Split(s, ""), "\x00") + "\x00"
}

func TestAddStoreRefuses(t *testing.T) {
	good := Store{Name: "new", Prefix: "/new", Tokens: []string{"main"}, KeyPattern: "*"}
	for _, test := range []struct {
		change func(*Store)
		want   string
		is     error
	}{
		{func(s *Store) { s.Name = "prod" }, "key store prod exists already", ErrExists},
		{func(s *Store) { s.Name = "a b" }, "must be a name", nil},
		{func(s *Store) { s.Name = "../up" }, "must be a name", nil},
		{func(s *Store) { s.Prefix = "" }, "another prefix", nil},
		{func(s *Store) { s.Tokens = []string{"none"} }, "must be the name of a token", nil},
		{func(s *Store) { s.Keys = []string{"a/b"}; s.KeyPattern = "" }, "must be an external key id", nil},
		{func(s *Store) { s.CredentialsFile = "credentials/prod.json" }, "another credentials file", nil},
		{func(s *Store) { s.CredentialsFile = "tls/server.key" }, "exists already, but no store uses it", ErrExists},
	} {
		path := folder(t, full)
		before := contents(t, filepath.Dir(path))
		s := good
		test.change(&s)
		_, err := AddStore(path, s)
		if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%v, want %q", err, test.want)
		}
		if after := contents(t, filepath.Dir(path)); !reflect.DeepEqual(before, after) {
			t.Errorf("%s: a refused edit changed the folder", test.want)
		}
	}
}

func TestAddStoreKeys(t *testing.T) {
	path := folder(t, full)
	if err := AddStoreKeys(path, "default", "b", "a", "1.5"); err != nil {
		t.Fatal(err)
	}
	expectLines(t, path, `    keys: [a, "7", b, "1.5"]`)
	for store, want := range map[string]string{"prod": "takes its keys by the pattern prod-*", "none": "does not exist"} {
		if err := AddStoreKeys(path, store, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("store %s: %v, want %q", store, err, want)
		}
	}
	if err := AddStoreKeys(path, "default", "a b"); err == nil || !strings.Contains(err.Error(), "must be an external key id") {
		t.Errorf("bad id: %v", err)
	}
}

func TestAddAndRevokeCredential(t *testing.T) {
	path := folder(t, full)
	cred, file, err := AddCredential(path, "default")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Store("default").Credentials; len(got) != 2 || got[1] != cred || got[0].SecretAccessKey != testSecret {
		t.Errorf("credentials %v, want the old one and %v", got, cred)
	}
	expectMode(t, file, 0o600)
	if err := RevokeCredential(path, "default", testID, false); err != nil {
		t.Fatal(err)
	}
	if err := RevokeCredential(path, "default", testID, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoked twice: %v, want ErrNotFound", err)
	}
	if err := RevokeCredential(path, "default", cred.AccessKeyID, false); !errors.Is(err, ErrLastCredential) {
		t.Errorf("the last: %v, want ErrLastCredential", err)
	}
	if err := RevokeCredential(path, "default", cred.AccessKeyID, true); err != nil {
		t.Errorf("the last, on purpose: %v", err)
	}
	if c, err = Load(path); err != nil || len(c.Store("default").Credentials) != 0 {
		t.Errorf("all revoked, but %v, %v", c, err)
	}
	if _, _, err := AddCredential(path, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no store: %v, want ErrNotFound", err)
	}
}

func TestAddAndDeleteIdentity(t *testing.T) {
	path := folder(t, minimalKMS)
	id := NewIdentity("444455556666")
	file, err := AddIdentity(path, id)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "credentials", "kms.json"); file != want {
		t.Errorf("added in %s, want %s", file, want)
	}
	expectMode(t, file, 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.KMS.Identities; !reflect.DeepEqual(got, append(testIdentities(), id)) {
		t.Errorf("identities %+v, want those before and %+v", got, id)
	}
	before := contents(t, filepath.Dir(path))
	if _, err := AddIdentity(path, Identity{AccessKeyID: "test", SecretAccessKey: "other", Account: "444455556666"}); !errors.Is(err, ErrExists) {
		t.Errorf("added twice: %v, want ErrExists", err)
	}
	if _, _, err := DeleteIdentity(path, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted what was not there: %v, want ErrNotFound", err)
	}
	if _, err := AddIdentity(path, Identity{AccessKeyID: "a b", SecretAccessKey: testSecret + " ", Account: "1"}); err == nil ||
		strings.Count(err.Error(), "must be") != 3 || strings.Contains(err.Error(), testSecret) {
		t.Errorf("a bad one: %v", err)
	}
	if after := contents(t, filepath.Dir(path)); !reflect.DeepEqual(before, after) {
		t.Error("a refused edit changed the folder")
	}
	for _, name := range []string{"test", id.AccessKeyID, "AKIAIOSFODNN7EXAMPLE"} {
		if id, _, err := DeleteIdentity(path, name); err != nil || id.AccessKeyID != name {
			t.Errorf("deleted %v, %v, want %s", id, err, name)
		}
	}
	if c, err = Load(path); err != nil || len(c.KMS.Identities) != 0 {
		t.Errorf("all deleted, but %v, %v", c, err)
	}
}

func TestAddIdentityMakesTheFile(t *testing.T) {
	path := folder(t, strings.Replace(minimalKMS, "credentials/kms.json", "secret/who.json", 1))
	id := Identity{AccessKeyID: "test", SecretAccessKey: "test", Account: "000000000000"}
	file, err := AddIdentity(path, id)
	if err != nil {
		t.Fatal(err)
	}
	expectMode(t, file, 0o600)
	expectMode(t, filepath.Dir(file), 0o700|fs.ModeDir)
	if c, err := Load(path); err != nil || len(c.KMS.Identities) != 1 || c.KMS.Identities[0] != testIdentities()[1] {
		t.Errorf("%v, %v, want the one with its ARN", c, err)
	}
}

func TestIdentityEditsRefuse(t *testing.T) {
	if _, err := AddIdentity(folder(t, minimal), NewIdentity("444455556666")); !errors.Is(err, ErrNoKMS) {
		t.Errorf("without a section: %v, want ErrNoKMS", err)
	}
	path := folder(t, minimalKMS)
	put(t, filepath.Join(filepath.Dir(path), "credentials", "kms.json"), `{"identities": [{}]}`)
	before := contents(t, filepath.Dir(path))
	if _, err := AddIdentity(path, NewIdentity("444455556666")); err == nil || !strings.Contains(err.Error(), "identities[0].account") {
		t.Errorf("a broken file: %v", err)
	}
	if after := contents(t, filepath.Dir(path)); !reflect.DeepEqual(before, after) {
		t.Error("a broken file was edited")
	}
}

func TestEditRefusesABrokenFile(t *testing.T) {
	path := folder(t, strings.Replace(full, "sessions: 32", "sessions: many", 1))
	if _, _, err := AddCredential(path, "default"); err == nil || !strings.Contains(err.Error(), "tokens.main.sessions") {
		t.Errorf("got %v, want the error of the file", err)
	}
}

// The edits of many goroutines in several processes are all there in the end.
func TestConcurrentEditsLoseNothing(t *testing.T) {
	const processes, edits = 3, 4
	path := folder(t, full)
	var wg sync.WaitGroup
	for i := range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperEdits$")
		cmd.Env = append(os.Environ(), "HYOK_TEST_EDIT="+path, fmt.Sprintf("HYOK_TEST_NAME=p%d", i), fmt.Sprintf("HYOK_TEST_EDITS=%d", edits))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(c.Store("default").Credentials), 1+processes*edits; got != want {
		t.Errorf("%d credentials, want %d", got, want)
	}
	if got, want := len(c.Store("default").Keys), 2+processes*edits; got != want {
		t.Errorf("%d keys, want %d", got, want)
	}
	if got, want := len(c.Stores), 2+processes*edits; got != want {
		t.Errorf("%d stores, want %d", got, want)
	}
	if got, want := len(c.KMS.Identities), 2+processes*edits; got != want {
		t.Errorf("%d identities, want %d", got, want)
	}
}

// TestHelperEdits is the body of the processes of the test above.
func TestHelperEdits(t *testing.T) {
	path, name := os.Getenv("HYOK_TEST_EDIT"), os.Getenv("HYOK_TEST_NAME")
	if path == "" {
		return
	}
	var edits int
	if _, err := fmt.Sscan(os.Getenv("HYOK_TEST_EDITS"), &edits); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range edits {
		wg.Go(func() {
			unique := fmt.Sprintf("%s-%d", name, i)
			_, _, err := AddCredential(path, "default")
			_, err2 := AddStore(path, Store{Name: unique, Prefix: "/" + unique, Tokens: []string{"main"}})
			_, err3 := AddIdentity(path, NewIdentity("444455556666"))
			if err := errors.Join(err, err2, err3, AddStoreKeys(path, "default", unique)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// expectLines fails unless the file has the lines in this order, others between.
func expectLines(t *testing.T, path string, want ...string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	scanner := bufio.NewScanner(f)
	var all []string
	for scanner.Scan() {
		all = append(all, scanner.Text())
		if len(want) > 0 && strings.Contains(scanner.Text(), want[0]) {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("no line %q, or not in its place, in\n%s", want[0], strings.Join(all, "\n"))
	}
}

func expectMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Mode() != want {
		t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
	}
}

// contents returns all files below dir, but for locks.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || slices.Contains([]string{".lock"}, filepath.Ext(name)) {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		all[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
