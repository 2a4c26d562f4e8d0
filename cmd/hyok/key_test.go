package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// list returns the rows of hyok key list.
func (o *office) list() []string {
	o.t.Helper()
	lines := strings.Split(strings.TrimSpace(o.do(0, "key", "list").stdout), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return lines[1:]
}

func TestKeyCreateAndList(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "orders", "invoices").expect(t, "2 keys, orders to invoices, were made in the token main")
	o.do(0, "key", "create", "sealer", "--usage", "encrypt").expect(t, "Key sealer was made", "running server")
	o.do(0, "key", "create", "idle", "--usage", "none")
	want := []string{
		"idle main 1 1 none enabled",
		"invoices main 1 1 encrypt,decrypt enabled",
		"orders main 1 1 encrypt,decrypt enabled",
		"sealer main 1 1 encrypt enabled",
	}
	if got := o.list(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKeyCreateRefuses(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "old")
	for _, test := range []struct {
		code int
		args []string
		want string
	}{
		{2, nil, "requires at least 1 arg"},
		{2, []string{"a b"}, "has a character outside"},
		{2, []string{"hyok.probe"}, "kept for hyok's own"},
		{2, []string{"a", "a"}, "given twice"},
		{2, []string{"a", "b", "--count", "2"}, "--count takes one ID"},
		{2, []string{"a", "--count", "0"}, "--count must be 1 to"},
		{2, []string{"a", "--usage", "sign"}, "--usage must be"},
		{2, []string{strings.Repeat("x", 127), "--count", "10"}, "must have 1 to 128"},
		{1, []string{"new", "old"}, "exists already"},
		{1, []string{"new", "--store", "none"}, "does not exist"},
	} {
		o.do(test.code, append([]string{"key", "create"}, test.args...)...).expect(t, test.want)
	}
	if got := o.list(); len(got) != 1 {
		t.Errorf("a refused command made keys: %q", got)
	}
}

func TestKeyCreateMany(t *testing.T) {
	o := newOffice(t, "main")
	got := o.do(0, "key", "create", "load", "--count", "25")
	got.expect(t, "25 keys, load-1 to load-25, were made in the token main")
	if got.stderr != "" {
		t.Errorf("there is a bar without a terminal: %q", got.stderr)
	}
	var v newKeysView
	o.do(0, "key", "create", "x", "--count", "2", "-o", "json").decode(t, &v)
	if v.Token != "main" || !slices.Equal(v.Keys, []string{"x-1", "x-2"}) {
		t.Errorf("%+v", v)
	}
	if rows := o.list(); len(rows) != 27 {
		t.Errorf("%d keys: %q", len(rows), rows)
	}
}

func TestKeyCreateForStore(t *testing.T) {
	o := newOffice(t, "main", "other")
	o.do(0, "store", "create", "listed", "--token", "main", "--key", "first")
	o.do(0, "store", "create", "patterned", "--token", "main", "--key-pattern", "prod-*")
	o.do(0, "key", "create", "a", "b", "--token", "main", "--store", "listed").expect(t, "serves them now")
	if keys := o.config().Store("listed").Keys; !slices.Equal(keys, []string{"first", "a", "b"}) {
		t.Errorf("the store lists %q", keys)
	}
	o.do(0, "key", "create", "prod-1", "--token", "main", "--store", "patterned").expect(t, "serves it now")
	o.do(1, "key", "create", "test-1", "--token", "main", "--store", "patterned").expect(t, "pattern prod-*")
	o.do(1, "key", "create", "c", "--token", "other", "--store", "listed").expect(t, "no keys in the token other")
	o.do(1, "key", "create", "c", "a", "--token", "main", "--store", "listed").expect(t, "exists already", "nothing was added")
	if keys := o.config().Store("listed").Keys; len(keys) != 3 {
		t.Errorf("the store lists %q", keys)
	}
	if rows := o.list(); len(rows) != 3 {
		t.Errorf("keys %q", rows)
	}
}

func TestKeyShow(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "k")
	o.do(0, "key", "rotate", "k").expect(t, "new version 2", "within 10s", "SIGHUP")
	var info keystore.KeyInfo
	o.do(0, "key", "show", "k", "-o", "json").decode(t, &info)
	if info.ID != "k" || info.Token != "main" || len(info.Versions) != 2 || info.Newest().Number != 2 {
		t.Errorf("%+v", info)
	}
	for _, v := range info.Versions {
		if !v.Sensitive || v.Extractable || !v.NeverExtractable || !v.AlwaysSensitive || !v.Local || !v.Marked || !v.Encrypt || !v.Decrypt {
			t.Errorf("%+v", v)
		}
	}
	text := strings.Join(strings.Fields(o.do(0, "key", "show", "k").stdout), " ")
	for _, want := range []string{"STATUS enabled NEWEST 2", "VERSION 1", "VERSION 2", "EXTRACTABLE no", "NEVER EXTRACTABLE yes", "GENERATED IN THE TOKEN yes"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	o.do(1, "key", "show", "nobody").expect(t, "key not found")
	o.do(2, "key", "show").expect(t, "usage: hyok key show ID")
}

func TestKeyDisableAndEnable(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "k", "--usage", "decrypt")
	for range 2 { // a second time changes nothing
		o.do(0, "key", "disable", "k").expect(t, "is disabled", "within a second")
		if rows := o.list(); rows[0] != "k main 1 1 none disabled" {
			t.Errorf("%q", rows)
		}
	}
	o.do(1, "key", "rotate", "k").expect(t, "key is disabled", "enable it first")
	for range 2 {
		var v keyView
		o.do(0, "key", "enable", "k", "-o", "json").decode(t, &v)
		if v != (keyView{ID: "k", Token: "main"}) {
			t.Errorf("%+v", v)
		}
	}
	if rows := o.list(); rows[0] != "k main 1 1 decrypt enabled" {
		t.Errorf("%q", rows)
	}
	o.do(1, "key", "disable", "nobody").expect(t, "key not found")
}

func TestKeyDestroy(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "k", "other")
	o.do(0, "key", "rotate", "k")
	o.do(3, "key", "destroy", "k").expect(t, "the key k with 2 versions", "in every AWS account, becomes unreadable", "--yes")
	o.do(3, "key", "destroy", "k", "--version", "1").expect(t, "version 1 of the key k")
	o.do(2, "key", "destroy", "k", "--version", "0").expect(t, "--version must be")
	o.do(1, "key", "destroy", "k", "--version", "3", "--yes").expect(t, "no version 3")
	if rows := o.list(); len(rows) != 2 || rows[0] != "k main 2 2 encrypt,decrypt enabled" {
		t.Fatalf("something was destroyed: %q", rows)
	}
	o.do(0, "key", "destroy", "k", "--version", "1", "--yes").expect(t, "Version 1 of the key k was destroyed", "within a second")
	if rows := o.list(); rows[0] != "k main 1 2 encrypt,decrypt enabled" {
		t.Errorf("%q", rows)
	}
	o.do(0, "key", "destroy", "k", "--yes").expect(t, "Key k was destroyed")
	o.do(1, "key", "destroy", "k", "--yes").expect(t, "key not found")
	o.do(1, "key", "rotate", "k").expect(t, "key not found")
	if rows := o.list(); len(rows) != 1 || !strings.HasPrefix(rows[0], "other ") {
		t.Errorf("%q", rows)
	}
}

// Two objects of one label that other software made are seen, and can be cleared.
func TestAmbiguousKey(t *testing.T) {
	o := newOffice(t, "main")
	u := o.uris["main"]
	for _, id := range []string{"01", "02"} {
		cmd := exec.Command("pkcs11-tool", "--module", u.ModulePath, "--token-label", u.Token, "--login", "--pin", tokentest.PIN,
			"--keygen", "--key-type", "aes:32", "--label", "twins", "--id", id)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if rows := o.list(); len(rows) != 1 || rows[0] != "twins main 2 1 encrypt,decrypt ambiguous" {
		t.Errorf("%q", rows)
	}
	o.do(1, "key", "show", "twins").expect(t, "ambiguous")
	o.do(3, "key", "destroy", "twins").expect(t, "all keys labelled twins")
	o.do(0, "key", "destroy", "twins", "--yes")
	if rows := o.list(); len(rows) != 0 {
		t.Errorf("%q", rows)
	}
}

// testMaterial is a key that is like no text.
func testMaterial() []byte {
	material := make([]byte, materialSize)
	for i := range material {
		material[i] = byte(0xf0 - i)
	}
	return material
}

func TestKeyImport(t *testing.T) {
	o := newOffice(t, "main")
	material := testMaterial()
	digits, base := hex.EncodeToString(material), base64.StdEncoding.EncodeToString(material)
	o.do(0, "store", "create", "prod", "--key", "first")
	forms := map[string]string{
		"raw": string(material), "hex": digits[:10] + " " + strings.ToUpper(digits[10:]) + "\r\n",
		"pem": "-----BEGIN AES KEY-----\n" + base + "\n-----END AES KEY-----\n",
	}
	for form, text := range forms {
		file := o.write(form, text)
		got := o.do(0, "key", "import", "file-"+form, "--file", file, "--store", "prod")
		got.expect(t, "was imported", "is still in "+file)
		o.do(0, "key", "import", "said-"+form, "--file", file, "--format", form)
		piped := o.doWith(text, 0, "key", "import", "pipe-"+form, "--file", "-", "--data", o.dir)
		if strings.Contains(piped.stdout, "still in") {
			t.Errorf("%s: there is no file to delete: %s", form, piped.stdout)
		}
		for _, out := range []string{got.stdout, got.stderr, piped.stdout, piped.stderr} {
			if strings.Contains(out, digits) || strings.Contains(out, base) {
				t.Errorf("%s: the material is printed: %s", form, out)
			}
		}
	}
	if keys := o.config().Store("prod").Keys; len(keys) != 4 {
		t.Errorf("the store lists %q", keys)
	}
	o.expectOneMaterial(9)
	var info keystore.KeyInfo
	o.do(0, "key", "show", "file-raw", "-o", "json").decode(t, &info)
	if v := info.Newest(); !v.Sensitive || v.Extractable || v.Local {
		t.Errorf("%+v", v)
	}
	o.do(1, "key", "import", "file-raw", "--file", o.path("raw")).expect(t, "exists already")
}

// expectOneMaterial checks that the token's n keys open what each other seals.
func (o *office) expectOneMaterial(n int) {
	o.t.Helper()
	tok := tokentest.Open(o.t, new(keystore.Modules), tokentest.Options(o.uris["main"]))
	defer func() {
		if err := tok.Close(o.t.Context()); err != nil {
			o.t.Error(err)
		}
	}()
	infos, err := tok.Keys(o.t.Context())
	if err != nil || len(infos) != n {
		o.t.Fatalf("%d keys, %v", len(infos), err)
	}
	var sealed keystore.Sealed
	for i, info := range infos {
		k, err := tok.Find(context.Background(), info.ID)
		if err != nil {
			o.t.Fatal(err)
		}
		if i == 0 {
			if sealed, err = k.Encrypt(o.t.Context(), 1, []byte("p"), nil); err != nil {
				o.t.Fatal(err)
			}
		}
		if got, err := k.Decrypt(o.t.Context(), 1, sealed, nil); err != nil || string(got) != "p" {
			o.t.Errorf("%s has other material: %v", info.ID, err)
		}
	}
}

func TestKeyImportRefuses(t *testing.T) {
	o := newOffice(t, "main")
	material := string(testMaterial())
	for name, test := range map[string]struct {
		text string
		args []string
		code int
		want string
	}{
		"no file":         {"", nil, 2, "--file says"},
		"unknown form":    {"", []string{"--file", "-", "--format", "der"}, 2, "--format must be"},
		"absent":          {"", []string{"--file", o.path("absent")}, 1, "absent"},
		"empty":           {"", []string{"--file", "-"}, 1, "from standard input: it is empty"},
		"31 bytes":        {material[1:], []string{"--file", "-", "--format", "raw"}, 1, "31 raw bytes"},
		"33 bytes":        {material + "\n", []string{"--file", "-"}, 1, "33 bytes, which are neither"},
		"hex of 128 bits": {"c0ffee00c0ffee00c0ffee00c0ffee00", []string{"--file", "-"}, 1, "32 characters of text"},
	} {
		got := o.doWith(test.text, test.code, append([]string{"key", "import", "k", "--data", o.dir}, test.args...)...)
		if !strings.Contains(got.stderr, test.want) || strings.Contains(got.stderr, "c0ffee") || strings.Contains(got.stderr, material[1:]) {
			t.Errorf("%s: %s", name, got.stderr)
		}
	}
	if rows := o.list(); len(rows) != 0 {
		t.Errorf("%q", rows)
	}
}

func TestParseMaterial(t *testing.T) {
	material := testMaterial()
	digits, base := hex.EncodeToString(material), base64.StdEncoding.EncodeToString(material)
	block := "-----BEGIN X-----\n" + base + "\n-----END X-----\n"
	for _, test := range []struct{ form, text, want string }{
		{formAuto, string(material), ""},
		{formRaw, strings.Repeat("x", 32), ""},
		{formAuto, digits, ""},
		{formAuto, "\n " + strings.ToUpper(digits) + "\n", ""},
		{formAuto, "# comment\n" + block, ""},
		{formPEM, strings.ReplaceAll(block, "\n", "\r\n"), ""},
		{formAuto, strings.Repeat("x", 32), "--format raw"},
		{formAuto, digits[1:], "63 hex digits"},
		{formAuto, digits + digits, "128 hex digits"},
		{formAuto, base, "neither a hex digit"},
		{formAuto, "0x" + digits[2:], "neither a hex digit"},
		{formAuto, strings.Repeat("\xff", 64), "neither 32 raw bytes nor text"},
		{formHex, string(material), "neither a hex digit"},
		{formPEM, digits, "no whole block"},
		{formAuto, block + block, "more than one block"},
		{formAuto, block + "tail", "text behind it"},
		{formAuto, "-----BEGIN X-----\n" + base, "no whole block"},
		{formAuto, "-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\n\n" + base + "\n-----END X-----\n", "has headers"},
		{formAuto, "-----BEGIN X-----\n" + base64.StdEncoding.EncodeToString(material[:16]) + "\n-----END X-----\n", "holds 16 bytes"},
		{formAuto, strings.Repeat("a", maxMaterial+1), "longer than"},
	} {
		got, err := readMaterial(strings.NewReader(test.text), test.form)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%q: %v", test.text, err)
		case test.want == "" && test.form != formRaw && !bytes.Equal(got, material):
			t.Errorf("%q: other bytes", test.text)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%q: %v, want %q", test.text, err, test.want)
		}
	}
}

func FuzzReadMaterial(f *testing.F) {
	f.Add("-----BEGIN X-----\nAAAA\n-----END X-----\n", "auto")
	f.Add(fmt.Sprintf("%064d", 0), "hex")
	f.Fuzz(func(t *testing.T, text, form string) {
		got, err := readMaterial(strings.NewReader(text), form)
		if (err == nil) != (len(got) == materialSize) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// Keys that pkcs11-tool makes by its defaults are told of, and what is no external key.
func TestKeyListTellsOfForeignKeys(t *testing.T) {
	o := newOffice(t, "main", "borrowed")
	borrowed := o.uris["borrowed"]
	borrowed.PINSource = "" // as of a token whose PIN custom key stores bring
	o.write(config.FileName, fmt.Sprintf("version: 1\ntokens:\n  main: {uri: %q}\n  borrowed: {uri: %q}\nlisteners:\n  - address: 127.0.0.1:8080\n    plain_http: true\n",
		o.uris["main"], borrowed))
	o.do(0, "key", "create", "good", "--token", "main")
	u := o.uris["main"]
	for _, args := range [][]string{
		{"--key-type", "AES:32", "--label", "open"}, {"--key-type", "AES:16", "--label", "short"},
		{"--key-type", "AES:32", "--label", "a label"}, {"--key-type", "AES:32"},
	} {
		args = append([]string{"--module", u.ModulePath, "--token-label", u.Token, "--login", "--pin", tokentest.PIN, "--keygen"}, args...)
		if out, err := exec.Command("pkcs11-tool", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	got := o.do(0, "key", "list", "-o", "json")
	var infos []keystore.KeyInfo
	got.decode(t, &infos)
	if len(infos) != 2 || infos[0].ID != "good" || infos[1].ID != "open" {
		t.Errorf("keys %+v", infos)
	}
	for _, want := range []string{
		"token main: 3 AES keys passed over: 1 not of 256 bits, 1 without a label, 1 with a label that cannot be an external key id",
		"key open in the token main, version 1, is not private (CKA_PRIVATE)", "not sensitive (CKA_SENSITIVE)", "left out: token borrowed: its URI names no PIN",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("it does not say %q: %s", want, got.stderr)
		}
	}
	if strings.Contains(got.stderr, "key good") {
		t.Errorf("it warns of a key of hyok's: %s", got.stderr)
	}
	o.do(1, "key", "list", "--token", "borrowed").expect(t, "names no PIN")
	// One that cannot be opened fails the command, after the others.
	borrowed.PINSource, borrowed.Token = "file:pin", "no-such-token"
	o.write(config.FileName, fmt.Sprintf("version: 1\ntokens:\n  main: {uri: %q}\n  borrowed: {uri: %q}\nlisteners:\n  - address: 127.0.0.1:8080\n    plain_http: true\n",
		o.uris["main"], borrowed))
	if got := o.do(1, "key", "list"); !strings.Contains(got.stdout, "good") || !strings.Contains(got.stderr, "no-such-token") {
		t.Errorf("%s%s", got.stdout, got.stderr)
	}
}
