package xks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// TLSOptions says who a listener is and whom it serves.
type TLSOptions struct {
	// Certificate is the chain with its private key, which may be any
	// crypto.Signer: one in a token too.
	Certificate tls.Certificate
	// ClientCAs, if not nil, demands a client certificate issued by one of
	// them whose subject has one of ClientNames as its common name. AWS KMS
	// presents cks.kms.<Region>.amazonaws.com.
	ClientCAs   *x509.CertPool
	ClientNames []string
}

// config returns TLS 1.2 and 1.3 with the suites that the specification names
// ("API content type"). Those of TLS 1.2 with AES-128 are there because HTTP/2
// demands one of them.
func (o TLSOptions) config() (*tls.Config, error) {
	if len(o.Certificate.Certificate) == 0 || o.Certificate.PrivateKey == nil {
		return nil, errors.New("TLS needs a certificate with its private key")
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{o.Certificate},
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   tls.VersionTLS13,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
	switch {
	case o.ClientCAs == nil && len(o.ClientNames) > 0:
		return nil, errors.New("client names are of no use without the client CA that vouches for them")
	case o.ClientCAs != nil && len(o.ClientNames) == 0:
		return nil, errors.New("a client CA needs the subject common names that are let in")
	case o.ClientCAs != nil:
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = o.ClientCAs
		config.VerifyConnection = o.verifyClient
	}
	return config, nil
}

// verifyClient lets a client in whose certificate names it as one of
// ClientNames. It runs for resumed sessions too, which may have begun under
// other options; crypto/tls itself holds their chains against ClientCAs again.
func (o TLSOptions) verifyClient(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("client presented no certificate")
	}
	name := state.PeerCertificates[0].Subject.CommonName
	if !slices.Contains(o.ClientNames, name) {
		return fmt.Errorf("client certificate of %q is not one of those let in", name)
	}
	return nil
}
