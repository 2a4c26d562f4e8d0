package check_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/check"
)

func TestMain(m *testing.M) { os.Exit(tokentest.Main(m)) }

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// options returns what checks the token of u without what takes long.
func options(u keystore.URI) check.Options {
	return check.Options{Token: tokentest.Options(u), Modules: &keystore.Modules{Command: keystore.ModuleProcess()}, Quick: true}
}

func run(t *testing.T, o check.Options) *check.Report {
	t.Helper()
	r, err := check.Run(patient(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// objects lists the objects of a token by another program.
func objects(t *testing.T, u keystore.URI) string {
	t.Helper()
	module := tokentest.Module(t)
	out, err := exec.Command("pkcs11-tool", "--module", module, "--token-label", u.Token, "--login", "--pin", tokentest.PIN, "--list-objects").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	slices.Sort(lines) // the order is not always the same
	return strings.Join(lines, "\n")
}

// production puts keys into a token as a server has them, and returns the token.
func production(t *testing.T) keystore.URI {
	t.Helper()
	var modules keystore.Modules
	u := tokentest.NewToken(t, &modules)
	tok, err := keystore.Open(patient(t), &modules, tokentest.Options(u))
	if err != nil {
		t.Fatal(err)
	}
	both := keystore.KeyUsage{Encrypt: true, Decrypt: true}
	for _, id := range []string{"key", "other", "known"} { // as the check calls its own
		if err := tok.GenerateKey(patient(t), id, both); err != nil {
			t.Fatal(err)
		}
	}
	v, err := tok.OpenVault(patient(t), keystore.VaultOptions{Name: "check"})
	if err == nil {
		_, err = v.GenerateResident(patient(t), "ed25519", keystore.SpecEd25519)
	}
	if err == nil {
		err = tok.Close(patient(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// SoftHSM2 can serve both doors, and what it held before it holds afterwards, to the
// letter, although the keys have the very names of those of the check.
func TestRunLeavesOthersAlone(t *testing.T) {
	u := production(t)
	before := objects(t, u)
	var told []check.Result
	o := options(u)
	o.Progress = func(r check.Result) { told = append(told, r) }
	r := run(t, o)
	for _, res := range r.Results {
		if res.Status != check.Pass {
			t.Errorf("%+v", res)
		}
	}
	if !r.OK() || !r.Serves(check.XKS) || !r.Serves(check.KMS) || r.Profile != "softhsm2" || len(told) != len(r.Results) {
		t.Errorf("%+v", r)
	}
	if len(r.Specs) != 11 {
		t.Errorf("%d specs", len(r.Specs))
	}
	for _, s := range r.Specs {
		if s.Made != check.Pass || s.Used != check.Pass || s.Imported != check.Pass || s.Resident != (s.Name == keystore.SpecEd25519) {
			t.Errorf("%+v", s)
		}
	}
	if after := objects(t, u); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A check that was interrupted takes its keys away all the same; what a killed one
// leaves behind the next one destroys.
func TestRunEndsEarly(t *testing.T) {
	u := production(t)
	before := objects(t, u)
	ctx, stop := context.WithCancel(patient(t))
	o := options(u)
	o.Progress = func(r check.Result) {
		if r.ID == "kms.spec.AES_256.use" {
			stop()
		}
	}
	if r, err := check.Run(ctx, o); err == nil {
		t.Errorf("interrupted: %+v", r)
	}
	if after := objects(t, u); after != before {
		t.Errorf("after an interruption:\n%s", after)
	}

	scoped := &keystore.Modules{Scope: check.Label}
	tok, err := keystore.Open(patient(t), scoped, tokentest.Options(u))
	if err == nil {
		err = tok.GenerateKey(patient(t), "left-behind", keystore.KeyUsage{Encrypt: true, Decrypt: true})
	}
	if err == nil {
		err = tok.Close(patient(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	if left := objects(t, u); !strings.Contains(left, check.Label+"left-behind") {
		t.Fatalf("nothing was left behind:\n%s", left)
	}
	o = options(u)
	o.Doors = []check.Door{check.XKS}
	if r := run(t, o); r.Leftovers != 1 || !r.OK() || r.Checked(check.KMS) {
		t.Errorf("%+v", r)
	}
	if after := objects(t, u); after != before {
		t.Errorf("after the next check:\n%s", after)
	}
}

// status returns the outcome of a check.
func status(r *check.Report, id string) check.Status {
	i := slices.IndexFunc(r.Results, func(res check.Result) bool { return res.ID == id })
	if i < 0 {
		return ""
	}
	return r.Results[i].Status
}

// What a token does not do, and what it does wrongly, is told apart, and decides what
// it can serve.
func TestRunTells(t *testing.T) {
	softhsm2 := &keystore.Profiles()[0]
	for _, c := range []struct {
		name     string
		rules    []string
		profile  *keystore.Profile
		want     map[string]check.Status
		xks, kms bool
	}{
		{"no AES-GCM", []string{"fail C_EncryptInit CKR_MECHANISM_INVALID"}, softhsm2, map[string]check.Status{
			"xks.create": check.Pass, "xks.encrypt": check.Lacks,
		}, false, false},
		{"wrong plaintexts", []string{"corrupt plaintext"}, softhsm2, map[string]check.Status{"xks.create": check.Fail, "kms.vault": check.Fail}, false, false},
		{"the tokens of Luna", []string{"iv appended"}, nil, map[string]check.Status{"xks.encrypt": check.Pass, "xks.known-key": check.Pass, "xks.tag": check.Pass}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := tokentest.NewFaulty(t)
			u := m.Token(t, new(keystore.Modules))
			m.Set(t, c.rules...)
			o := options(u)
			o.Profile = c.profile
			r := run(t, o)
			for id, want := range c.want {
				if got := status(r, id); got != want {
					t.Errorf("%s: %s, want %s", id, got, want)
				}
			}
			if r.Serves(check.XKS) != c.xks || r.Serves(check.KMS) != c.kms || r.OK() != (c.xks && c.kms) {
				t.Errorf("%+v", r)
			}
			m.Set(t)
			if left := objects(t, u); strings.Contains(left, check.Label) {
				t.Errorf("left in the token:\n%s", left)
			}
		})
	}
}

// A token that refuses the PIN is not asked again, however many profiles there are.
func TestRunWrongPIN(t *testing.T) {
	m := tokentest.NewFaulty(t)
	o := options(m.Token(t, new(keystore.Modules)))
	o.Token.PIN = func() (string, error) { return "wrong-pin", nil }
	before := m.Count(t, "C_Login")
	if r, err := check.Run(patient(t), o); err == nil || r != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if n := m.Count(t, "C_Login") - before; n != 1 {
		t.Errorf("the PIN was tried %d times", n)
	}
}
