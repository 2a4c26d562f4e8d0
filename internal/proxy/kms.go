package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/kmsapi"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// kmsFile is the database of the embedded KMS in its folder.
const kmsFile = "kms.db"

// kmsDoor is the embedded KMS. It has its own sessions with its token, beside
// those of the XKS proxy, so that neither waits for the other, and a reload of
// key stores does not touch it.
type kmsDoor struct {
	settings  config.KMS // that it was opened by
	tokens    []config.Token
	token     *keystore.Token
	vault     *keystore.Vault
	store     *store.SQLite
	engine    *engine.Engine
	handler   *kmsapi.Handler
	proxies   *http.Client
	transport *proxyTransport // of proxies
}

// openKMS opens the embedded KMS that c configures.
func (p *Proxy) openKMS(ctx context.Context, c *config.Config) (d *kmsDoor, err error) {
	d = &kmsDoor{settings: *c.KMS, tokens: c.Tokens}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the embedded KMS: %w", errors.Join(err, d.close(ctx)))
			d = nil
		}
	}()
	options, err := TokenOptions(c, c.Token(c.KMS.Token), p.log)
	if err != nil {
		return d, err
	}
	options.Name += "/kms" // the XKS proxy may have the same token open
	options.Background = true
	if d.token, err = keystore.Open(ctx, p.modules, options); err != nil {
		return d, err
	}
	if err := os.MkdirAll(c.KMS.Data, 0o700); err != nil {
		return d, fmt.Errorf("make its folder: %w", err)
	}
	if d.store, err = store.OpenSQLite(ctx, filepath.Join(c.KMS.Data, kmsFile), p.log); err != nil {
		return d, err
	}
	used, err := hasRecords(ctx, d.store)
	if err != nil {
		return d, err
	}
	if d.vault, err = d.token.OpenVault(ctx, keystore.VaultOptions{Name: c.KMS.Vault, CacheSize: c.KMS.Cache, Existing: used}); err != nil {
		return d, err
	}
	if d.transport, err = newProxyTransport(c.KMS.ProxyCA); err != nil {
		return d, err
	}
	d.proxies = &http.Client{Transport: d.transport}
	clusters, err := p.clusters(c)
	if err != nil {
		return d, err
	}
	d.engine, err = engine.Open(ctx, engine.Config{
		Store: d.store, Token: d.token, Vault: d.vault, Clusters: clusters, Proxies: d.proxies, Logger: p.log,
	})
	if err != nil {
		return d, err
	}
	d.handler, err = kmsapi.NewHandler(d.handlerConfig(p, c))
	return d, err
}

// hasRecords reports whether a store was used before.
func hasRecords(ctx context.Context, s store.Store) (bool, error) {
	errFound := errors.New("found")
	err := s.Load(ctx, func(store.Record) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// handlerConfig translates what the front of the KMS needs.
func (d *kmsDoor) handlerConfig(p *Proxy, c *config.Config) kmsapi.Config {
	k := kmsapi.Config{
		Client:   func(region string, caller engine.Caller) engine.API { return d.engine.Client(region, caller) },
		Deadline: c.KMS.Deadline, MaxInFlight: c.KMS.MaxInFlight, Observe: p.metrics.ObserveKMS, Logger: p.log,
	}
	for _, id := range c.KMS.Identities {
		k.Identities = append(k.Identities, kmsapi.Identity{
			AccessKeyID: id.AccessKeyID, SecretAccessKey: id.SecretAccessKey, SessionToken: id.SessionToken,
			Account: id.Account, PrincipalARN: id.ARN, UserID: id.UserID,
		})
	}
	return k
}

// clusters returns the tokens that custom key stores can stand on.
func (p *Proxy) clusters(c *config.Config) (map[string]engine.Cluster, error) {
	clusters := map[string]engine.Cluster{}
	for _, settings := range c.KMS.Clusters {
		options, err := TokenOptions(c, c.Token(settings.Token), p.log)
		if err != nil {
			return nil, err
		}
		if !options.URI.NamesPIN() {
			options.PIN = nil // only its key store knows the PIN
		}
		options.Name += "/" + settings.ID
		options.Background = true
		anchor := ""
		if settings.TrustAnchor != "" {
			pem, err := os.ReadFile(settings.TrustAnchor)
			if err != nil {
				return nil, fmt.Errorf("trust anchor of %s: %w", settings.ID, err)
			}
			anchor = string(pem)
		}
		clusters[settings.ID] = engine.NewCluster(p.modules, options, keystore.VaultOptions{Name: c.KMS.Vault, CacheSize: c.KMS.Cache}, anchor)
	}
	return clusters, nil
}

// reloadKMS puts new identities, limits and trust roots of XKS proxies in force.
// All else of the embedded KMS needs a restart.
func (p *Proxy) reloadKMS(c *config.Config) error {
	if p.kms == nil {
		return nil
	}
	if err := p.kms.transport.reload(); err != nil {
		return err
	}
	return p.kms.handler.Reload(p.kms.handlerConfig(p, c))
}

// sameKMS reports whether a new configuration can take over the open KMS.
func (p *Proxy) sameKMS(c *config.Config) error {
	switch {
	case (p.kms == nil) != (c.KMS == nil):
		return errors.New("kms was added or removed: restart to let that take effect")
	case p.kms == nil:
		return nil
	}
	a, b := p.kms.settings, *c.KMS
	for _, settings := range []*config.KMS{&a, &b} {
		// These take effect at once.
		settings.Identities, settings.IdentitiesFile, settings.Listeners = nil, "", nil
		settings.Deadline, settings.MaxInFlight = 0, 0
	}
	if !reflect.DeepEqual(a, b) || !p.kms.sameTokens(c) {
		return errors.New("kms, or a token that it uses, was changed in more than identities, certificates, deadline and max_in_flight: restart to let that take effect")
	}
	return nil
}

// sameTokens reports whether the tokens that the KMS uses are configured as they
// were when it was opened.
func (d *kmsDoor) sameTokens(c *config.Config) bool {
	names := []string{d.settings.Token}
	for _, cluster := range d.settings.Clusters {
		names = append(names, cluster.Token)
	}
	for _, name := range names {
		i := slices.IndexFunc(d.tokens, func(t config.Token) bool { return t.Name == name })
		if now := c.Token(name); now == nil || *now != d.tokens[i] {
			return false
		}
	}
	return true
}

// close closes what is open, in the order in which it stands on each other.
func (d *kmsDoor) close(ctx context.Context) error {
	var errs []error
	if d.engine != nil {
		errs = append(errs, d.engine.Close(ctx))
	}
	if d.proxies != nil {
		d.proxies.CloseIdleConnections()
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.vault != nil {
		errs = append(errs, d.vault.Close())
	}
	if d.token != nil {
		errs = append(errs, d.token.Close(ctx))
	}
	return errors.Join(errs...)
}

// KMS returns the embedded KMS, nil if it is not configured.
func (p *Proxy) KMS() *engine.Engine {
	if p.kms == nil {
		return nil
	}
	return p.kms.engine
}

// KMSAddresses returns where the KMS listeners accept connections.
func (p *Proxy) KMSAddresses() []net.Addr {
	var addrs []net.Addr
	for _, l := range p.listeners[len(p.config.Listeners):] {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}
