package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/telemetry"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/keystore/group"
	"github.com/hyok-kms/hyok/xks"
)

// Proxy is a running XKS proxy.
type Proxy struct {
	log     *slog.Logger
	version string
	modules *keystore.Modules
	pairs   keyPairs // written by Start alone
	metrics *telemetry.Metrics
	server  *xks.Server // nil: the KMS alone is served; written by Start alone
	kms     *kmsDoor    // nil: no KMS is configured; written by Start alone

	listeners  []*xks.Listener // of the XKS proxy, then of the KMS; written by Start alone
	ofXKS      int             // how many of these are of the XKS proxy; written by Start alone
	operations *telemetry.Server
	unopened   []error // why tokens were missing at the start; written by Start alone
	serving    sync.WaitGroup
	looking    sync.WaitGroup // lookOut
	failed     chan error     // a listener that stopped by itself
	draining   atomic.Bool
	stopLook   context.CancelFunc // ends lookOut; nil before Start is done

	mu       sync.Mutex // serialises Reload and Shutdown
	config   *config.Config
	tokens   map[string]*openToken
	missing  map[string]config.Token // could not be opened yet, see missing.go
	givenUp  map[string]bool         // of these, and NAME/kms: not tried until RetryPINs
	reloads  uint64                  // how often Reload has put a configuration in force, or RetryPINs was called
	groups   map[string]*storeGroup
	limiters map[string]*storeLimiter
	dates    *dates
	closing  sync.WaitGroup // tokens that a reload has put out of use
	current  atomic.Pointer[serviceState]
}

// openToken is a token with the settings that it was opened by.
type openToken struct {
	*keystore.Token
	settings config.Token
}

// storeLimiter keeps a store's bucket over reloads that do not change its rate.
type storeLimiter struct {
	*rate.Limiter
	settings config.RateLimit
}

// serviceState is what probes and metrics need of the configuration in force.
type serviceState struct {
	tokens  []*keystore.Token
	missing []string
	stores  map[string]*group.Group
}

// Start opens the tokens and serves. It returns when every listener is open,
// every token searched for its keys and probed once.
func Start(ctx context.Context, c *config.Config, version string, log *slog.Logger) (*Proxy, error) {
	p := &Proxy{
		log: log, version: version, modules: NewModules(c.Dir()), pairs: keyPairs{}, metrics: telemetry.NewMetrics(version),
		failed: make(chan error, 1+len(allListeners(c))), config: c, ofXKS: len(c.Listeners),
		tokens: map[string]*openToken{}, givenUp: map[string]bool{}, limiters: map[string]*storeLimiter{},
	}
	p.dates = newDates(log, p.metrics)
	if err := p.start(ctx, c); err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return nil, errors.Join(err, p.Shutdown(cleanup))
	}
	p.lookAtDates()
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stopLook = stop
	p.looking.Go(func() { p.lookOut(looking) })
	p.looking.Go(func() { p.lookForMissing(looking) })
	return p, nil
}

func (p *Proxy) start(ctx context.Context, c *config.Config) error {
	if err := SetEnvironment(c); err != nil {
		return err
	}
	KeepTokens(p.log)
	if err := p.pairs.open(c, p.modules); err != nil {
		return err
	}
	tokens, missing, err := p.openTokens(ctx, c, p.bear)
	if err != nil {
		return err
	}
	p.tokens, p.missing = tokens, missing
	groups, err := p.openGroups(c, tokens)
	if err != nil {
		return err
	}
	p.startGroups(groups)
	p.groups = groups
	x, limiters := p.serverConfig(c, tokens, groups)
	p.limiters = limiters
	if len(c.Listeners) > 0 {
		if p.server, err = xks.NewServer(x, p.log, p.metrics.Observe); err != nil {
			return err
		}
	}
	p.publish(c)
	if c.KMS != nil {
		if p.kms, err = p.openDoor(c); err != nil {
			return err
		}
		if err := p.openRoom(ctx, c, p.kms, p.reloads); keystore.MayPass(err) {
			p.bear(err)
		} else if err != nil {
			return err
		}
	}
	p.metrics.Watch(p.Tokens, p.missingTokens, p.inFlight)
	p.metrics.WatchGroups(p.groupStats)
	if err := p.listen(c); err != nil {
		return err
	}
	p.metrics.WatchListeners(p.listeners)
	if c.Operations == "" {
		return nil
	}
	p.operations, err = telemetry.Listen(c.Operations, p.metrics, p, p.log)
	return err
}

// openTokens opens the tokens of c that are not open with the same settings
// already, and returns those that are missing, too: that were missing before, and,
// unless bear is nil, that do not answer, which it is told the reasons of. On an
// error those that it has opened are closed again.
func (p *Proxy) openTokens(ctx context.Context, c *config.Config, bear func(error)) (tokens map[string]*openToken, missing map[string]config.Token, err error) {
	tokens, missing = map[string]*openToken{}, map[string]config.Token{}
	for _, settings := range xksTokens(c) {
		name := settings.Name
		if old := p.tokens[name]; old != nil && old.settings == settings && c.Health.Interval == p.config.Health.Interval {
			tokens[name] = old
			continue
		}
		if was, ok := p.missing[name]; ok && was == settings {
			missing[name] = settings
			continue
		}
		var late func(error)
		if bear != nil {
			late = p.lateRefusal(ctx, name, p.reloads)
		}
		t, err := p.openToken(ctx, c, &settings, late)
		switch {
		case err == nil:
			tokens[name] = &openToken{t, settings}
		case bear != nil && keystore.MayPass(err):
			missing[name] = settings
			bear(err)
		default:
			p.retire(tokens, p.tokens)
			return nil, nil, err
		}
	}
	return tokens, missing, nil
}

func (p *Proxy) openToken(ctx context.Context, c *config.Config, settings *config.Token, late func(error)) (*keystore.Token, error) {
	options, err := TokenOptions(c, settings, p.log)
	if err != nil {
		return nil, err
	}
	options.Background, options.Late = true, late
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	t, err := keystore.Open(ctx, p.modules, options)
	if err != nil {
		return nil, err
	}
	if err := t.Refresh(ctx); err != nil {
		return nil, errors.Join(err, t.Close(ctx))
	}
	t.Probe(ctx)
	return t, nil
}

// retire closes the tokens of old that are not in kept, once the requests that
// may still use them are over.
func (p *Proxy) retire(old, kept map[string]*openToken) {
	for name, t := range old {
		if kept[name] == t {
			continue
		}
		wait := p.config.Limits.Deadline + time.Second
		p.closing.Go(func() {
			time.Sleep(wait)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := t.Close(ctx); err != nil {
				p.log.Error("a token that is no longer configured could not be closed", "token", name, "error", err)
			}
		})
	}
}

// serverConfig translates the configuration for the server.
func (p *Proxy) serverConfig(c *config.Config, tokens map[string]*openToken, groups map[string]*storeGroup) (xks.Config, map[string]*storeLimiter) {
	x := xks.Config{
		Deadline: c.Limits.Deadline, MaxInFlight: c.Limits.MaxInFlight, LogCiphertext: c.Log.Ciphertext,
		ProxyModel: "hyok XKS proxy " + p.version,
	}
	limiters := map[string]*storeLimiter{}
	for i := range c.Stores {
		s := &c.Stores[i]
		store := newStore(s, &storeKeys{groups[s.Name].Group})
		if open := groups[s.Name].tokens; len(open) > 0 {
			store.EKMVendor = open[0].Info().Manufacturer
		}
		if s.RateLimit != nil {
			l := p.limiters[s.Name]
			if l == nil || l.settings != *s.RateLimit {
				l = &storeLimiter{rate.NewLimiter(rate.Limit(s.RateLimit.PerSecond), s.RateLimit.Burst), *s.RateLimit}
			}
			limiters[s.Name] = l
			store.Limiter = l.Limiter
		}
		x.Stores = append(x.Stores, store)
	}
	return x, limiters
}

// storeTokens returns the tokens of a key store, and the names of those that are
// missing.
func storeTokens(s *config.Store, tokens map[string]*openToken) (open []*keystore.Token, missing []string) {
	for _, name := range s.Tokens {
		if t := tokens[name]; t != nil {
			open = append(open, t.Token)
		} else {
			missing = append(missing, name)
		}
	}
	return open, missing
}

// allow returns whether an external key id belongs to a store. hyok's own keys
// never do.
func allow(s *config.Store) func(string) bool {
	if s.KeyPattern == "" {
		listed := map[string]bool{}
		for _, id := range s.Keys {
			listed[id] = true
		}
		return func(id string) bool { return listed[id] }
	}
	return func(id string) bool {
		ok, err := path.Match(s.KeyPattern, id)
		return ok && err == nil && keystore.ValidateID(id) == nil
	}
}

// Reload puts another configuration in force without dropping a connection. One
// that cannot be served changes nothing.
func (p *Proxy) Reload(ctx context.Context, c *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.reload(ctx, c)
	p.metrics.Reloaded(err == nil)
	if err == nil {
		p.reloads++
	}
	return err
}

// RetryPINs has the tokens try their PINs again that have refused them, and what was
// given up be looked for again: somebody says that it was mended. Reload does not do
// so, since the configuration may be loaded again for reasons of quite another kind,
// each time a try nearer to a token that has locked itself.
func (p *Proxy) RetryPINs() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reloads++ // attempts under way have read the PIN before
	clear(p.givenUp)
	for _, t := range p.Tokens() {
		t.RetryPIN()
	}
}

func (p *Proxy) reload(ctx context.Context, c *config.Config) error {
	if err := sameListeners(p.config, c); err != nil {
		return err
	}
	if err := p.sameKMS(c); err != nil {
		return err
	}
	listeners := allListeners(c)
	options := make([]*xks.TLSOptions, len(listeners))
	for i, l := range listeners {
		if l.TLS == nil {
			continue
		}
		o, err := p.pairs.tlsOptions(l.TLS)
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Address, err)
		}
		options[i] = &o
	}
	tokens, missing, err := p.openTokens(ctx, c, nil)
	if err != nil {
		return err
	}
	put, err := p.prepareStores(c, tokens, missing)
	if err == nil {
		err = p.reloadKMS(c)
	}
	if err != nil {
		p.retire(tokens, p.tokens)
		return err
	}
	connections := p.connectionLimit(c)
	for i, o := range options {
		p.listeners[i].SetConnections(connections)
		if o == nil {
			continue
		}
		if err := p.listeners[i].SetTLS(*o); err != nil {
			// Only a mistake of ours gets here: the options were read from files
			// that the configuration has checked.
			p.log.Error("a listener keeps its former certificate", "address", listeners[i].Address, "error", err)
		}
	}
	put()
	return nil
}

// prepareStores makes the key stores of c on other tokens and returns what puts both
// in force. Nothing has changed before.
func (p *Proxy) prepareStores(c *config.Config, tokens map[string]*openToken, missing map[string]config.Token) (put func(), err error) {
	groups, err := p.openGroups(c, tokens)
	if err != nil {
		return nil, err
	}
	x, limiters := p.serverConfig(c, tokens, groups)
	if p.server != nil {
		if err := x.Validate(); err != nil {
			return nil, err
		}
	}
	return func() {
		p.startGroups(groups)
		if p.server != nil {
			if err := p.server.Reload(x); err != nil { // it was valid just now
				p.log.Error("the key stores stay as they were", "error", err)
			}
		}
		// While the old configuration says how long its requests may take.
		p.retireGroups(p.groups, groups)
		p.retire(p.tokens, tokens)
		p.tokens, p.missing, p.groups, p.limiters, p.config = tokens, missing, groups, limiters, c
		p.publish(c)
	}, nil
}

// Refresh searches all tokens for keys now.
func (p *Proxy) Refresh(ctx context.Context) error {
	var errs []error
	for _, t := range p.Tokens() {
		errs = append(errs, t.Refresh(ctx))
	}
	p.refreshGroups(ctx)
	return errors.Join(errs...)
}

// publish shows probes and metrics the tokens in force.
func (p *Proxy) publish(c *config.Config) {
	s := &serviceState{stores: map[string]*group.Group{}}
	for _, settings := range xksTokens(c) {
		if t := p.tokens[settings.Name]; t != nil {
			s.tokens = append(s.tokens, t.Token)
		} else {
			s.missing = append(s.missing, settings.Name)
		}
	}
	for name, g := range p.groups {
		s.stores[name] = g.Group
	}
	p.current.Store(s)
}

// Tokens returns the open tokens, that of the KMS last.
func (p *Proxy) Tokens() []*keystore.Token {
	var tokens []*keystore.Token
	if s := p.current.Load(); s != nil {
		tokens = slices.Clone(s.tokens)
	}
	if r := p.kmsRoom(); r != nil {
		tokens = append(tokens, r.token)
	}
	return tokens
}

// missingTokens returns the names of the tokens that are not open yet, as Tokens would.
func (p *Proxy) missingTokens() []string {
	missing := slices.Clone(p.current.Load().missing)
	if p.kms != nil && p.kms.room.Load() == nil {
		missing = append(missing, p.kms.settings.Token+ofKMS)
	}
	return missing
}

// Ready returns why the proxy should not get requests, or nil: it is shutting
// down, a key store has no token that can serve or lacks every key that it had, or the
// embedded KMS has none or lacks its root key.
func (p *Proxy) Ready() error {
	if p.draining.Load() {
		return errors.New("the proxy is shutting down")
	}
	var errs []error
	for name, g := range p.current.Load().stores {
		if !slices.ContainsFunc(g.Health(), func(m group.MemberHealth) bool { return m.Health.State != keystore.Unavailable }) {
			errs = append(errs, fmt.Errorf("key store %s: none of its tokens can serve", name))
		} else if why := g.Lacks(); why != "" {
			errs = append(errs, fmt.Errorf("key store %s: %s", name, why))
		}
	}
	if r := p.kmsRoom(); p.kms != nil && (r == nil || r.token.Health().State == keystore.Unavailable) {
		errs = append(errs, errors.New("the embedded KMS: its token cannot serve"))
	} else if r != nil && r.vault.Lacks() != "" {
		errs = append(errs, fmt.Errorf("the embedded KMS: %s", r.vault.Lacks()))
	}
	return errors.Join(errs...)
}

// inFlight returns the number of XKS requests that are worked on.
func (p *Proxy) inFlight() int {
	if p.server == nil {
		return 0
	}
	return p.server.InFlight()
}

// WatchLog shows operators how many lines of the log were lost. It is called once.
func (p *Proxy) WatchLog(lost func() uint64) { p.metrics.WatchLog(lost) }

// Handler returns what the XKS listeners serve.
func (p *Proxy) Handler() http.Handler { return p.server }

// Addresses returns where the XKS listeners accept connections.
func (p *Proxy) Addresses() []net.Addr {
	var addrs []net.Addr
	for _, l := range p.listeners[:p.ofXKS] {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// OperationsAddress returns where the operators' listener accepts connections,
// nil if there is none.
func (p *Proxy) OperationsAddress() net.Addr {
	if p.operations == nil {
		return nil
	}
	return p.operations.Addr()
}

// Failed receives the error of a listener that stopped by itself.
func (p *Proxy) Failed() <-chan error { return p.failed }

// Shutdown stops accepting requests, finishes those in flight while ctx lasts,
// and closes everything.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.draining.Store(true)
	if p.stopLook != nil {
		p.stopLook()
		p.looking.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	var drained sync.WaitGroup
	results := make([]error, len(p.listeners))
	for i, l := range p.listeners {
		drained.Go(func() { results[i] = l.Shutdown(ctx) })
	}
	drained.Wait()
	errs = append(errs, results...)
	p.serving.Wait()
	p.closing.Wait()
	// The module gets time of its own, however long the draining took.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var stuck error
	if p.kms != nil {
		stuck = p.kms.close(closing)
	}
	p.closeGroups()
	for _, t := range p.tokens {
		stuck = errors.Join(stuck, t.Close(closing))
	}
	if stuck == nil { // else a call still runs in the module, which this would finalize
		stuck = p.pairs.close()
	}
	errs = append(errs, stuck)
	if p.operations != nil {
		errs = append(errs, p.operations.Close())
	}
	return errors.Join(errs...)
}
