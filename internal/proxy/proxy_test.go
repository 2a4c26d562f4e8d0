package proxy_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"go.uber.org/goleak"

	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
	"github.com/hyok-kms/hyok/xks/verify"
)

// Every check of the conformance checker that does not depend on the machine's
// load passes on a real token, over real TLS with client certificates.
func TestConformance(t *testing.T) {
	r := newRig(t)
	for id, usage := range map[string]keystore.KeyUsage{
		"both": both, "encrypt-only": {Encrypt: true}, "decrypt-only": {Decrypt: true}, "impotent": {}, "disabled": both,
	} {
		r.generate(id, usage)
	}
	if err := r.token.SetEnabled(patient(t), "disabled", false); err != nil {
		t.Fatal(err)
	}
	const subject = "cks.kms.us-east-1.amazonaws.com"
	r.configure(strings.Replace(patientConfig, "key: server.key", "key: server.key, client_ca: clients.crt, client_subjects: ["+subject+"]", 1))
	r.start()
	checks, err := verify.Select(verify.Checks(), nil, []string{"load.latency"})
	if err != nil {
		t.Fatal(err)
	}
	client := r.ca.Issue(t, subject)
	sum, err := verify.Run(patient(t), verify.Target{
		URL: r.url(), Region: "us-east-1", Credential: r.load().Stores[0].Credentials[0].Credential,
		KeyID: "both", EncryptOnlyKeyID: "encrypt-only", DecryptOnlyKeyID: "decrypt-only", ImpotentKeyID: "impotent", DisabledKeyID: "disabled",
		RootCAs: r.ca.Pool(), ClientCertificate: &client,
	}, checks, func(res verify.Result) {
		if res.Status == verify.Fail || res.Status == verify.Warn {
			t.Errorf("%s [%s] %s: %s", res.ID, res.Section, res.Title, res.Detail)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !sum.Conforms() || sum.NotChecked > 2 { // the name of the server, and metadata where there is always some
		t.Errorf("%+v", sum)
	}
}

func TestClientCertificateOfAnotherSubject(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	r.configure(strings.Replace(basicConfig, "key: server.key", "key: server.key, client_ca: clients.crt, client_subjects: [kms]", 1))
	r.start()
	for name, c := range map[string]struct {
		cert tls.Certificate
		ok   bool
	}{
		"right": {r.ca.Issue(t, "kms"), true}, "other subject": {r.ca.Issue(t, "kms2"), false}, "other authority": {tlstest.NewCA(t).Issue(t, "kms"), false},
	} {
		if _, err := r.client(c.cert).Encrypt(patient(t), "k", encryptRequest("p", "")); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The listener's private key may live in the token.
func TestTLSKeyInToken(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	// The process that makes the key pair is another one in real life: it must
	// let go of the module before the proxy opens it.
	closeToken(t, r)
	u := r.uri
	u.Object = "hyok-tls"
	pair, err := modules.GenerateKeyPair(u, func() (string, error) { return tokentest.PIN, nil }, keystore.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	cert := r.ca.IssueFor(t, "localhost", pair.Public())
	if err := pair.Close(); err != nil {
		t.Fatal(err)
	}
	tlstest.WriteFiles(t, r.dir, "token", tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: r.ca.Issue(t, "unused").PrivateKey})
	key := "pkcs11:token=" + u.Token + ";object=hyok-tls?module-path=" + u.ModulePath + "&pin-source=file:pin"
	r.configure(strings.Replace(basicConfig, "certificate: server.crt, key: server.key", `certificate: token.crt, key: "`+key+`"`, 1))
	r.start()
	if _, err := r.client().Encrypt(patient(t), "k", encryptRequest("p", "")); err != nil {
		t.Error(err)
	}
	if err := r.proxy.Reload(patient(t), r.load()); err != nil {
		t.Errorf("reload: %v", err)
	}
	// A certificate for another key is refused, the one in force stays.
	tlstest.WriteFiles(t, r.dir, "token", r.ca.Issue(t, "localhost"))
	if err := r.proxy.Reload(patient(t), r.load()); err == nil {
		t.Error("a certificate for another key pair was accepted")
	}
	if _, err := r.client().Encrypt(patient(t), "k", encryptRequest("p", "")); err != nil {
		t.Error(err)
	}
}

// closeToken closes the rig's own access to the token.
func closeToken(t *testing.T, r *rig) {
	t.Helper()
	if err := r.token.Close(patient(t)); err != nil {
		t.Fatal(err)
	}
}

// A key store of two tokens serves the keys of both, and says how each is.
func TestTwoTokens(t *testing.T) {
	r := newRig(t)
	r.generate("in-first", both)
	second := tokentest.NewToken(t, &modules)
	other := tokentest.Open(t, &modules, tokentest.Options(second))
	if err := other.GenerateKey(patient(t), "in-second", both); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(basicConfig, "stores:", `  other: {uri: "pkcs11:token=`+second.Token+`?module-path=`+second.ModulePath+`&pin-source=file:pin"}`+"\nstores:", 1)
	r.configure(strings.Replace(text, "tokens: [main]", "tokens: [main, other]", 1))
	r.start()
	c := r.client()
	for _, id := range []string{"in-first", "in-second"} {
		if _, err := c.Encrypt(patient(t), id, encryptRequest("p", "")); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	wantError(t, second2(c.Encrypt(patient(t), "in-none", encryptRequest("p", ""))), xks.KeyNotFoundException)
	h, err := c.GetHealthStatus(patient(t), metadata)
	if err != nil || len(h.EKMFleet) != 2 || h.EKMFleet[0].Health != xks.HealthActive || h.EKMFleet[1].Health != xks.HealthActive {
		t.Errorf("health: %+v %v", h, err)
	}
}

func second2[T any](_ T, err error) error { return err }

func wantError(t *testing.T, err error, name xks.ErrorName) {
	t.Helper()
	var e *xks.Error
	if !errors.As(err, &e) || e.Name != name {
		t.Errorf("got %v, want %s", err, name)
	}
}

func TestProbesAndMetrics(t *testing.T) {
	r := newRig(t)
	r.generate("k", both)
	r.start()
	c := r.client()
	if _, err := c.Encrypt(patient(t), "k", encryptRequest("p", "")); err != nil {
		t.Fatal(err)
	}
	wantError(t, second2(c.Encrypt(patient(t), "nobody", encryptRequest("p", ""))), xks.KeyNotFoundException)
	for _, path := range []string{"/ping", "/livez", "/readyz"} {
		if status, body := r.get(path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, text := r.get("/metrics")
	for _, line := range []string{
		`hyok_xks_request_duration_seconds_count{error="",operation="Encrypt",store="default"} 1`,
		`hyok_xks_request_duration_seconds_count{error="KeyNotFoundException",operation="Encrypt",store="default"} 1`,
		`hyok_token_health{state="active",token="main"} 1`,
		`hyok_token_keys{token="main"} 1`,
		`hyok_token_sessions_limit{token="main"} 16`,
		`hyok_xks_requests_in_flight 0`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

// Two proxies in turn leave no goroutine behind, and no session: the token
// counts them.
func TestNoLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	faulty := tokentest.NewFaulty(t)
	r := newRig(t)
	r.uri = faulty.Token(t, &modules)
	r.configure(basicConfig + "limits: {deadline: 10s}\n") // how fast the machine is must not decide
	for range 2 {
		r.start()
		if err := r.proxy.Reload(patient(t), r.load()); err != nil {
			t.Fatal(err)
		}
		c := r.client()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				wantError(t, second2(c.Encrypt(patient(t), "nobody", encryptRequest("p", ""))), xks.KeyNotFoundException)
			})
		}
		wg.Wait()
		r.stop()
		if n := faulty.Count(t, tokentest.OpenSessions); n != 0 {
			t.Errorf("%d sessions are open after the shutdown", n)
		}
	}
	closeToken(t, r)
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// Operators see the certificates that are served with the time of their expiry,
// credentials with that of their making, and connections by listener.
func TestDatesAndConnectionsAreShown(t *testing.T) {
	r := newRig(t).start()
	if _, err := r.client().GetHealthStatus(patient(t), metadata); err != nil {
		t.Fatal(err)
	}
	_, text := r.get("/metrics")
	for _, want := range []string{
		`hyok_certificate_expiry_timestamp_seconds{file="` + filepath.Join(r.dir, "server.crt") + `",subject="CN=localhost",use="server"} 1`,
		`hyok_credential_created_timestamp_seconds{access_key_id="` + r.load().Stores[0].Credentials[0].AccessKeyID + `",owner="default"} 1.767366245e+09`,
		`hyok_connections_open{listener="` + r.proxy.Addresses()[0].String() + `"} 1`,
		"hyok_clock_jumps_total 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if !strings.Contains(r.log.String(), "a certificate expires soon") {
		t.Error("no warning of a certificate that expires in an hour")
	}
}

// With the module in a process of its own, which reads the PIN, all is served as
// without, and a kill of that process is recovered from.
func TestIsolation(t *testing.T) {
	r := newKMSRig(t)
	r.generate("k", both)
	r.configure(strings.Replace(kmsConfig, `{uri: "TOKEN"}`, `{uri: "TOKEN", isolation: process}`, 1))
	r.start()
	c, k := r.client(), r.kms("first", "secret-of-the-first")
	use := func() error {
		_, err := c.Encrypt(patient(t), "k", encryptRequest("p", ""))
		_, kmsErr := k.CreateKey(patient(t), &kms.CreateKeyInput{})
		return errors.Join(err, kmsErr)
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	children := moduleProcesses(t)
	if len(children) != 2 { // of the key store and of the KMS
		t.Fatalf("there are %d processes of modules", len(children))
	}
	for _, child := range children {
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for ctx := patient(t); use() != nil; time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("it does not recover: %v", use())
		}
	}
	r.stop()
	if children := moduleProcesses(t); len(children) != 0 {
		t.Errorf("%d processes of modules are left", len(children))
	}
}

// moduleProcesses returns the processes of modules that this one has started.
func moduleProcesses(t *testing.T) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("no children are listed: %v", err)
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread that has ended has none
		for _, child := range strings.Fields(string(children)) {
			line, _ := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if pid, err := strconv.Atoi(child); err == nil && strings.Contains(string(line), "\x00"+keystore.ModuleCommand+"\x00main") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
