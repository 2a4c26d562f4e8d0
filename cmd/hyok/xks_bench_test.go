package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// canned answers each Encrypt with the same bytes, the n-th with an error if
// fails says so.
func canned(fails func(n int64, r *http.Request) bool) http.Handler {
	var requests atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client's own
		w.Header().Set("Content-Type", "application/json")
		if fails(requests.Add(1), r) {
			w.WriteHeader(xks.ThrottlingException.Status())
			_ = json.MarshalWrite(w, xks.ErrorResponse{Name: xks.ThrottlingException})
			return
		}
		_ = json.MarshalWrite(w, xks.EncryptResponse{Tag: make([]byte, 16), IV: make([]byte, 12), Ciphertext: make([]byte, 32)})
	})
}

func never(int64, *http.Request) bool { return false }

// benchXKS runs the command in the environment of setXKSEnv.
func benchXKS(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := newXKSBenchCommand()
	var out, errOut bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	if strings.Contains(out.String()+errOut.String(), testSecret) {
		t.Error("the output shows the secret")
	}
	return out.String(), errOut.String(), err
}

func TestXKSBenchReports(t *testing.T) {
	setXKSEnv(t)
	s := httptest.NewServer(canned(never))
	defer s.Close()
	t.Setenv(envXKSURL, s.URL+"/store")
	file := filepath.Join(t.TempDir(), "bench.html")

	out, errOut, err := benchXKS(t, "--closed", "--requests=100", "--warmup=0s", "--report="+file)
	if err != nil || errOut != "" {
		t.Fatalf("%v, %q on standard error: want nothing where there is no terminal", err, errOut)
	}
	for _, want := range []string{s.URL + "/store", "closed loop", "100 answered, 0 failed", "p99.99"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if page, err := os.ReadFile(file); err != nil || !bytes.Contains(page, []byte("<svg")) {
		t.Errorf("no report: %v", err)
	}

	out, _, err = benchXKS(t, "-o", "json", "--rate=1000", "--requests=100", "--warmup=0s")
	var report struct {
		URL      string         `json:"url"`
		Mode     string         `json:"mode"`
		Answered int            `json:"answered"`
		Latency  map[string]any `json:"latency"`
	}
	if err := errors.Join(err, json.Unmarshal([]byte(out), &report)); err != nil {
		t.Fatal(err)
	}
	if report.URL != s.URL+"/store" || report.Mode != "open" || report.Answered != 100 || report.Latency["p99_us"] == nil {
		t.Errorf("got %+v", report)
	}
}

func TestXKSBenchExitCodes(t *testing.T) {
	setXKSEnv(t)
	good := httptest.NewServer(canned(never))
	defer good.Close()
	failing := httptest.NewServer(canned(func(n int64, _ *http.Request) bool { return n%10 == 0 }))
	defer failing.Close()
	refusing := httptest.NewServer(canned(func(int64, *http.Request) bool { return true }))
	defer refusing.Close()
	for _, tc := range []struct {
		args string
		want int
		says string
	}{
		{good.URL + " --max-p99=1h --min-rate=0.001", 0, ""},
		{failing.URL, 1, "requests failed"},
		{refusing.URL, 1, "ThrottlingException"},
		{good.URL + " --max-p99=1ns", 1, "--max-p99"},
		{good.URL + " --min-rate=1e9", 1, "--min-rate"},
		{good.URL + " --report=/does/not/exist.svg", 1, "/does/not/exist.svg"},
		{good.URL + " --report=x.png", 2, ".html or .svg"},
		{good.URL + " --output=xml", 2, "--output"},
		{good.URL + " --rate=7", 2, "exclude each other"},
		{good.URL + " --duration=1s", 2, "exclude each other"},
		{good.URL + " --operation=sign", 2, "sign"},
		{good.URL + " --plaintext-size=0", 2, "plaintext"},
		{good.URL + " --key-file=/does/not/exist", 2, "external key ids"},
		{good.URL + " --key-id=a/b", 2, "external key id"},
		{good.URL + " --no-such-flag", 2, "no-such-flag"},
		{good.URL + " " + good.URL, 2, "at most one URL"},
		{"ftp://x", 2, "https://"},
	} {
		args := append(strings.Fields(tc.args), "--closed", "--requests=100", "--warmup=0s")
		_, _, err := benchXKS(t, args...)
		if got := exitCode(err); got != tc.want {
			t.Errorf("%s: exit code %d (%v): want %d", tc.args, got, err, tc.want)
		}
		if tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v does not say %q", tc.args, err, tc.says)
		}
	}
}

func TestXKSBenchKeyFile(t *testing.T) {
	setXKSEnv(t)
	var first, second atomic.Int64
	s := httptest.NewServer(canned(func(_ int64, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/keys/one/encrypt"):
			first.Add(1)
		case strings.Contains(r.URL.Path, "/keys/two/encrypt"):
			second.Add(1)
		default:
			return true
		}
		return false
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("one\n\n  two \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := benchXKS(t, s.URL, "--key-file="+file, "--closed", "--requests=100", "--warmup=0s")
	if err != nil || !strings.Contains(out, "2 keys") {
		t.Errorf("%v in\n%s", err, out)
	}
	if first.Load() < 20 || second.Load() < 20 {
		t.Errorf("%d requests for one key and %d for the other of 101", first.Load(), second.Load())
	}
}

func TestXKSBenchOverTLS(t *testing.T) {
	setXKSEnv(t)
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			s := httptest.NewUnstartedServer(canned(func(_ int64, r *http.Request) bool { return r.ProtoMajor != major }))
			s.EnableHTTP2 = true
			s.StartTLS()
			defer s.Close()
			roots := filepath.Join(t.TempDir(), "roots.pem")
			block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
			if err := os.WriteFile(roots, block, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(envCAFile, roots)
			http2 := fmt.Sprintf("--http2=%t", major == 2)
			if _, _, err := benchXKS(t, s.URL, http2, "--closed", "--requests=100", "--warmup=0s"); err != nil {
				t.Error(err)
			}
		})
	}
	s := httptest.NewUnstartedServer(canned(never))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it says what we provoke
	s.StartTLS()
	defer s.Close()
	if _, _, err := benchXKS(t, s.URL, "--requests=1"); err == nil || !strings.Contains(err.Error(), "tls") {
		t.Errorf("got %v: a certificate of an unknown root was accepted", err)
	}
}
