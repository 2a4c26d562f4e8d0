package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
)

// transportChecks are about TLS and HTTP.
func transportChecks() []Check {
	return []Check{
		{ID: "transport.https", Section: secContentType, Level: Must,
			Title: "the proxy is reached over HTTPS with a certificate for its name", run: overHTTPS},
		{ID: "transport.tls-version", Section: secContentType, Level: Must,
			Title: "TLS 1.2 or later is spoken", run: tlsVersion},
		{ID: "transport.cipher-suite", Section: secContentType, Level: Must,
			Title: "one of the four cipher suites of the specification is spoken", run: cipherSuite},
		{ID: "transport.old-tls", Section: secContentType, Level: Should,
			Title: "TLS 1.0 and TLS 1.1 are refused", run: oldTLS},
		{ID: "transport.http-1.1", Section: secContentType, Level: Must,
			Title: "HTTP/1.1 is spoken", run: http11},
		{ID: "transport.http-2", Section: secContentType, Level: Must,
			Title: "if HTTP/2 is offered, signed requests over it succeed", run: http2},
		{ID: "transport.keep-alive", Section: secMetadataConsiderations, Level: Should,
			Title: "a connection serves more than one request", run: keepAlive},
	}
}

var errPlain = skipf("the URL is plain HTTP")

// overHTTPS relies on the preflight: without a certificate that verifies no
// check is made at all.
func overHTTPS(_ context.Context, p *prober) error {
	if !p.secure() {
		return warnf("the URL is plain HTTP: AWS KMS speaks HTTPS only, so check what terminates TLS too")
	}
	return nil
}

// handshake connects with the target's TLS configuration after change.
func (p *prober) handshake(ctx context.Context, change func(*tls.Config)) (tls.ConnectionState, error) {
	config := p.tlsConfig()
	config.ServerName = p.base.Hostname()
	change(config)
	ctx, cancel := context.WithTimeout(ctx, p.target.Timeout)
	defer cancel()
	address := p.base.Host
	if p.base.Port() == "" {
		address = net.JoinHostPort(p.base.Hostname(), "443")
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }() // nothing was written
	return conn.(*tls.Conn).ConnectionState(), nil
}

func versions(lowest, highest uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = lowest, highest }
}

func tlsVersion(ctx context.Context, p *prober) error {
	if !p.secure() {
		return errPlain
	}
	_, err13 := p.handshake(ctx, versions(tls.VersionTLS13, tls.VersionTLS13))
	_, err12 := p.handshake(ctx, versions(tls.VersionTLS12, tls.VersionTLS12))
	if err13 != nil && err12 != nil {
		return fmt.Errorf("want TLS 1.2 or TLS 1.3, got %w", errors.Join(err13, err12))
	}
	return nil
}

// cipherSuite asks for the two suites of TLS 1.2 and no other. Go offers all
// suites of TLS 1.3 or none, so with a proxy that speaks only that version it
// is luck whether it picks one of the two.
func cipherSuite(ctx context.Context, p *prober) error {
	if !p.secure() {
		return errPlain
	}
	_, err := p.handshake(ctx, func(c *tls.Config) {
		versions(tls.VersionTLS12, tls.VersionTLS12)(c)
		c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
	})
	if err == nil {
		return nil
	}
	state, err13 := p.handshake(ctx, versions(tls.VersionTLS13, tls.VersionTLS13))
	switch {
	case err13 != nil:
		return fmt.Errorf("want one of the suites named, got for TLS 1.2 %w and for TLS 1.3 %w", err, err13)
	case state.CipherSuite == tls.TLS_AES_256_GCM_SHA384, state.CipherSuite == tls.TLS_CHACHA20_POLY1305_SHA256:
		return nil
	}
	return warnf("TLS 1.2 with the suites named is refused (%v), and TLS 1.3 chose %s: whether it also takes the suites named could not be found out",
		err, tls.CipherSuiteName(state.CipherSuite))
}

func oldTLS(ctx context.Context, p *prober) error {
	if !p.secure() {
		return errPlain
	}
	state, err := p.handshake(ctx, func(c *tls.Config) {
		versions(tls.VersionTLS10, tls.VersionTLS11)(c)
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			c.CipherSuites = append(c.CipherSuites, s.ID)
		}
	})
	if err == nil {
		return fmt.Errorf("want the handshake to fail, got %s", tls.VersionName(state.Version))
	}
	return nil
}

func http11(ctx context.Context, p *prober) error {
	a := p.ask(ctx, health)
	if err := a.accepted(); err != nil {
		return err
	}
	if a.proto != "HTTP/1.1" {
		return fmt.Errorf("want HTTP/1.1, got %s", a.proto)
	}
	return nil
}

// http2 is a MUST only where HTTP/2 is negotiated: a proxy need not offer it.
func http2(ctx context.Context, p *prober) error {
	if !p.secure() {
		return errPlain
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	client := p.clientFor(&http.Transport{TLSClientConfig: p.tlsConfig(), Protocols: &protocols})
	defer client.CloseIdleConnections()
	a := p.ask(ctx, encrypt, func(c *call) { c.client = client })
	if a.err == nil && a.proto != "HTTP/2.0" {
		return skipf("the proxy offers no HTTP/2, which it need not")
	}
	return a.accepted()
}

func keepAlive(ctx context.Context, p *prober) error {
	client := p.newClient(p.tlsConfig())
	defer client.CloseIdleConnections()
	var reused bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	})
	for range 2 {
		a := p.ask(ctx, health, func(c *call) { c.client = client })
		if err := a.accepted(); err != nil {
			return err
		}
	}
	if !reused {
		return errors.New("want the second request to use the connection of the first, got a new connection: AWS KMS waits 250 ms, handshakes included")
	}
	return nil
}
