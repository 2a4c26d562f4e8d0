package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/xks"
)

// TestCrashOfServe kills hyok init twice before it lets it make a data folder, and
// then hyok serve in the midst of encryptions, again and again. Whatever
// an answer was given for decrypts after the next start.
//
// HYOK_TEST_CRASH_ROUNDS sets how often each is killed.
func TestCrashOfServe(t *testing.T) {
	rounds := tokentest.Number(t, "HYOK_TEST_CRASH_ROUNDS", crashRounds) / 2
	dir := ""
	for range rounds {
		dir = filepath.Join(t.TempDir(), "data")
		killedInit(t, dir)
	}
	s := &crashServer{t: t, dir: dir, env: assignments(t, dir)}
	for range rounds {
		s.round(true)
		if t.Failed() {
			return
		}
	}
	s.round(false)
	privateFiles(t, dir)
	if s.answered == 0 {
		t.Error("no encryption was answered before a kill")
	}
	t.Logf("init killed in %d folders, serve %d times; %d answered encryptions, %d decryptions of them checked", rounds, rounds, s.answered, s.opened)
}

// killedInit makes a data folder by an init that succeeds after two that are killed.
func killedInit(t *testing.T, dir string) {
	t.Helper()
	initialise := []string{"init", "--data", dir, "--listen", "127.0.0.1:0", "--kms-listen", "127.0.0.1:0", "--operations", ""}
	for _, patience := range []time.Duration{rand.N(200 * time.Millisecond), rand.N(200 * time.Millisecond), time.Minute} {
		if failure := killAfter(t, program(t, initialise...), patience); failure != "" {
			t.Errorf("init after it was killed: %s", failure)
		}
	}
	for _, args := range [][]string{initialise, {"config", "check", "--data", dir}, {"token", "show", "--data", dir}} {
		if out, err := program(t, args...).CombinedOutput(); err != nil {
			t.Errorf("hyok %v after init was killed: %v\n%s", args, err, out)
		}
	}
	privateFiles(t, dir)
}

// killAfter runs a command and kills it after some time unless it has ended. It
// returns why the command failed, if it did.
func killAfter(t *testing.T, cmd *exec.Cmd, after time.Duration) (failure string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	killer.Stop()
	if err == nil || !cmd.ProcessState.Exited() {
		return ""
	}
	return fmt.Sprintf("%v: %s", err, &stderr)
}

// privateFiles fails the test if others may read anything in a folder.
func privateFiles(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// crashServer is what outlives the killed servers.
type crashServer struct {
	t   *testing.T
	dir string
	env map[string]string

	mu       sync.Mutex
	sealed   []*xks.EncryptResponse // guarded by mu
	answered int                    // guarded by mu
	opened   int
}

// round starts a server, decrypts what those before it have answered for, and kills
// it as it encrypts, or at last ends it.
func (s *crashServer) round(kill bool) {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	serve := program(t, "serve", "--data", s.dir, "--log-file", filepath.Join(s.dir, "log"))
	var stderr bytes.Buffer
	serve.Stderr = &stderr
	out, err := serve.StdoutPipe()
	if err == nil {
		err = serve.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = serve.Wait() }() // it was killed, or the test has failed
	defer func() { _ = serve.Process.Kill() }()
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("serve printed nothing: %v\n%s", err, &stderr)
	}
	c := s.client(first)
	for _, r := range s.sealed { // nobody else is there now
		text, err := c.Decrypt(ctx, s.env["HYOK_XKS_KEY_ID"], &xks.DecryptRequest{
			RequestMetadata: metadata("Decrypt"), Algorithm: xks.AlgorithmAESGCM, Ciphertext: r.Ciphertext, Metadata: r.Metadata, IV: r.IV, Tag: r.Tag,
		})
		if err != nil || string(text.Plaintext) != "Hello World!" {
			t.Fatalf("an encryption that was answered is lost: %v", err)
		}
		s.opened++
	}
	if kill {
		s.load(ctx, c, serve)
	}
}

func metadata(operation string) xks.RequestMetadata {
	return xks.RequestMetadata{AWSPrincipalARN: "a", KMSKeyARN: "k", KMSOperation: operation, KMSRequestID: "1"}
}

// load encrypts by several goroutines until the server is dead.
func (s *crashServer) load(ctx context.Context, c *xks.Client, serve *exec.Cmd) {
	killer := time.AfterFunc(rand.N(100*time.Millisecond), func() { _ = serve.Process.Kill() })
	defer killer.Stop()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				r, err := c.Encrypt(ctx, s.env["HYOK_XKS_KEY_ID"], &xks.EncryptRequest{
					RequestMetadata: metadata("Encrypt"), Plaintext: []byte("Hello World!"), Algorithm: xks.AlgorithmAESGCM,
				})
				if err != nil {
					return // it is dead
				}
				s.mu.Lock()
				s.answered++
				if len(s.sealed) < 200 || s.answered%50 == 0 { // enough to decrypt each time
					s.sealed = append(s.sealed, r)
				}
				s.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// client returns a client of the server whose first line is given.
func (s *crashServer) client(first string) *xks.Client {
	t := s.t
	t.Helper()
	_, url, _ := strings.Cut(first, ": ")
	url, _, _ = strings.Cut(url, "/kms/xks/v1")
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(s.env["HYOK_CA_FILE"])
	if err == nil && !pool.AppendCertsFromPEM(ca) {
		err = fmt.Errorf("no certificate in %s", s.env["HYOK_CA_FILE"])
	}
	if err != nil {
		t.Fatal(err)
	}
	credential := xks.Credential{AccessKeyID: s.env["HYOK_XKS_ACCESS_KEY_ID"], SecretAccessKey: s.env["HYOK_XKS_SECRET_ACCESS_KEY"]}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := xks.NewClient(url, credential, s.env["HYOK_XKS_REGION"], xks.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
