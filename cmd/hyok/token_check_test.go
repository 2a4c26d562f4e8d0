package main

import (
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/check"
)

// A token is checked by its URI without any configuration, and by its name in one.
func TestTokenCheck(t *testing.T) {
	o := newOffice(t, "main")
	u := o.uris["main"]
	u.PINSource = "file:" + o.path("pin")
	o.doWith("", 0, "token", "check", u.String(), "--quick").expect(t,
		"PASS  xks.destroy", "PASS  kms.kill", "PROFILE       softhsm2", "XKS PROXY     can be served", "can be served, with 11 of 11 key specs", "ED25519       yes   in the token")
	var v tokenCheckView
	got := o.do(0, "token", "check", "main", "--only", "xks", "-o", "json")
	got.decode(t, &v)
	if !v.XKS || v.KMS || v.Profile != "softhsm2" || v.Token.Label != u.Token || len(v.Specs) != 0 || len(v.Results) < 10 || v.Leftovers != 0 {
		t.Errorf("%s", got.stdout)
	}
	for _, r := range v.Results {
		if r.Status != check.Pass || !strings.HasPrefix(r.ID, "xks.") {
			t.Errorf("%+v", r)
		}
	}
	if keys := o.do(0, "key", "list"); strings.Contains(keys.stdout, check.Label) {
		t.Errorf("keys of the check are left: %s", keys.stdout)
	}
}

// The exit code tells what the token can serve, and a refused PIN.
func TestTokenCheckFails(t *testing.T) {
	o := newOffice(t, "main")
	got := o.do(1, "token", "check", "main", "--profile", "luna", "--only", "xks")
	got.expect(t, "FAIL  xks.", "XKS PROXY     cannot be served", "EMBEDDED KMS  not checked")
	o.do(2, "token", "check", "main", "--only", "both")
	o.do(2, "token", "check", "main", "--profile", "softhsm3")
	o.doWith("", 2, "token", "check", "pkcs11:token")
	o.doWith("", 1, "token", "check", "pkcs11:token=none?module-path="+tokentest.Module(t)+"&pin-source=file:"+o.path("pin"))
	o.write("wrong", "wrong-pin\n")
	u := o.uris["main"]
	u.PINSource = "file:" + o.path("wrong")
	o.doWith("", 4, "token", "check", u.String())
}
