package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// mtlsChecks are about client certificates. Each makes a whole request: with
// TLS 1.3 a client learns only from the answer that its certificate is refused.
func mtlsChecks() []Check {
	check := func(id, title string, run func(context.Context, *prober) error) Check {
		return Check{ID: "mtls." + id, Section: secAuthentication, Title: title, Level: Must,
			run: func(ctx context.Context, p *prober) error {
				switch {
				case !p.secure():
					return errPlain
				case p.target.ClientCertificate == nil:
					return skipf("no client certificate given")
				}
				return run(ctx, p)
			}}
	}
	const aws = "cks.kms.us-east-1.amazonaws.com"
	day := 24 * time.Hour
	return []Check{
		check("accepted", "the client certificate given is accepted", func(ctx context.Context, p *prober) error {
			return p.present(ctx, *p.target.ClientCertificate).accepted()
		}),
		check("none", "a client without certificate is refused", func(ctx context.Context, p *prober) error {
			return wantNoAnswer(p.present(ctx))
		}),
		check("self-signed", "a self-signed certificate of the same subject is refused", func(ctx context.Context, p *prober) error {
			return p.presentForged(ctx, p.clientName(aws), time.Now().Add(day))
		}),
		check("expired", "an expired certificate is refused", func(ctx context.Context, p *prober) error {
			return p.presentForged(ctx, p.clientName(aws), time.Now().Add(-day))
		}),
		check("other-name", "a certificate of another subject and authority is refused", func(ctx context.Context, p *prober) error {
			return p.presentForged(ctx, "verify.invalid", time.Now().Add(day))
		}),
	}
}

// clientName returns the subject CN of the client certificate given.
func (p *prober) clientName(otherwise string) string {
	leaf, err := x509.ParseCertificate(p.target.ClientCertificate.Certificate[0])
	if err != nil || leaf.Subject.CommonName == "" {
		return otherwise
	}
	return leaf.Subject.CommonName
}

// present asks for the health status on a connection of its own with these
// client certificates.
func (p *prober) present(ctx context.Context, certificates ...tls.Certificate) answer {
	config := p.tlsConfig()
	config.Certificates = nil
	// A proxy may name the authorities that it trusts: present ours all the same.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certificates) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certificates[0], nil
	}
	client := p.newClient(config)
	defer client.CloseIdleConnections()
	return p.ask(ctx, health, func(c *call) { c.client, c.unrecorded = client, true })
}

func (p *prober) presentForged(ctx context.Context, name string, until time.Time) error {
	certificate, err := selfSigned(name, until)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	return wantNoAnswer(p.present(ctx, certificate))
}

func wantNoAnswer(a answer) error {
	if a.err == nil {
		return fmt.Errorf("want the TLS handshake to fail, got %s", a.describe())
	}
	return nil
}

// selfSigned makes a client certificate that no authority vouches for.
func selfSigned(name string, until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    until.AddDate(0, -1, 0),
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
