package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/engine/internal/constraint"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/clock"
	"github.com/hyok-kms/hyok/keystore"
)

// Config is what an Engine stands on. What it refers to outlives the Engine.
type Config struct {
	Store store.Store     // metadata
	Token *keystore.Token // random bytes
	Vault *keystore.Vault // key material, in the same token
	// Clusters are the tokens that custom key stores of type AWS_CLOUDHSM can
	// stand on, by their cluster id.
	Clusters map[string]Cluster
	// ManagedKeys has the predefined aliases of AWS managed keys listed, and such a
	// key made when its alias is described.
	ManagedKeys bool
	// Proxies calls XKS proxies, wherever callers say they are; nil: a client that
	// trusts the system's roots and connects to public addresses alone.
	Proxies *http.Client
	// ProxyTimeout bounds each call of a proxy; 0: the 250 ms of AWS KMS.
	ProxyTimeout time.Duration
	// Now is the clock; nil: time.Now, which is not believed at once where that
	// would cost key material (see Engine.HoldsBack).
	Now func() time.Time
	// GenerationPatience is how long an RSA pair may be generated until another is
	// begun beside it; 0: 100 seconds, as of the token.
	GenerationPatience time.Duration
	// SweepInterval is the time between two looks for work that is due (see
	// Engine.Sweep); 0: 10 seconds, negative: none, the owner calls Sweep.
	SweepInterval time.Duration
	// KeepLeftovers is how long a token object is kept that an older copy of the
	// database would have destroyed: one that was being made when a process was
	// killed, or whose time ended while none ran; 0: 7 days, negative: not at all.
	KeepLeftovers time.Duration
	Logger        *slog.Logger
}

// Engine is an embedded KMS: all accounts and Regions on one token. It is safe
// for concurrent use.
type Engine struct {
	store       store.Store
	token       *keystore.Token
	vault       *keystore.Vault
	clusters    map[string]Cluster
	proxies     *http.Client
	clock       func() time.Time
	steady      *steadiness // of the clock; nil: it is the owner's
	started     time.Time   // by the clock; never changed
	managedKeys bool
	// keepLeftovers is Config.KeepLeftovers with its default.
	keepLeftovers time.Duration
	// proxyTimeout bounds each call of a proxy.
	proxyTimeout time.Duration
	log          *slog.Logger
	checks       *constraint.Checker

	broken      atomic.Bool // see Broken
	state       *state
	locks       locks
	meta        *meta // written by Open alone
	sealer      sealer
	unfinished  leftovers
	pairs       pairs
	connections connections

	// background is the life of the engine, not of one operation: stop ends it,
	// and with it the goroutines that nobody waits for.
	background context.Context
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// meta is what the store says of itself.
type meta struct {
	ID      string    `json:"id"` // of this KMS, 16 hexadecimal digits
	Created time.Time `json:"c"`
	// Secrets is the key under which passwords and secret access keys of custom
	// key stores are stored.
	Secrets keystore.Material `json:"s"`
	// Digests is the key of the ids of imported key material.
	Digests keystore.Material `json:"d"`
}

// openPatience is how long the token may take for each of the few things that Open
// needs of it: one that hangs must not keep it for ever.
const openPatience = 10 * time.Second

// Open loads the metadata, finishes what a former process has begun, and starts
// the worker.
func Open(ctx context.Context, c Config) (*Engine, error) {
	e := &Engine{
		store: c.Store, token: c.Token, vault: c.Vault, clusters: c.Clusters, proxies: c.Proxies,
		managedKeys: c.ManagedKeys, proxyTimeout: c.ProxyTimeout, keepLeftovers: c.KeepLeftovers, clock: c.Now, log: c.Logger, checks: constraint.New(), state: newState(),
	}
	e.pairs.init(e, c.GenerationPatience)
	if e.proxies == nil {
		e.proxies = newProxies()
	}
	if e.proxyTimeout == 0 {
		e.proxyTimeout = proxyTimeout
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.clock == nil {
		e.clock, e.steady = time.Now, newSteadiness(clock.New(), e.log)
	}
	if e.keepLeftovers == 0 {
		e.keepLeftovers = keepLeftovers
	}
	e.started = e.now()
	if err := e.openSealer(ctx); err != nil {
		return nil, err
	}
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	if err := e.beginNew(ctx); err != nil {
		return nil, err
	}
	if err := e.makeSealer(ctx); err != nil {
		return nil, err
	}
	if err := e.ensureMeta(ctx); err != nil {
		return nil, err
	}
	if err := e.checkWraps(ctx); err != nil {
		return nil, err
	}
	if err := e.reconcile(ctx); err != nil {
		return nil, err
	}
	e.background, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	e.reconnect()
	if c.SweepInterval >= 0 {
		e.running.Go(func() { e.work(e.background, c.SweepInterval) })
	}
	return e, nil
}

// beginNew makes sure that a store without the record of itself is a new one. Of
// another, the secrets that the record tells of would be made anew, and what is
// stored under the former ones be lost without a word.
func (e *Engine) beginNew(ctx context.Context) error {
	switch {
	case e.meta != nil:
		return nil
	case !e.state.isEmpty():
		return errors.New("the metadata store has records, and none that says which KMS it belongs to: one was removed; restore the database from a backup")
	case e.sealer.secret != nil:
		e.log.WarnContext(ctx, "the metadata store is new, and a KMS has used this token before; if that had keys, end hyok and put its database in place")
	}
	return nil
}

// ensureMeta makes the record of a new store.
func (e *Engine) ensureMeta(ctx context.Context) error {
	if e.meta != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	m := &meta{ID: randomHex(8), Created: e.now()}
	b := new(batch)
	secrets, undoSecrets, err := e.generateOwn(ctx, b, "secrets-"+m.ID, keystore.SpecAES256)
	if err != nil {
		return fmt.Errorf("make the key for stored secrets: %w", err)
	}
	digests, undoDigests, err := e.generateOwn(ctx, b, "digests-"+m.ID, keystore.SpecHMAC256)
	if err != nil {
		undoSecrets()
		return fmt.Errorf("make the key for ids of imported material: %w", err)
	}
	m.Secrets, m.Digests = secrets, digests
	b.put(kindMeta, "meta", m, func(*state) {})
	err = e.commitMaterial(ctx, b, func() {
		undoSecrets()
		undoDigests()
	})
	if err != nil {
		return err
	}
	e.meta = m
	return nil
}

// Close ends the worker, stores what it has not stored yet, and disconnects from
// custom key stores. No operation may be under way.
func (e *Engine) Close(ctx context.Context) error {
	e.stop()
	e.running.Wait()
	err := errors.Join(e.storeUsage(ctx), e.connections.close(ctx))
	e.proxies.CloseIdleConnections()
	return err
}

// now is the time that operations go by, to the millisecond, as it is stored.
func (e *Engine) now() time.Time { return e.clock().UTC().Truncate(time.Millisecond) }

// HoldsBack reports whether nothing is destroyed or rotated by date now, because
// the clock has not yet gone steadily for an hour in this process. Keys whose time
// has come cannot be used meanwhile, and can be again if the clock is set back.
func (e *Engine) HoldsBack() bool { return !e.steady.proven() }

// randomHex returns 2n hexadecimal digits of randomness.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
