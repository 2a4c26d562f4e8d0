package proxy

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyok-kms/hyok/internal/tlstest"
)

// Trust roots of XKS proxies that were replaced are in force after a reload, and
// a file that has none changes nothing.
func TestProxyRootsAreRenewed(t *testing.T) {
	former, renewed := tlstest.NewCA(t), tlstest.NewCA(t)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{renewed.Issue(t, "localhost")}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "proxies.crt")
	write := func(pem []byte) {
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(former.PEM())
	transport, err := newProxyTransport(file, []string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	get := func() error {
		response, err := client.Get(server.URL)
		if err == nil {
			err = response.Body.Close()
		}
		return err
	}
	if get() == nil {
		t.Fatal("a stranger's certificate is trusted")
	}
	write(renewed.PEM())
	if err := transport.reload(); err != nil {
		t.Fatal(err)
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	write([]byte("nothing"))
	if transport.reload() == nil {
		t.Error("a file without certificates is taken")
	}
	if err := get(); err != nil {
		t.Error(err)
	}
}
