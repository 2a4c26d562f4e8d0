package keystore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

func TestParseURI(t *testing.T) {
	slot := uint(7)
	for text, want := range map[string]keystore.URI{
		"pkcs11:": {},
		"pkcs11:token=a%20b;serial=01?module-path=/m.so": {Token: "a b", Serial: "01", ModulePath: "/m.so"},
		"pkcs11:slot-id=7;object=tls;id=%00%ff":          {SlotID: &slot, Object: "tls", ID: []byte{0, 0xff}},
		"pkcs11:manufacturer=m;model=n;type=private":     {Manufacturer: "m", Model: "n"},
		"pkcs11:token=t?pin-source=file:/p&module-path=": {},
		"pkcs11:token=%3B%3F%26%3D?pin-source=env:NAME":  {Token: ";?&=", PINSource: "env:NAME"},
		"PKCS11:token=a": {Token: "a"},
		// As p11tool prints a token that pads its fields with zeros.
		"pkcs11:model=Soft%00%00%00;manufacturer=IBM%00;serial=123%00%00;token=my%20token%20%00": {Model: "Soft", Manufacturer: "IBM", Serial: "123", Token: "my token"},
		"pkcs11:token=t;serial=%00%00%00":                                         {Token: "t"},
		"pkcs11:token=t?module-path=file:///usr/lib/m.so":                         {Token: "t", ModulePath: "/usr/lib/m.so"},
		"pkcs11:token=t?module-path=file://localhost/m.so&pin-source=FILE:///pin": {Token: "t", ModulePath: "/m.so", PINSource: "FILE:///pin"},
	} {
		got, err := keystore.ParseURI(text)
		if strings.HasSuffix(text, "=") {
			if err == nil {
				t.Errorf("%s: an empty value was taken", text)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "token=a", "pkcs12:token=a", "pkcs11:token", "pkcs11:=a", "pkcs11:token=a;token=b", "pkcs11:token=%zz", "pkcs11:token=%4",
		"pkcs11:colour=red", "pkcs11:slot-id=x", "pkcs11:slot-id=-1", "pkcs11:type=public", "pkcs11:module-path=/m", "pkcs11:token=a?token=b",
		"pkcs11:token=a;", "pkcs11:token=a?x-vendor=1", "pkcs11:token=", "pkcs11:token=a?pin-value=1234&pin-source=p",
		"pkcs11:library-description=SoftHSM", "pkcs11:token=a;slot-description=x", "pkcs11:token=a?module-name=softhsm2",
	} {
		if u, err := keystore.ParseURI(text); err == nil {
			t.Errorf("%q was parsed as %s", text, u)
		}
	}
}

// A URI for keys and one for a whole token are told apart.
func TestCheckToken(t *testing.T) {
	for text, want := range map[string]string{
		"pkcs11:token=t?module-path=/m":           "",
		"pkcs11:token=t;object=o?module-path=/m":  "leave object= and id= out",
		"pkcs11:token=t;id=%01?module-path=/m":    "leave object= and id= out",
		"pkcs11:token=%00%00?module-path=/m":      "names no token",
		"pkcs11:manufacturer=m?module-path=/m":    "names no token",
		"pkcs11:token=t":                          "names no module",
		"pkcs11:token=t;serial=%20?module-path=m": "",
	} {
		u, err := keystore.ParseURI(text)
		if err != nil {
			t.Fatal(err)
		}
		switch err := u.CheckToken(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What a URI is printed as can be put into a configuration, paths readable.
func TestURIString(t *testing.T) {
	for want, u := range map[string]keystore.URI{
		"pkcs11:token=a%20b?module-path=/usr/lib/m.so&pin-source=file:/srv/pin": {Token: "a b", ModulePath: "/usr/lib/m.so", PINSource: "file:/srv/pin"},
		"pkcs11:token=a%2Fb%3Bc?module-path=/m%26n%3F.so":                       {Token: "a/b;c", ModulePath: "/m&n?.so"},
	} {
		if got := u.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, err := keystore.ParseURI(want); err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
}

func TestPINStaysSecret(t *testing.T) {
	const pin = "s3cr3t-p1n"
	u, err := keystore.ParseURI("pkcs11:token=t?pin-value=" + pin)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := u.PIN("", true); err != nil || got != pin {
		t.Errorf("allowed: %v", err)
	}
	_, refused := u.PIN("", false)
	if refused == nil {
		t.Error("a pin-value was taken where it is not allowed")
	}
	_, twice := keystore.ParseURI("pkcs11:?pin-value=" + pin + "&pin-value=" + pin)
	_, spoilt := keystore.ParseURI("pkcs11:?pin-value=" + pin + "%zz")
	nested := struct{ U keystore.URI }{u}
	_, openErr := keystore.Open(patient(t), &modules, keystore.Options{Name: "x", URI: u})
	for what, text := range map[string]string{
		"String": u.String(), "%v": fmt.Sprintf("%v", u), "%+v": fmt.Sprintf("%+v", u), "%#v": fmt.Sprintf("%#v", u), "pointer": fmt.Sprint(&u),
		"nested %+v": fmt.Sprintf("%+v", nested), "nested %#v": fmt.Sprintf("%#v", nested), "refusal": fmt.Sprint(refused),
		"twice": fmt.Sprint(twice), "spoilt": fmt.Sprint(spoilt), "open": fmt.Sprint(openErr),
	} {
		if strings.Contains(text, pin) {
			t.Errorf("%s shows the PIN: %s", what, text)
		}
	}
}

func TestPINSource(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pin", "1234\r\nrest\n")
	write("empty", "\n")
	write("marked", "\xef\xbb\xbf1234\n")
	write("only-mark", "\xef\xbb\xbf\n")
	write("utf16", "\xff\xfe1\x002\x003\x004\x00")
	t.Setenv("HYOK_TEST_PIN", "5678")
	for source, want := range map[string]string{
		"pin": "1234", "file:pin": "1234", "file://" + dir + "/pin": "1234", dir + "/pin": "1234", "env:HYOK_TEST_PIN": "5678",
		"file://localhost" + dir + "/pin": "1234", "FILE://LocalHost" + dir + "/pin": "1234", "file:" + dir + "/pin": "1234", "marked": "1234",
		"only-mark": "", "utf16": "", "file://elsewhere" + dir + "/pin": "",
		"": "", "empty": "", "absent": "", "env:HYOK_TEST_ABSENT": "", "|cat pin": "",
	} {
		got, err := keystore.URI{Token: "t", PINSource: source}.PIN(dir, false)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", source, got, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=a%20b;serial=01;slot-id=3;id=%00?module-path=/m.so&pin-source=file:p")
	f.Add("pkcs11:object=o;type=private?pin-value=1234")
	f.Add("PKCS11:token=t%00%00;serial=%00?module-path=file://localhost/m.so")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := keystore.ParseURI(text)
		if err != nil {
			return
		}
		again, err := keystore.ParseURI(u.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, u, err)
		}
		if again.String() != u.String() || again.Token != u.Token || string(again.ID) != string(u.ID) || again.ModulePath != u.ModulePath || again.PINSource != u.PINSource {
			t.Fatalf("%q became %q, then %q", text, u, again)
		}
	})
}
