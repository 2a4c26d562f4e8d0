package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLoadRefuses changes one line of a good file at a time.
func TestLoadRefuses(t *testing.T) {
	for i, test := range []struct {
		old, new string
		want     string // without the folder of the file
	}{
		{"version: 1", "version: 2", "hyok.yaml:2:10: version: must be 1"},
		{"version: 1\n", "", "hyok.yaml:2:1: version: is missing"},
		{"version: 1", "Version: 1", "hyok.yaml:2:1: unknown name: the names here are version,"},
		{"version: 1", "version: &a 1", "hyok.yaml:2:10: version: must be written out"},
		{"sessions: 32", "session: 32", "hyok.yaml:8:5: tokens.main: unknown name: the names here are uri, profile, sessions, allow_pin_value"},
		{"sessions: 32", "profile: luna", "hyok.yaml:8:5: tokens.main.profile: is given twice: first in line 7"},
		{"sessions: 32", "sessions: 0", "hyok.yaml:8:15: tokens.main.sessions: must be a whole number from 1 to 1024"},
		{"sessions: 32", "sessions: 1e3", "tokens.main.sessions: must be a whole number"},
		{"sessions: 32", "sessions: CanarySecret", "tokens.main.sessions: must be a whole number"},
		{"sessions: 32", "sessions: [CanarySecret]", "tokens.main.sessions: must be a whole number"},
		{"sessions: 32", "sessions: !!int CanarySecret", "tokens.main.sessions: must be a whole number"},
		{"sessions: 32", "sessions:", "tokens.main.sessions: has no value: it must be a whole number from 1 to 1024, or its line left out"},
		{"sessions: 32", "CanarySecret: 1", "tokens.main: unknown name"},
		{"profile: softhsm2", "profile: nfast", "hyok.yaml:7:14: tokens.main.profile: must be one of softhsm2, luna"},
		{"allow_pin_value: false", "allow_pin_value: no", "tokens.main.allow_pin_value: must be true or false"},
		{"uri: pkcs11:token=spare?pin-value=CanaryPIN", "uri: CanaryPIN", "hyok.yaml:11:10: tokens.spare.uri: must be a PKCS#11 URI"},
		{"    uri: pkcs11:token=spare?pin-value=CanaryPIN\n", "", "tokens.spare.uri: is missing"},
		{"  spare:", "  Canary/=:", "hyok.yaml:10:3: tokens.?: must be a name"},
		{"prefix: /keystores/default", "prefix: keystores", "hyok.yaml:15:13: stores.default.prefix: must be empty, or segments"},
		{"prefix: /keystores/default", "prefix: /a//b", "stores.default.prefix: must be empty, or segments"},
		{"prefix: /keystores/default", "prefix: /a/", "stores.default.prefix: must be empty, or segments"},
		{"prefix: /keystores/default", "prefix: /" + strings.Repeat("a", 117), "stores.default.prefix: must have at most 117 characters"},
		{"prefix: /keystores/default", `prefix: ""`, "stores.prod: must have another prefix than the store default"},
		{"tokens: [main, spare]", "tokens: [main, none]", "hyok.yaml:16:20: stores.default.tokens[1]: must be the name of a token"},
		{"tokens: [main, spare]", "tokens: [main, main]", "stores.default.tokens[1]: is listed twice"},
		{"tokens: [main, spare]", "tokens: []", "stores.default.tokens: must have 1 to 10 entries, not 0"},
		{"tokens: [main, spare]", "tokens: main", "stores.default.tokens: must be a list"},
		{`keys: [a, "7"]`, "keys: [a, 7]", "hyok.yaml:17:15: stores.default.keys[1]: must be text (in quotes"},
		{`keys: [a, "7"]`, "keys: [a b]", "stores.default.keys[0]: must be an external key id"},
		{`keys: [a, "7"]`, "key_pattern: \"[\"", "stores.default.key_pattern: must be a pattern"},
		{`    keys: [a, "7"]` + "\n", "", "stores.default: must have either keys or key_pattern"},
		{`key_pattern: "prod-*"`, "key_pattern: a\n    keys: [b]", "stores.prod: must have either keys or key_pattern"},
		{"credentials: credentials/prod.json", "credentials: credentials/default.json", "stores.prod: must have another credentials file than the store default"},
		{"credentials: credentials/prod.json", "credentials: none.json", "none.json: does not exist"},
		{"regions: [eu-central-1, us-gov-west-1]", "regions: [Frankfurt]", "stores.default.regions[0]: must be an AWS Region"},
		{"{per_second: 1800}", "{burst: 1}", "stores.default.rate_limit.per_second: is missing"},
		{"{per_second: 1800}", "1800", "stores.default.rate_limit: must be a mapping"},
		{"djAuMC4x", "djAuMC4", "stores.default.sample_metadata: must be Base64 of 1 to 20 bytes"},
		{"djAuMC4x", `"djAu\nMC4x"`, "stores.default.sample_metadata: must be Base64"},
		{"djAuMC4x", "djAuMC4xdjAuMC4xdjAuMC4xdjAuMC4x", "stores.default.sample_metadata: must be Base64"},
		{"address: 127.0.0.1:8443", "address: 127.0.0.1", "listeners[0].address: must be host:port"},
		{"address: 127.0.0.1:8443", "address: 127.0.0.1:65536", "listeners[0].address: must be host:port"},
		{"127.0.0.1:8080", "0.0.0.0:8080", "hyok.yaml:36:5: listeners[2]: must have tls, because its address is not a loopback one"},
		{"127.0.0.1:8080", "127.0.0.1:8443", "listeners[2]: must have another address"},
		{"0.0.0.0:8081", "0.0.0.0:8443", "listeners[3]: must have another address"},
		{"127.0.0.1:9443", "127.0.0.1:8081", "operations.address: must have another address"},
		{"    plain_http: true\n  - address: 0", "    plain_http: false\n  - address: 0", "listeners[2]: must have either tls or plain_http: true"},
		{"      client_ca: tls/server.crt\n", "", "listeners[0].tls: must have client_ca and client_subjects together"},
		{"      key: tls/server.key\n", "", "listeners[0].tls.key: is missing"},
		{"certificate: tls/server.crt", "certificate: none.crt", "none.crt: does not exist"},
		{"certificate: tls/server.crt", "certificate: tls", "tls: must be a file"},
		{"client_ca: tls/server.crt", "client_ca: tls/server.key", "server.key:1: has a PEM block that is not a certificate (PRIVATE KEY)"},
		{"client_ca: tls/server.crt", "client_ca: softhsm2.conf", "softhsm2.conf: is empty: it should have a certificate in PEM form"},
		{"key: tls/server.key", "key: softhsm2.conf", "softhsm2.conf: is empty: it should have a private key in PEM form"},
		{"softhsm2_conf: softhsm2.conf", "softhsm2_conf: none.conf", "none.conf: does not exist"},
		{"  token: main\n  data", "  data", "hyok.yaml:46:3: kms.token: is missing"},
		{"  token: main\n  data", "  token: none\n  data", "hyok.yaml:46:10: kms.token: must be the name of a token"},
		{"data: database", "data: ''", "hyok.yaml:47:9: kms.data: must be the path of a folder"},
		{"data: database", "data: tls/server.key", "tls/server.key: must be a folder"},
		{"data: database", "data: tls/server.key/kms", "cannot be read"},
		{"data: database", "datum: CanarySecret", "hyok.yaml:47:3: kms: unknown name: the names here are token, data, vault, identities, listeners, cloudhsm_clusters, xks_proxies, cache, deadline, generation_deadline, max_in_flight, aws_managed_keys"},
		{"vault: vault-1", "vault: CanarySecret", "hyok.yaml:48:10: kms.vault: must be a name: 1 to 32 of a-z, 0-9 and '-'"},
		{"vault: vault-1", "vault: " + strings.Repeat("a", 33), "kms.vault: must be a name"},
		{"  identities: credentials/kms.json\n", "", "kms.identities: is missing"},
		{"identities: credentials/kms.json", "identities: credentials/prod.json", "hyok.yaml:49:15: kms.identities: must be another file than the credentials of the store prod"},
		{"identities: credentials/kms.json", "identities: none.json", "none.json: does not exist"},
		{"127.0.0.1:8444", "127.0.0.1:8080", "hyok.yaml:51:7: kms.listeners[0]: must have another address than the listeners before it"},
		{"127.0.0.1:8445", "127.0.0.1:8444", "hyok.yaml:53:7: kms.listeners[1]: must have another address than the listeners before it"},
		{"127.0.0.1:8445", "10.0.0.1:8445", "hyok.yaml:53:7: kms.listeners[1]: must have tls"},
		{"127.0.0.1:9443", "127.0.0.1:8444", "operations.address: must have another address than the listeners"},
		{"tls: {certificate: tls/server.crt, key: tls/server.key}", "tls: {certificate: tls/server.crt}", "hyok.yaml:52:12: kms.listeners[0].tls.key: is missing"},
		{"tls: {certificate: tls/server.crt, key: tls/server.key}", "tls: {certificate: tls/server.crt, key: softhsm2.conf}", "softhsm2.conf: is empty: it should have a private key in PEM form"},
		{"cluster-abcdefghijk:", "cluster-abcdefghij:", "hyok.yaml:56:5: kms.cloudhsm_clusters.cluster-abcdefghij: must be a cluster id: cluster- and 11 to 16 of a-z, A-Z and 2-7"},
		{"cluster-abcdefghijk:", "cluster-CanarySecret0/:", "hyok.yaml:56:5: kms.cloudhsm_clusters.?: must be a cluster id"},
		{"{token: spare, ", "{", "kms.cloudhsm_clusters.cluster-abcdefghijk.token: is missing"},
		{"{token: spare, ", "{token: none, ", "kms.cloudhsm_clusters.cluster-abcdefghijk.token: must be the name of a token"},
		{"{token: spare, ", "{token: main, ", "hyok.yaml:57:31: kms.cloudhsm_clusters.cluster-ABCDEFGHIJ234567: must have another token than cluster-abcdefghijk"},
		{"trust_anchor: tls/hsm.crt", "trust_anchor: none.crt", "none.crt: does not exist"},
		{"trust_anchor: tls/hsm.crt", "trust_anchor: tls/server.key", "server.key:1: has a PEM block that is not a certificate (PRIVATE KEY)"},
		{"ca: tls/proxies.crt, allow", "ca: softhsm2.conf, allow", "softhsm2.conf: is empty: it should have a certificate in PEM form"},
		{"allow: [public, xks.corp.example, 10.1.0.0/16]", "allow: [10.1.0.1/16]", "kms.xks_proxies.allow[0]: 10.1.0.1/16 is no network: did you mean 10.1.0.0/16?"},
		{"allow: [public, xks.corp.example, 10.1.0.0/16]", "allow: [https://a.example]", "kms.xks_proxies.allow[0]: must be the word public"},
		{"allow: [public, xks.corp.example, 10.1.0.0/16]", "allow: []", "kms.xks_proxies.allow"},
		{"{ca: tls/proxies.crt, allow: [public, xks.corp.example, 10.1.0.0/16]}", "{}", "hyok.yaml:58:16: kms.xks_proxies.ca: is missing"},
		{"cache: 64", "cache: 15", "hyok.yaml:59:10: kms.cache: must be a whole number from 16 to 65536"},
		{"cache: 64", "cache: 65537", "kms.cache: must be a whole number from 16 to 65536"},
		{"deadline: 3s", "deadline: 9s", "hyok.yaml:60:13: kms.deadline: must be a duration from 100ms to 8s"},
		{"deadline: 3s", "deadline: 50ms", "kms.deadline: must be a duration from 100ms to 8s"},
		{"deadline: 3s", "deadline: 3s\n  generation_deadline: 2s", "kms.generation_deadline: must not be less than deadline"},
		{"max_in_flight: 32", "max_in_flight: 0", "hyok.yaml:61:18: kms.max_in_flight: must be a whole number from 1 to 65536"},
		{"aws_managed_keys: on-demand", "aws_managed_keys: CanarySecret", "hyok.yaml:62:21: kms.aws_managed_keys: must be off or on-demand"},
		{"aws_managed_keys: on-demand", "aws_managed_keys: true", "kms.aws_managed_keys: must be text"},
		{"deadline: 150ms", "deadline: 5", "limits.deadline: must be a duration from 10ms to 10s"},
		{"deadline: 150ms", "deadline: 5ms", "limits.deadline: must be a duration from 10ms to 10s"},
		{"interval: 5s", "interval: 61s", "health.interval: must be a duration from 1s to 1m0s"},
		{"level: debug", "level: CanarySecret", "log.level: must be debug, info, warn or error"},
		{"health:", "health: {interval: 5s", "is not valid YAML: "},
		{"level: debug", "level: *CanarySecret", "hyok.yaml: is not valid YAML"},
		{"log:", "---\nlog:", "must be one YAML document"},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			if !strings.Contains(full, test.old) {
				t.Fatalf("the file has no %q", test.old)
			}
			path := folder(t, strings.Replace(full, test.old, test.new, 1))
			c, err := Load(path, "softhsm2", "luna")
			if err == nil || c != nil {
				t.Fatalf("%q: accepted, want %q", test.new, test.want)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if strings.Contains(err.Error(), "Canary") {
				t.Errorf("the error repeats a value: %v", err)
			}
			var typed *Error
			if !errors.As(err, &typed) {
				t.Errorf("%T is not an *Error", err)
			}
		})
	}
}

func TestLoadReportsAllErrors(t *testing.T) {
	text := strings.NewReplacer("version: 1", "version: 2", "level: debug", "level: x", "softhsm2.conf", "none").Replace(full)
	_, err := Load(folder(t, text))
	if err == nil {
		t.Fatal("accepted")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d errors, want 3:\n%v", n, err)
	}
}

func TestLoadRefusesWholeFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "is empty",
		"# nothing\n":           "is empty",
		"[]":                    "must be a mapping",
		"null":                  "has no value",
		"1: 2":                  "must be a mapping whose names are text",
		"version: 1":            ":1:1: must have listeners, at which the key stores are served, or kms: there is nothing to serve",
		"version: 1\nkms:":      ":2:5: kms: has no value",
		"version: 1\nkms: {}":   ":2:6: kms.listeners: is missing",
		"version: 1\nlisteners": "is not valid YAML",
		"a: &a [*a]":            "unknown name",
		"\x00":                  "is not valid YAML",
		"version: 1\nstores: a": "stores: must be a mapping",
	} {
		if _, err := Load(folder(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), FileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
}

func TestLoadRefusesStoresThatNobodyServes(t *testing.T) {
	text := minimalKMS + "stores: {default: {tokens: [main], keys: [], credentials: credentials/default.json}}\n"
	if _, err := Load(folder(t, text)); err == nil || !strings.Contains(err.Error(), "hyok.yaml:4:9: stores: must have listeners beside it") {
		t.Errorf("got %v", err)
	}
}

func TestLoadReportsASharedFileOnce(t *testing.T) {
	_, err := Load(folder(t, strings.ReplaceAll(full, "tls/server.crt", "none.crt")))
	if err == nil || strings.Count(err.Error(), "none.crt: does not exist") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestLoadRefusesIdentities(t *testing.T) {
	record := func(old, new string) string {
		const good = `{"accessKeyId": "a", "secretAccessKey": "` + testSecret + `", "account": "111122223333", "arn": "arn:aws:iam::111122223333:user/alice"}`
		return strings.Replace(good, old, new, 1)
	}
	for _, test := range []struct{ text, want string }{
		{``, "kms.json:1: must be {"},
		{"{\n\"identities\": [\"" + testSecret + "\"]}", "kms.json:2: must be {"},
		{record(`"account"`, `"`+testSecret+`"`), "kms.json:1: must be {"},
		{record(`"111122223333"`, `111122223333`), "kms.json:1: must be {"},
		{record(`"a"`, `"`+testSecret+`/"`), "identities[0].accessKeyId: must be 1 to 128 of"},
		{record(`"a"`, `"a", "accessKeyId": "b"`), "kms.json:1: must be {"},
		{record(`"a"`, `""`), "identities[0].accessKeyId: must be"},
		{record(testSecret, testSecret+" "), "identities[0].secretAccessKey: must be 1 to 256 printable"},
		{record(testSecret, strings.Repeat(testSecret, 6)), "identities[0].secretAccessKey: must be"},
		{record(testSecret, testSecret+"é"), "identities[0].secretAccessKey: must be"},
		{record(`"account"`, `"sessionToken": "`+testSecret+`\n", "account"`), "identities[0].sessionToken: must be left out, or up to 4096"},
		{record(`"account"`, `"userId": "`+testSecret+`\"", "account"`), "identities[0].userId: must be left out, or up to 256"},
		{record(`"account": "111122223333"`, `"account": "11112222333"`), "identities[0].account: must be 12 digits"},
		{record(`user/alice`, `user/`), "identities[0].arn: must be that of a principal"},
		{record(`user/alice`, `group/`+testSecret), "identities[0].arn: must be that of a principal"},
		{record(`iam::111122223333:user`, `sts::111122223333:user`), "identities[0].arn: must be that of a principal"},
		{record(`user/alice`, `user/`+strings.Repeat("a", 230)), "identities[0].arn: must be that of a principal"},
		{record(`iam::1111`, `iam::4444`), "identities[0].arn: must have the account that is in account"},
		{record("", "") + "," + record("", ""), "identities[1].accessKeyId: must be another one than that of identities[0]"},
	} {
		path := folder(t, minimalKMS)
		text := test.text
		if strings.HasPrefix(text, `{"a`) {
			text = `{"identities": [` + text + `]}`
		}
		put(t, filepath.Join(filepath.Dir(path), "credentials/kms.json"), text)
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", text, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), testSecret) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func TestLoadReportsAllErrorsOfIdentities(t *testing.T) {
	path := folder(t, minimalKMS)
	put(t, filepath.Join(filepath.Dir(path), "credentials/kms.json"), `{"identities": [{}, {"accessKeyId": "a"}]}`)
	_, err := Load(path)
	if err == nil || strings.Count(err.Error(), "kms.json: identities[") != 5 {
		t.Errorf("got %v, want 3 errors of the first and 2 of the second", err)
	}
}

func TestLoadTakesIdentitiesOfOtherPrograms(t *testing.T) {
	path := folder(t, minimalKMS)
	put(t, filepath.Join(filepath.Dir(path), "credentials/kms.json"), `{"identities": [
		{"accessKeyId": "x", "secretAccessKey": "~!\"#", "account": "000000000000", "arn": "arn:aws-us-gov:iam::000000000000:role/a/b/c"},
		{"accessKeyId": "`+strings.Repeat("Z_9", 42)+`", "secretAccessKey": "`+strings.Repeat("s", 256)+`", "account": "999999999999", "arn": "arn:aws:sts::999999999999:federated-user/bob"}]}`)
	c, err := Load(path)
	if err != nil || len(c.KMS.Identities) != 2 {
		t.Errorf("%v", err)
	}
}

func TestLoadRefusesCredentials(t *testing.T) {
	const record = `{"accessKeyId": "` + testID + `", "secretAccessKey": "` + testSecret + `"}`
	for _, test := range []struct{ text, want string }{
		{``, "default.json:1: must be {"},
		{"{\n\"credentials\": [" + testSecret + "]}", "default.json:2: must be {"},
		{"{\"credentials\": [\n\"" + testSecret + "\"]}", "default.json:2: must be {"},
		{`{"` + testSecret + `": 1}`, "default.json:1: must be {"},
		{`{"credentials": [{"accessKeyId": "` + testSecret + `"}]}`, "credentials[0]: access key id has 48 characters"},
		{`{"credentials": [` + strings.Replace(record, "Canary", "Canary ", 1) + `]}`, "secret access key of " + testID + " has a character outside"},
		{`{"credentials": [` + record + `, ` + record + `]}`, "access key id " + testID + " is in use already, by the store default"},
		{`{"credentials": [{"accessKeyId": "BBBBBBBBBBBBBBBBBBBB", "secretAccessKey": "` + testSecret + `"}]}`, "is in use already, by the store default"},
		{`{"credentials": [{"accessKeyId": "` + testID + `", "secretAccessKey": "` + testSecret + `", "created": "` + testSecret + `"}]}`, "default.json:1: must be {"},
	} {
		path := folder(t, full)
		put(t, filepath.Join(filepath.Dir(path), "credentials/default.json"), test.text)
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.text, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), testSecret) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func TestLoadRefusesOpenSecrets(t *testing.T) {
	for name, want := range map[string]string{
		"credentials/kms.json":     "kms.json: has mode 0644: others than its owner can reach the secrets; run chmod 600 on it",
		"credentials/default.json": "default.json: has mode 0644: others than its owner can reach the secrets; run chmod 600 on it",
		"tls/server.key":           "server.key: has mode 0644: others can reach this private key, or its group can replace it; run chmod g-w,o= on it",
	} {
		path := folder(t, full)
		if err := os.Chmod(filepath.Join(filepath.Dir(path), name), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
