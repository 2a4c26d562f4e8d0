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
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/kmsapi"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

const (
	kmsFile = "kms.db" // the database of the embedded KMS in its folder
	ofKMS   = "/kms"   // follows the name of its token
)

// kmsDoor is the embedded KMS. It has its own sessions with its token, beside
// those of the XKS proxy, so that neither waits for the other, and a reload of
// key stores does not touch it.
type kmsDoor struct {
	settings  config.KMS // that it was opened by
	tokens    []config.Token
	handler   *kmsapi.Handler
	proxies   *http.Client
	transport *proxyTransport // of proxies

	// room is what is behind the door; nil while its token is missing. It is
	// stored once, by Start or lookForMissing.
	room atomic.Pointer[kmsRoom]
}

// kmsRoom is an engine and what it stands on.
type kmsRoom struct {
	token  *keystore.Token
	vault  *keystore.Vault
	store  *store.SQLite
	engine *engine.Engine
}

// openDoor makes the front of the embedded KMS that c configures.
func (p *Proxy) openDoor(c *config.Config) (*kmsDoor, error) {
	transport, err := newProxyTransport(c.KMS.ProxyCA, c.KMS.ProxyAllow)
	if err != nil {
		return nil, fmt.Errorf("the embedded KMS: %w", err)
	}
	d := &kmsDoor{settings: *c.KMS, tokens: c.Tokens, transport: transport, proxies: &http.Client{Transport: transport}}
	if d.handler, err = kmsapi.NewHandler(d.handlerConfig(p, c)); err != nil {
		return nil, fmt.Errorf("the embedded KMS: %w", err)
	}
	return d, nil
}

// openRoom opens the embedded KMS behind its door, after so many reloads. [keystore.MayPass] tells of its
// error whether the token is to blame.
func (p *Proxy) openRoom(ctx context.Context, c *config.Config, d *kmsDoor, reloads uint64) (err error) {
	r := &kmsRoom{}
	patience, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("the embedded KMS: %w", errors.Join(err, r.close(patience))) // what hangs is left behind
		}
	}()
	options, err := TokenOptions(c, c.Token(c.KMS.Token), p.log)
	if err != nil {
		return err
	}
	options.Name += ofKMS // the XKS proxy may have the same token open
	options.GenerationPatience = generationPatience(c)
	options.Background, options.Late = true, p.lateRefusal(ctx, c.KMS.Token, reloads)
	if r.token, err = keystore.Open(patience, p.modules, options); err != nil {
		return err
	}
	if err := os.MkdirAll(c.KMS.Data, 0o700); err != nil {
		return fmt.Errorf("make its folder: %w", err)
	}
	if r.store, err = store.OpenSQLite(ctx, filepath.Join(c.KMS.Data, kmsFile), p.log); err != nil {
		return err
	}
	used, err := hasRecords(ctx, r.store)
	if err != nil {
		return err
	}
	if r.vault, err = r.token.OpenVault(patience, keystore.VaultOptions{Name: c.KMS.Vault, CacheSize: c.KMS.Cache, Existing: used}); err != nil {
		return err
	}
	clusters, err := p.clusters(c)
	if err != nil {
		return err
	}
	r.engine, err = engine.Open(ctx, engine.Config{
		Store: r.store, Token: r.token, Vault: r.vault, Clusters: clusters, Proxies: d.proxies, Logger: p.log,
		ManagedKeys:        c.KMS.ManagedKeys,
		GenerationPatience: generationPatience(c),
	})
	if err != nil {
		return err
	}
	d.room.Store(r)
	p.metrics.WatchKMS(r.vault.Stats, r.engine.Broken, r.engine.HoldsBack)
	return nil
}

// generationPatience is how long a key pair may be generated until the token is taken
// to hang: longer than a request waits, since the next one gets what comes late.
func generationPatience(c *config.Config) time.Duration { return 2 * c.KMS.Generation }

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
		Client: func(region string, caller engine.Caller) engine.API {
			if r := d.room.Load(); r != nil {
				return r.engine.Client(region, caller)
			}
			return nil
		},
		Deadline: c.KMS.Deadline, Generation: c.KMS.Generation, MaxInFlight: c.KMS.MaxInFlight, Observe: p.metrics.ObserveKMS, Logger: p.log,
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

// close closes what is behind the door.
func (d *kmsDoor) close(ctx context.Context) error {
	d.proxies.CloseIdleConnections()
	if r := d.room.Load(); r != nil {
		return r.close(ctx)
	}
	return nil
}

// close closes what is open, in the order in which it stands on each other.
func (r *kmsRoom) close(ctx context.Context) error {
	var errs []error
	if r.engine != nil {
		errs = append(errs, r.engine.Close(ctx))
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.vault != nil {
		errs = append(errs, r.vault.Close())
	}
	if r.token != nil {
		errs = append(errs, r.token.Close(ctx))
	}
	return errors.Join(errs...)
}

// kmsRoom returns the embedded KMS, nil if it is not configured or its token is
// missing.
func (p *Proxy) kmsRoom() *kmsRoom {
	if p.kms == nil {
		return nil
	}
	return p.kms.room.Load()
}

// KMSAddresses returns where the KMS listeners accept connections.
func (p *Proxy) KMSAddresses() []net.Addr {
	var addrs []net.Addr
	for _, l := range p.listeners[p.ofXKS:] {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}
