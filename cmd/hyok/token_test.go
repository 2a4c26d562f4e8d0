package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// programVariable makes the test binary the program.
const programVariable = "HYOK_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		main()
	}
	os.Exit(tokentest.Main(m))
}

// office is a data folder whose configuration names tokens, on which a test runs
// commands of the whole program.
type office struct {
	*folder
	uris map[string]keystore.URI // by the token's name
}

// newOffice makes tokens of these names, and a key store prod of them.
func newOffice(t *testing.T, names ...string) *office {
	t.Helper()
	text := "version: 1\ntokens:\n"
	uris := map[string]keystore.URI{}
	for _, name := range names {
		u := tokentest.NewToken(t, new(keystore.Modules))
		u.PINSource = "file:pin"
		uris[name] = u
		text += fmt.Sprintf("  %s: {uri: %q}\n", name, u)
	}
	text += "listeners:\n  - address: 127.0.0.1:8080\n    plain_http: true\n"
	o := &office{newBench(t, text), uris}
	o.write("pin", tokentest.PIN+"\n")
	return o
}

func (o *office) write(name, text string) string {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.path(name)
}

// do runs a command, and fails the test if it exits with another code or prints
// a PIN.
func (o *office) do(code int, args ...string) outcome {
	o.t.Helper()
	return o.doWith("", code, append(args, "--data", o.dir)...)
}

// doWith is do with a standard input and no data folder.
func (o *office) doWith(stdin string, code int, args ...string) outcome {
	o.t.Helper()
	got := runProgram(o.t.Context(), stdin, args...)
	if got.code != code {
		o.t.Fatalf("hyok %v: code %d, want %d: %s%s", args, got.code, code, got.stdout, got.stderr)
	}
	if strings.Contains(got.stdout+got.stderr, tokentest.PIN) {
		o.t.Errorf("hyok %v prints a PIN: %s%s", args, got.stdout, got.stderr)
	}
	return got
}

func runProgram(ctx context.Context, stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	code := execute(ctx, root)
	return outcome{stdout.String(), stderr.String(), code}
}

func TestTokenList(t *testing.T) {
	o := newOffice(t, "first", "second")
	for name, u := range o.uris {
		o.do(0, "token", "list").expect(t, name, u.Token, "SoftHSM project")
	}
	var views []tokenView
	o.do(0, "token", "list", "-o", "json").decode(t, &views)
	empty := 0
	for _, v := range views {
		if u, ok := o.uris[v.Name]; v.Name != "" && (!ok || v.Label != u.Token || !v.PINSet || !v.Initialized) {
			t.Errorf("%+v", v)
		}
		if !v.Initialized {
			empty++
		}
	}
	if empty != 1 || len(views) < 3 {
		t.Errorf("%d tokens, %d of them empty", len(views), empty)
	}
	got := o.doWith("", 0, "token", "list", "--module", tokentest.Module(t))
	got.expect(t, o.uris["first"].Token)
	if strings.Contains(got.stdout, "first") {
		t.Errorf("without a configuration there are no names:\n%s", got.stdout)
	}
	o.doWith("", 1, "token", "list", "--module", o.path("none.so")).expect(t, "none.so")
}

func TestTokenInit(t *testing.T) {
	o := newOffice(t, "main")
	label := "init-" + rand.Text()[:8]
	so, pin := o.write("so pin&", "so-secret-1\n"), o.write("user pin&", tokentest.PIN+"\n")
	var v initView
	args := []string{"token", "init", label, "--module", tokentest.Module(t), "--so-pin-file", so, "--pin-file", pin}
	got := o.doWith("", 0, append(args, "-o", "json")...)
	got.decode(t, &v)
	if v.Label != label || !v.Initialized || !v.PINSet || strings.Contains(got.stdout, "so-secret-1") {
		t.Errorf("%+v", v)
	}
	// The URI that is printed opens the token, however its paths are called.
	o.configure(v.URI)
	o.do(0, "token", "show", "main").expect(t, label, "active")
	o.doWith("", 1, args...).expect(t, "is there already")
}

func TestTokenInitPINs(t *testing.T) {
	o := newOffice(t, "main")
	module := tokentest.Module(t)
	o.doWith("", 2, "token", "init", "x", "--module", module).expect(t, "--so-pin-file", envSOPIN)
	o.doWith("", 2, "token", "init", "x").expect(t, "--module")
	o.doWith("", 1, "token", "init", "x", "--module", module, "--so-pin-file", o.path("none")).expect(t, "--so-pin-file")
	t.Setenv(envSOPIN, "so-secret-2")
	t.Setenv(envPIN, "123")
	o.doWith("", 1, "token", "init", "x", "--module", module).expect(t, "user PIN is too short")
	t.Setenv(envPIN, tokentest.PIN)
	o.doWith("", 0, "token", "init", "env-"+rand.Text()[:8], "--module", module).expect(t, "pin-source=env:HYOK_PIN", "was initialized")
}

// A token may have a security officer's PIN before it was ever initialized.
func TestTokenInitOfficer(t *testing.T) {
	m := tokentest.NewFaulty(t)
	t.Setenv(envSOPIN, "so-secret-3")
	t.Setenv(envPIN, tokentest.PIN)
	o := newOffice(t, "main")
	m.Set(t, "fail C_InitToken CKR_PIN_INCORRECT")
	o.doWith("", exitPIN, "token", "init", "x", "--module", m.Path).expect(t, "security officer's PIN", "87654321")
	m.Set(t, "pin-lengths 4 8")
	o.doWith("", 1, "token", "init", "x", "--module", m.Path).expect(t, "PINs of 4 to 8", "nothing was changed")
	if n := m.Count(t, "C_InitToken"); n != 1 {
		t.Errorf("C_InitToken was called %d times", n)
	}
}

func TestTokenShow(t *testing.T) {
	o := newOffice(t, "main")
	o.do(0, "key", "create", "a", "b")
	o.do(0, "token", "show").expect(t, "external keys (XKS)", "CKM_AES_KEY_WRAP_PAD", "ECC_NIST_EDWARDS25519 SIGN_VERIFY", "an object of the token", "import by RSA_AES_KEY_WRAP_SHA_256")
	o.do(0, "token", "show").expect(t, "16 at most", "softhsm2 (run on the real thing)", "active", o.uris["main"].Token)
	var v tokenStateView
	o.do(0, "token", "show", "main", "-o", "json").decode(t, &v)
	for _, a := range v.Abilities {
		if !a.Served || a.For == "" || a.How == "" {
			t.Errorf("%+v", a)
		}
	}
	if len(v.Abilities) != 25 { // two, 19 kinds of key, four ways to import
		t.Errorf("%d abilities", len(v.Abilities))
	}
	if v.Keys != 2 || v.Health != "active" || v.LatencyMS <= 0 || !v.RunOnHardware || v.Sessions != 16 {
		t.Errorf("%+v", v)
	}
	o.do(1, "token", "show", "other").expect(t, `token "other" does not exist`)
}

func TestTokenIsChosen(t *testing.T) {
	o := newOffice(t, "first", "second")
	o.do(2, "key", "create", "k").expect(t, "which token?", "first, second")
	o.do(2, "token", "show").expect(t, "which token?")
	o.do(0, "key", "create", "one", "--token", "first")
	o.do(0, "key", "create", "two", "--token", "second")
	var infos []keystore.KeyInfo
	o.do(0, "key", "list", "-o", "json").decode(t, &infos)
	if len(infos) != 2 || infos[0].ID+infos[0].Token+infos[1].ID+infos[1].Token != "onefirsttwosecond" {
		t.Errorf("%+v", infos)
	}
	o.do(0, "key", "list", "--token", "second", "-o", "json").decode(t, &infos)
	if len(infos) != 1 || infos[0].ID != "two" {
		t.Errorf("%+v", infos)
	}
	o.write(config.FileName, "version: 1\nlisteners:\n  - {address: \"127.0.0.1:1\", plain_http: true}\n")
	o.do(1, "key", "list").expect(t, "has no token")
}

func TestPINs(t *testing.T) {
	o := newOffice(t, "main")
	u := o.uris["main"]
	u.PINSource = ""
	o.configure(u.String())
	o.do(1, "key", "list").expect(t, "pin-source=file:PATH")
	o.configure(u.String() + "&pin-value=" + tokentest.PIN)
	o.do(1, "key", "list").expect(t, "pin-source")
	o.write("pin", "wrong-pin-1\n")
	u.PINSource = "file:pin"
	o.configure(u.String())
	for _, want := range []string{"PIN is incorrect", "refused before"} { // SoftHSM2 counts, and tells so
		if got := o.do(exitPIN, "key", "list"); !strings.Contains(got.stderr, want) || strings.Contains(got.stderr, "wrong-pin-1") {
			t.Errorf("a wrong PIN: %s", got.stderr)
		}
	}
	o.write("pin", tokentest.PIN+"\n")
	o.do(0, "key", "list")
}

// Ctrl-C ends a command whose call hangs in the module.
func TestInterrupt(t *testing.T) {
	for function, args := range map[string][]string{
		"C_GenerateKey":     {"key", "create", "k"},
		"C_GetTokenInfo":    {"token", "list"},
		"C_Login":           {"key", "list"},
		"C_GenerateKeyPair": {"tls", "request", "--host", "a.example"},
	} {
		t.Run(function, func(t *testing.T) {
			o := newOffice(t, "main")
			m := tokentest.NewFaulty(t)
			u := m.Token(t, new(keystore.Modules))
			u.PINSource = "file:pin"
			o.configure(u.String())
			o.do(0, "token", "list") // so that the module has begun to count
			before := m.Count(t, function)
			m.Set(t, "hang "+function)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// In a process of its own, with which the call ends.
			cmd := exec.CommandContext(ctx, os.Args[0], append(args, "--data", o.dir)...)
			cmd.Env = tokentest.ChildEnv(programVariable + "=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for m.Count(t, function) == before && ctx.Err() == nil {
				runtime.Gosched()
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			_ = cmd.Wait() // the exit code says it
			if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(stderr.String(), "interrupt") {
				t.Errorf("code %d: %s", code, &stderr)
			}
		})
	}
}

// configure gives the office one token, main, of this URI.
func (o *office) configure(uri string) {
	o.t.Helper()
	o.write(config.FileName, fmt.Sprintf("version: 1\ntokens:\n  main: {uri: %q}\nlisteners:\n  - {address: \"127.0.0.1:1\", plain_http: true}\n", uri))
}
