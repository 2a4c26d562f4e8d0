package config

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad loads any text as the configuration: it never panics or repeats a
// marked value, and what is accepted keeps its meaning when it is written back.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{full, minimal, minimalKMS, "kms: {cloudhsm_clusters: {cluster-abcdefghijk: {token: CanaryPIN}, a: {}}, vault: CanaryPIN, data: 1}", "", "a: &a [*a]", "version: !!int x", "? {a: b}\n: c", "stores: {a: {keys: [1, CanaryPIN]}}", "<<: {version: 1}"} {
		f.Add(seed)
	}
	path := folder(f, "")
	f.Fuzz(func(t *testing.T, text string) {
		put(t, path, text)
		c, err := Load(path)
		if err != nil {
			if strings.Contains(err.Error(), testPIN) {
				t.Errorf("the error repeats a value: %v", err)
			}
			return
		}
		checkInvariants(t, c)
		doc, err := parseDocument(path, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		again, err := (&editing{config: c, doc: doc}).encode()
		if err != nil {
			t.Fatalf("accepted, but not when written back: %v", err)
		}
		put(t, path, string(again))
		c2, err := Load(path)
		if err != nil {
			t.Fatalf("accepted, but not when written back: %v\n%s", err, again)
		}
		c.seen, c2.seen = nil, nil
		checkEdits(t, c, []byte(text))
		if !reflect.DeepEqual(c, c2) {
			t.Errorf("written back, it means something else:\n%+v\n%+v", c, c2)
		}
	})
}

// checkEdits edits an accepted file: the change is there and nothing else is.
func checkEdits(t *testing.T, c *Config, data []byte) {
	t.Helper()
	for i := range c.Stores {
		if c.Stores[i].Name == "new" || c.Stores[i].Prefix == "/new" || c.Stores[i].CredentialsFile == c.Dir()+"/new.json" {
			return
		}
	}
	if len(c.Tokens) == 0 || len(c.Listeners) == 0 { // stores need both
		return
	}
	doc, err := parseDocument(c.Path, data)
	if err != nil {
		t.Fatal(err)
	}
	e := &editing{config: c, data: data, doc: doc}
	added := Store{Name: "new", Prefix: "/new", Tokens: []string{c.Tokens[0].Name}, KeyPattern: "*", CredentialsFile: "new.json"}
	if err := e.addStore(added); err != nil {
		t.Fatal(err)
	}
	edited, err := e.encode()
	if err != nil {
		t.Fatalf("after an edit: %v", err)
	}
	got, errs := parse(c.Path, edited, nil)
	before, _ := parse(c.Path, data, nil)
	added.CredentialsFile = filepath.Join(c.Dir(), added.CredentialsFile)
	before.Stores = append(before.Stores, added)
	if len(errs) > 0 || !reflect.DeepEqual(got, before) {
		t.Errorf("after an edit: %v\n%+v\nwant\n%+v\n%s", errs, got, before, edited)
	}
}

// FuzzCredentials reads any text as a credentials file.
func FuzzCredentials(f *testing.F) {
	f.Add(credentialsJSON(testID))
	f.Add(`{"credentials": ["` + testSecret + `"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseCredentials("file", []byte(text))
		if err != nil {
			if strings.Contains(err.Error(), testSecret) {
				t.Errorf("the error repeats the secret: %v", err)
			}
			return
		}
		data, err := encodeCredentials(all)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseCredentials("file", data)
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Errorf("written back: %v, %v, want %v", again, err, all)
		}
	})
}

// FuzzIdentities reads any text as an identities file.
func FuzzIdentities(f *testing.F) {
	f.Add(identitiesJSON)
	f.Add(`{"identities": ["` + testSecret + `"]}`)
	f.Add(`{"identities": [{"accessKeyId": "` + testSecret + `"}, {"accessKeyId": "` + testSecret + `"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, errs := parseIdentities("file", []byte(text))
		if err := errors.Join(errs...); err != nil {
			if strings.Contains(err.Error(), testSecret) {
				t.Errorf("the error repeats the secret: %v", err)
			}
			return
		}
		for _, id := range all {
			if account, ok := AccountOf(id.ARN); !ok || account != id.Account || id.Validate() != nil {
				t.Errorf("accepted %+v of %q in %q", id, id.ARN, id.Account)
			}
		}
		data, err := encodeIdentities(all)
		if err != nil {
			t.Fatal(err)
		}
		again, errs := parseIdentities("file", data)
		if len(errs) > 0 || !reflect.DeepEqual(all, again) {
			t.Errorf("written back: %v, %v, want %v", again, errs, all)
		}
	})
}

// checkInvariants says once more what users of a Config rely on.
func checkInvariants(t *testing.T, c *Config) {
	t.Helper()
	prefixes := make(map[string]bool)
	for _, s := range c.Stores {
		if prefixes[s.Prefix] || len(s.URIPath()) > 128 {
			t.Errorf("store %s: prefix %q is not unique or too long", s.Name, s.Prefix)
		}
		prefixes[s.Prefix] = true
		for _, name := range s.Tokens {
			if c.Token(name) == nil {
				t.Errorf("store %s: no token %s", s.Name, name)
			}
		}
		if len(s.Tokens) == 0 || len(s.Keys) > 0 && s.KeyPattern != "" {
			t.Errorf("store %+v", s)
		}
	}
	if len(c.Listeners) == 0 && c.KMS == nil {
		t.Error("nothing is served")
	}
	if k := c.KMS; k != nil {
		if c.Token(k.Token) == nil || len(k.Listeners) == 0 || k.Vault == "" || !filepath.IsAbs(k.Data) || k.Cache == 0 || k.MaxInFlight == 0 {
			t.Errorf("KMS %+v", k)
		}
	}
	for _, l := range c.allListeners() {
		if l.TLS != nil && (l.TLS.KeyFile == "") == (l.TLS.KeyURI == "") {
			t.Errorf("listener %s has no key, or two", l.Address)
		}
		if l.TLS == nil && !isLoopback(l.Address) && !l.BehindTLSTerminator {
			t.Errorf("listener %s is plain", l.Address)
		}
	}
	for _, file := range c.Files() {
		if !filepath.IsAbs(file) {
			t.Errorf("%q is not absolute", file)
		}
	}
}
