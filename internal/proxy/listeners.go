package proxy

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hyok-kms/hyok/engine/kmsapi"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// keyPairs holds the key pairs in tokens that listeners use, by URI. They are
// opened before any token and closed after all of them.
type keyPairs map[string]*keystore.KeyPair

// open opens the key pairs of all listeners.
func (p keyPairs) open(c *config.Config, ms *keystore.Modules) error {
	for _, l := range allListeners(c) {
		if l.TLS == nil || l.TLS.KeyURI == "" || p[string(l.TLS.KeyURI)] != nil {
			continue
		}
		u, err := keystore.ParseURI(string(l.TLS.KeyURI))
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Address, err)
		}
		pair, err := ms.OpenKeyPair(u, func() (string, error) { return u.PIN(c.Dir(), false) })
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Address, err)
		}
		p[string(l.TLS.KeyURI)] = pair
	}
	return nil
}

func (p keyPairs) close() error {
	var errs []error
	for uri, pair := range p {
		errs = append(errs, pair.Close())
		delete(p, uri)
	}
	return errors.Join(errs...)
}

// tlsOptions reads the files of a listener.
func (p keyPairs) tlsOptions(t *config.TLS) (xks.TLSOptions, error) {
	o := xks.TLSOptions{ClientNames: t.ClientSubjects}
	var err error
	if t.KeyURI != "" {
		o.Certificate, err = certificateOf(t.Certificate, p[string(t.KeyURI)])
	} else {
		o.Certificate, err = tls.LoadX509KeyPair(t.Certificate, t.KeyFile)
	}
	if err != nil {
		return o, fmt.Errorf("TLS certificate %s: %w", t.Certificate, err)
	}
	if t.ClientCA == "" {
		return o, nil
	}
	pem, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return o, fmt.Errorf("client CA: %w", err)
	}
	o.ClientCAs = x509.NewCertPool()
	if !o.ClientCAs.AppendCertsFromPEM(pem) {
		return o, fmt.Errorf("client CA %s has no certificate in PEM form", t.ClientCA)
	}
	return o, nil
}

// certificateOf joins a chain with the private key in a token that it is for.
func certificateOf(path string, pair *keystore.KeyPair) (tls.Certificate, error) {
	chain, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := parseChain(chain)
	if err != nil {
		return tls.Certificate{}, err
	}
	if pair == nil {
		return tls.Certificate{}, errors.New("its private key is in a token and was not opened when the process started: restart it")
	}
	type comparable interface{ Equal(crypto.PublicKey) bool }
	if public, ok := cert.Leaf.PublicKey.(comparable); !ok || !public.Equal(pair.Public()) {
		return tls.Certificate{}, errors.New("it is for another key pair than the one in the token")
	}
	cert.PrivateKey = pair
	return cert, nil
}

// allListeners returns the XKS listeners of a configuration, then those of the
// KMS.
func allListeners(c *config.Config) []config.Listener {
	if c.KMS == nil {
		return c.Listeners
	}
	return slices.Concat(c.Listeners, c.KMS.Listeners)
}

// listen opens the listeners and serves the front doors on them.
func (p *Proxy) listen(c *config.Config) error {
	connections := p.connectionLimit(c)
	for i, l := range allListeners(c) {
		options := xks.ListenerOptions{Logger: p.log, Connections: connections}
		var handler http.Handler = p.server
		if i >= len(c.Listeners) {
			handler, options.Malformed = p.kms.handler, kmsapi.Malformed
		}
		if l.TLS != nil {
			o, err := p.pairs.tlsOptions(l.TLS)
			if err != nil {
				return fmt.Errorf("listener %s: %w", l.Address, err)
			}
			options.TLS = &o
		}
		inner, err := net.Listen("tcp", l.Address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listener %s: another program listens there already: end it, or change %s in %s (%w)", l.Address, listenerSetting(c, i), c.Path, err)
		} else if err != nil {
			return fmt.Errorf("listener %s: %w", l.Address, err)
		}
		listener, err := xks.NewListener(inner, handler, options)
		if err != nil {
			return errors.Join(fmt.Errorf("listener %s: %w", l.Address, err), inner.Close())
		}
		p.listeners = append(p.listeners, listener)
		p.serving.Go(func() {
			if err := listener.Serve(); err != nil {
				p.failed <- fmt.Errorf("listener %s: %w", l.Address, err)
			}
		})
	}
	return nil
}

// listenerSetting is the name of the setting of a listener of allListeners.
func listenerSetting(c *config.Config, i int) string {
	if i < len(c.Listeners) {
		return fmt.Sprintf("listeners[%d].address", i)
	}
	return fmt.Sprintf("kms.listeners[%d].address", i-len(c.Listeners))
}

// sameListeners reports whether a new configuration can take over the open
// listeners: certificates and client rules may change, addresses may not.
func sameListeners(a, b *config.Config) error {
	if len(a.Listeners) != len(b.Listeners) || len(allListeners(a)) != len(allListeners(b)) || a.Operations != b.Operations {
		return errors.New("listeners were added, removed or moved: restart to let that take effect")
	}
	for i, l := range allListeners(a) {
		m := allListeners(b)[i]
		if l.Address != m.Address || (l.TLS == nil) != (m.TLS == nil) {
			return fmt.Errorf("listener %s was moved or changed between TLS and plain HTTP: restart to let that take effect", l.Address)
		}
	}
	if filepath.Clean(a.SoftHSM2Conf) != filepath.Clean(b.SoftHSM2Conf) {
		return errors.New("softhsm2_conf was changed: restart to let that take effect")
	}
	return nil
}
