package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/internal/egress"
)

// proxyTransport calls XKS proxies by a transport that can be replaced, when the
// file of trust roots was.
type proxyTransport struct {
	current atomic.Pointer[http.Transport]
	ca      string // path of the file; empty: the system's roots alone
	allowed *egress.Allowed
	roots   []byte // what it had; owned by who calls reload
}

// newProxyTransport returns what XKS proxies are called by: it trusts the system's
// roots and those of a file, connects where it is allowed, and keeps connections
// for the next request.
func newProxyTransport(ca string, allow []string) (*proxyTransport, error) {
	allowed, err := egress.Parse(allow)
	if err != nil {
		return nil, fmt.Errorf("where XKS proxies may be: %w", err)
	}
	t := &proxyTransport{ca: ca, allowed: allowed}
	if ca == "" {
		t.current.Store(t.transport(nil))
		return t, nil
	}
	return t, t.reload()
}

// reload reads the file of trust roots again. Where that fails, those that it had
// stay.
func (t *proxyTransport) reload() error {
	if t.ca == "" {
		return nil
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return fmt.Errorf("trust roots of XKS proxies: %w", err)
	}
	if bytes.Equal(pem, t.roots) {
		return nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return fmt.Errorf("the system's trust roots: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("trust roots of XKS proxies: %s has no certificate in PEM form", t.ca)
	}
	t.roots = pem
	if former := t.current.Swap(t.transport(roots)); former != nil {
		former.CloseIdleConnections()
	}
	return nil
}

func (t *proxyTransport) transport(roots *x509.CertPool) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // AWS KMS goes through none
	// An attempt outlives its request, and others join it: where a name server is
	// silent, they would wait with it for many seconds after it is back.
	transport.DialContext = t.allowed.Dialer(&net.Dialer{Timeout: time.Second})
	transport.MaxIdleConnsPerHost = 256
	transport.IdleConnTimeout = 5 * time.Minute
	if roots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return transport
}

// RoundTrip implements http.RoundTripper.
func (t *proxyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.current.Load().RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t *proxyTransport) CloseIdleConnections() { t.current.Load().CloseIdleConnections() }
