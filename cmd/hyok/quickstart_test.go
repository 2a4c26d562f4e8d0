package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/xks"
)

// program returns the command line as a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), programVariable+"=1", "SOFTHSM2_CONF=/nonexistent")
	return cmd
}

// assignments reads quickstart.env as a program would.
func assignments(t *testing.T, dir string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, quickstartFile))
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			vars[name] = strings.Trim(value, "'")
		}
	}
	return vars
}

// From an empty folder to an encryption, and on: what is there is used again, a
// key that another process makes is served, a configuration that is wrong is
// refused, a new credential and SIGHUP take effect, SIGTERM ends with success.
func TestQuickstart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for range 2 {
		if out, err := program(t, "init", "--data", dir, "--listen", "127.0.0.1:0", "--kms-listen", "127.0.0.1:0", "--operations", "").CombinedOutput(); err != nil {
			t.Fatalf("init: %v\n%s", err, out)
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	env := assignments(t, dir)
	for _, name := range []string{"HYOK_XKS_URL", "HYOK_XKS_KEY_ID", "HYOK_XKS_ACCESS_KEY_ID", "HYOK_XKS_SECRET_ACCESS_KEY", "HYOK_XKS_REGION", "HYOK_CA_FILE", "SOFTHSM2_CONF", "HYOK_PKCS11_MODULE", "HYOK_PIN_FILE"} {
		if env[name] == "" {
			t.Errorf("%s is not set", name)
		}
	}
	expectKMSVariables(t, dir, map[string]string{
		"AWS_ENDPOINT_URL_KMS": "https://127.0.0.1:0", "AWS_ENDPOINT_URL_STS": "https://127.0.0.1:0",
		"AWS_REGION": env["HYOK_XKS_REGION"], "AWS_DEFAULT_REGION": env["HYOK_XKS_REGION"], "AWS_CA_BUNDLE": filepath.Join(dir, "tls", "ca.crt"),
	})

	serve := program(t, "serve", "--data", dir, "--log-file", filepath.Join(dir, "log"))
	stdout, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	serve.Stderr = &stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("serve printed nothing: %v\n%s", err, stderr.String())
	}
	_, url, _ := strings.Cut(first, ": ")
	url, _, _ = strings.Cut(url, "/kms/xks/v1")
	client := func(credential xks.Credential) *xks.Client {
		pool := x509.NewCertPool()
		ca, err := os.ReadFile(env["HYOK_CA_FILE"])
		if err != nil || !pool.AppendCertsFromPEM(ca) {
			t.Fatal("no authority:", err)
		}
		c, err := xks.NewClient(url, credential, env["HYOK_XKS_REGION"], xks.WithHTTPClient(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	encrypt := func(c *xks.Client, id string) error {
		_, err := c.Encrypt(t.Context(), id, &xks.EncryptRequest{
			RequestMetadata: xks.RequestMetadata{AWSPrincipalARN: "a", KMSKeyARN: "k", KMSOperation: "Encrypt", KMSRequestID: "1"},
			Plaintext:       []byte("Hello World!"), Algorithm: xks.AlgorithmAESGCM, CDIVAlgorithm: xks.CDIVSHA256,
		})
		return err
	}
	c := client(xks.Credential{AccessKeyID: env["HYOK_XKS_ACCESS_KEY_ID"], SecretAccessKey: env["HYOK_XKS_SECRET_ACCESS_KEY"]})
	if err := encrypt(c, env["HYOK_XKS_KEY_ID"]); err != nil {
		t.Fatal(err)
	}

	if out, err := program(t, "key", "create", "another", "--data", dir).CombinedOutput(); err != nil {
		t.Fatalf("key create: %v\n%s", err, out)
	}
	soon(t, "the key of another process is served", func() bool { return encrypt(c, "another") == nil })

	file := filepath.Join(dir, config.FileName)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("version: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "log"), filepath.Join(dir, "log.1")); err != nil { // as to rotate it
		t.Fatal(err)
	}
	if err := serve.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	soon(t, "the bad configuration is refused in the new log", func() bool {
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		return err == nil && bytes.Contains(log, []byte("the new configuration is refused"))
	})
	if err := encrypt(c, "another"); err != nil {
		t.Errorf("after a refused configuration: %v", err)
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := program(t, "credential", "create", "default", "--data", dir, "-o", "json", "--show-secret").Output()
	if err != nil {
		t.Fatal(err)
	}
	var view credentialView
	(&outcome{stdout: string(out)}).decode(t, &view)
	second := client(xks.Credential{AccessKeyID: view.AccessKeyID, SecretAccessKey: view.SecretAccessKey})
	soon(t, "the new credential counts without a signal", func() bool { return encrypt(second, "another") == nil })

	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("serve ended with %v and %q", err, stderr.String())
	}
}

// expectKMSVariables fails unless the shell that reads quickstart.env exports to
// programs the one identity there is, and these and no other AWS variables.
func expectKMSVariables(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.KMS.Identities) != 1 || c.KMS.Identities[0].ARN != "arn:aws:iam::111122223333:root" {
		t.Fatalf("identities %+v", c.KMS.Identities)
	}
	want["AWS_ACCESS_KEY_ID"] = c.KMS.Identities[0].AccessKeyID
	want["AWS_SECRET_ACCESS_KEY"] = c.KMS.Identities[0].SecretAccessKey
	shell := exec.CommandContext(t.Context(), "sh", "-c", `. "$1" && env`, "sh", filepath.Join(dir, quickstartFile))
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "AWS_SESSION_TOKEN=of-another-session"}
	out, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "="); strings.HasPrefix(name, "AWS_") {
			got[name] = value
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("variables %v, want %v", got, want)
	}
}

// TestInitOfOtherFolders has data folders without TLS, without the embedded KMS,
// and from before there was one.
func TestInitOfOtherFolders(t *testing.T) {
	initialise := func(dir string, args ...string) error {
		out, err := program(t, append([]string{"init", "--data", dir}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := initialise(plain, "--plain-http", "--listen", "127.0.0.1:0", "--kms-listen", "10.0.0.1:0", "--operations", ""); err == nil || !strings.Contains(err.Error(), "kms.listeners[0]: must have tls") {
		t.Errorf("plain HTTP for the network: %v", err)
	}
	if err := initialise(plain, "--plain-http", "--listen", "127.0.0.1:0", "--kms-listen", "localhost:0", "--operations", ""); err != nil {
		t.Fatal(err)
	}
	expectKMSVariables(t, plain, map[string]string{
		"AWS_ENDPOINT_URL_KMS": "http://localhost:0", "AWS_ENDPOINT_URL_STS": "http://localhost:0", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
	})

	without := filepath.Join(dir, "without")
	if err := initialise(without, "--listen", "127.0.0.1:0", "--kms-listen", "", "--operations", ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(without, config.FileName)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := initialise(without); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) || bytes.Contains(after, []byte("kms:")) {
		t.Errorf("%v, hyok.yaml was\n%s\nand is\n%s", err, before, after)
	}
	if env := assignments(t, without); env["HYOK_XKS_URL"] == "" || env["AWS_ACCESS_KEY_ID"] != "" {
		t.Errorf("variables %v", env)
	}
	if fileExists(filepath.Join(without, kmsIdentities)) {
		t.Error("an identity was made for no KMS")
	}
}

// A port that another program has is told before anything is made, with the setting
// that moves it; a folder that is there already may be the other program's.
func TestInitWhereAPortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // the test is over
	address := taken.Addr().String()
	dir := filepath.Join(t.TempDir(), "data")
	args := func(changed string) []string {
		all := []string{"init", "--data", dir}
		for _, flag := range []string{"--listen", "--kms-listen", "--operations"} {
			if flag == changed {
				all = append(all, flag, address)
			} else {
				all = append(all, flag, "127.0.0.1:0")
			}
		}
		return all
	}
	for flag, setting := range map[string]string{"--listen": "LISTEN=", "--kms-listen": "KMS_LISTEN=", "--operations": "OPERATIONS="} {
		out, err := program(t, args(flag)...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(flag)) || !bytes.Contains(out, []byte(setting)) || !bytes.Contains(out, []byte(address)) {
			t.Errorf("%s: %v, %s", flag, err, out)
		}
		if fileExists(dir) {
			t.Fatalf("%s: the folder was made", flag)
		}
	}
	if out, err := program(t, args("")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, config.FileName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := bytes.Cut(text, []byte("\nkms:"))
	if err := os.WriteFile(file, slices.Concat(before, []byte("\nkms:"), bytes.Replace(after, []byte("127.0.0.1:0"), []byte(address), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := program(t, args("--listen")...).CombinedOutput(); err != nil {
		t.Errorf("a folder that is set up: %v, %s", err, out)
	}
	out, err := program(t, "serve", "--data", dir).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("kms.listeners[0].address in "+file)) {
		t.Errorf("serve: %v, %s", err, out)
	}
}

// Java and OpenSSL read the authority's certificate from the trust store.
func TestTrustStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	initialise := func() {
		if out, err := program(t, "init", "--data", dir, "--listen", "127.0.0.1:0", "--kms-listen", "127.0.0.1:0", "--operations", "").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	initialise()
	store, authority := filepath.Join(dir, "tls", "ca.p12"), filepath.Join(dir, "tls", "ca.crt")
	certificate, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		out, err := exec.CommandContext(t.Context(), "openssl", "pkcs12", "-in", store, "-passin", "pass:changeit", "-nokeys").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, text, _ := strings.Cut(string(out), "-----BEGIN")
		return "-----BEGIN" + text
	}
	if got := read(); got != string(certificate) {
		t.Errorf("the store has\n%s, the authority is\n%s", got, certificate)
	}
	if err := os.Remove(store); err != nil { // a folder from before there was one
		t.Fatal(err)
	}
	initialise()
	if got := read(); got != string(certificate) {
		t.Errorf("the store has\n%s, the authority is\n%s", got, certificate)
	}
}

// The root of a volume, as in a container: it is root's, and a group of the process
// may write there.
func TestInitIntoAVolume(t *testing.T) {
	const stranger = 65534
	dir := t.TempDir()
	binary := filepath.Join(dir, "hyok")
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(dir, "volume")
	if err := errors.Join(os.WriteFile(binary, text, 0o755), os.Mkdir(volume, 0o770), os.Chmod(volume, 0o770|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	init := program(t, "init", "--data", volume, "--listen", "127.0.0.1:0", "--kms-listen", "127.0.0.1:0", "--operations", "")
	init.Path = binary
	init.Dir = "/"
	foreign := os.Geteuid() == 0 // else the volume cannot be another user's
	if foreign {
		for up := dir; len(up) > len(os.TempDir()); up = filepath.Dir(up) {
			if err := os.Chmod(up, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		init.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{0}}}
	}
	var stdout, stderr bytes.Buffer
	init.Stdout, init.Stderr = &stdout, &stderr
	if err := init.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	if warned := strings.Contains(stderr.String(), "belongs to another user and keeps its mode 0770"); warned != foreign {
		t.Errorf("it warns: %q", stderr.String())
	}
	if _, err := config.Load(filepath.Join(volume, config.FileName)); err != nil && !foreign {
		t.Error(err)
	}
}

// soon waits for something that a process does by itself.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(30 * time.Second); !done(); <-ticker.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}
