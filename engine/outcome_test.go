package engine_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

// fate is how changes of the store fail.
type fate int

const (
	full         fate = iota // not made; later changes are
	broken                   // not made, and neither are later ones
	unknownMade              // the outcome is unknown: they were made; later ones are not
	unknownLost              // the outcome is unknown: they were not made, and neither are later ones
	numberOfFate             // of fates
)

func (f fate) String() string {
	return [...]string{"full", "broken", "unknown, made", "unknown, not made"}[f]
}

// fatefulStore is a database whose changes fail when they are told to.
type fatefulStore struct {
	store.Store

	mu     sync.Mutex
	good   int  // changes until one fails, from arm on; guarded by mu
	armed  bool // guarded by mu
	how    fate
	failed int  // changes that failed; guarded by mu
	ended  bool // no change is made any more; guarded by mu

	after func() // called after each change, unless nil
}

// arm has changes fail once a number of them have been made.
func (s *fatefulStore) arm(good int, how fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good, s.armed, s.how, s.failed = good, true, how, 0
}

// disarm returns how many changes failed.
func (s *fatefulStore) disarm() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	return s.failed
}

func (s *fatefulStore) Apply(ctx context.Context, changes ...store.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		s.failed++
		return store.ErrBroken
	case !s.armed:
		if s.after != nil {
			defer s.after()
		}
		return s.Store.Apply(ctx, changes...)
	case s.good > 0:
		s.good--
		return s.Store.Apply(ctx, changes...)
	}
	s.failed++
	s.ended = s.how != full
	switch s.how {
	case full:
		return store.ErrFull
	case broken:
		return store.ErrBroken
	case unknownMade:
		if err := s.Store.Apply(ctx, changes...); err != nil {
			return err
		}
	}
	return store.ErrUnknownOutcome
}

// outcomeRig is an engine whose store fails, with a key store on a second token.
type outcomeRig struct {
	*fixture
	token   *clusterRig
	store   *fatefulStore
	storeID *string
}

func newOutcomeRig(t *testing.T) *outcomeRig {
	t.Helper()
	c := newClusterRig(t)
	f := newEngine(t, c.use, func(config *engine.Config) { config.KeepLeftovers = -1 }) // so that all is tidy after a restart
	r := &outcomeRig{fixture: f, token: c, storeID: c.create(f.client())}
	connect(t, f.client(), r.storeID)
	r.restart()
	return r
}

// restart opens the engine as a new process does, whatever the store is like.
func (r *outcomeRig) restart() {
	t := r.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r.end()
	db, err := store.OpenSQLite(ctx, r.path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.store = &fatefulStore{Store: db}
	r.config.Store = r.store
	if r.Engine, err = engine.Open(ctx, r.config); err != nil {
		t.Fatal(err)
	}
	settled(t, r.client(), r.storeID)
	r.tidied()
}

// tidied waits until nothing is left to destroy in a token.
func (r *outcomeRig) tidied() {
	r.t.Helper()
	if err := eventuallyFails(r.t, func() error {
		if r.LeftoversKnown() == 0 {
			return errTidy
		}
		return nil
	}); err != errTidy {
		r.t.Fatal("intents are left")
	}
}

// agree fails unless the tokens have the objects of the keys and no others, and
// every key that should work does.
func (r *outcomeRig) agree(t *testing.T) {
	t.Helper()
	main, clusters := r.ResidentsKnown()
	if got := must(r.config.Vault.Residents(t.Context())); !slices.Equal(got, main) {
		t.Errorf("the token has the objects %v, and the keys have %v", got, main)
	}
	cluster := must(r.token.current().OpenVault(t.Context(), keystore.VaultOptions{Name: clusterVault}))
	defer func() { must(0, cluster.Close()) }()
	if got := must(cluster.Residents(t.Context())); !slices.Equal(got, clusters) {
		t.Errorf("the cluster has the objects %v, and the keys have %v", got, clusters)
	}
	for _, c := range []*engine.Client{r.client(), r.in(crashReplica)} {
		for _, k := range must(c.ListKeys(t.Context(), &kms.ListKeysInput{Limit: aws.Int32(1000)})).Keys {
			r.works(t, c, must(c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: k.KeyId})).KeyMetadata)
		}
	}
}

func (r *outcomeRig) works(t *testing.T, c *engine.Client, k *types.KeyMetadata) {
	t.Helper()
	if k.KeyState != types.KeyStateEnabled {
		return
	}
	var err error
	if k.KeySpec == types.KeySpecSymmetricDefault {
		_, err = c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: k.KeyId, Plaintext: []byte("hello")})
	} else {
		_, err = c.Sign(t.Context(), &kms.SignInput{KeyId: k.KeyId, Message: []byte("hello"), SigningAlgorithm: signingAlgorithm(k.KeySpec)})
	}
	if err != nil {
		t.Errorf("%s of %s: %v", *k.KeyId, k.Origin, err)
	}
}

// outcomeChange is an operation of several steps.
type outcomeChange struct {
	name    string
	commits int  // in which a change may fail
	deletes bool // done once the first is made; the second forgets the intent
	sweeps  bool // the worker does it again
	// prepare makes what do changes, and done reports whether that was changed: in
	// memory, or in the store if the worker does it.
	prepare func(t *testing.T, r *outcomeRig) (do func() error, done func() bool)
}

func outcomeChanges(imports *ed25519Import) []outcomeChange {
	create := func(in *kms.CreateKeyInput, inStore bool) func(*testing.T, *outcomeRig) (func() error, func() bool) {
		return func(t *testing.T, r *outcomeRig) (func() error, func() bool) {
			before, in := r.keys(t), *in
			if inStore {
				in.CustomKeyStoreId = r.storeID
			}
			return func() error {
				_, err := r.client().CreateKey(t.Context(), &in)
				return err
			}, func() bool { return r.keys(t) > before }
		}
	}
	edwards := &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify}
	return []outcomeChange{
		{"create", 1, false, false, create(&kms.CreateKeyInput{}, false)},
		{"create in the token", 2, false, false, create(edwards, false)},
		{"create in a cluster", 2, false, false, create(&kms.CreateKeyInput{Origin: types.OriginTypeAwsCloudhsm}, true)},
		{"rotate", 1, false, false, func(t *testing.T, r *outcomeRig) (func() error, func() bool) {
			id := freshKey(t, r.client()).KeyId
			return func() error {
					_, err := r.client().RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: id})
					return err
				}, func() bool {
					seen, current, _ := r.MaterialsSeen(account, region, *id)
					return len(seen) == 2 && current == seen[1].ID
				}
		}},
		{"import", 2, false, false, imports.prepareImport},
		{"delete imported material", 2, true, false, imports.prepareDelete},
		{"delete a key in the token", 2, true, true, func(t *testing.T, r *outcomeRig) (func() error, func() bool) {
			k := must(r.client().CreateKey(t.Context(), edwards)).KeyMetadata
			return r.expire(t, k.KeyId)
		}},
		{"delete a key in a cluster", 2, true, true, func(t *testing.T, r *outcomeRig) (func() error, func() bool) {
			return r.expire(t, clusterKey(t, r.client(), r.storeID).KeyId)
		}},
	}
}

func (r *outcomeRig) keys(t *testing.T) int {
	t.Helper()
	return len(must(r.client().ListKeys(t.Context(), &kms.ListKeysInput{Limit: aws.Int32(1000)})).Keys)
}

// expire has a key's time come; the deletion is what the worker does of it.
func (r *outcomeRig) expire(t *testing.T, id *string) (do func() error, done func() bool) {
	t.Helper()
	scheduleDeletion(t, r.client(), id)
	r.clock.advance(31 * 24 * time.Hour)
	return func() error { return r.Sweep(t.Context()) }, func() bool { return !r.stored(*id) }
}

// stored reports whether the store has a key.
func (r *outcomeRig) stored(id string) bool {
	found := false
	must(0, r.config.Store.Load(context.Background(), func(record store.Record) error {
		found = found || record.Kind == "key" && record.ID == account+"/"+region+"/"+id
		return nil
	}))
	return found
}

// ed25519Import is a key whose material is imported, and stays in the token.
type ed25519Import struct {
	id       string
	material []byte
	in       *kms.ImportKeyMaterialInput // nil: the import token has expired
}

func (i *ed25519Import) renew(t *testing.T, r *outcomeRig) {
	t.Helper()
	i.in = wrapped(t, r.client(), i.id, types.AlgorithmSpecRsaesOaepSha256, i.material)
	i.in.ExpirationModel = types.ExpirationModelTypeKeyMaterialDoesNotExpire
}

func (i *ed25519Import) there(r *outcomeRig) bool {
	seen, _, _ := r.MaterialsSeen(account, region, i.id)
	return len(seen) == 1 && seen[0].There
}

func (i *ed25519Import) prepareImport(t *testing.T, r *outcomeRig) (do func() error, done func() bool) {
	t.Helper()
	if i.there(r) {
		must(r.client().DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &i.id}))
	}
	return func() error {
		_, err := r.client().ImportKeyMaterial(t.Context(), i.in)
		return err
	}, func() bool { return i.there(r) }
}

func (i *ed25519Import) prepareDelete(t *testing.T, r *outcomeRig) (do func() error, done func() bool) {
	t.Helper()
	if !i.there(r) {
		must(r.client().ImportKeyMaterial(t.Context(), i.in))
	}
	return func() error {
		_, err := r.client().DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &i.id})
		return err
	}, func() bool { return !i.there(r) }
}

// However a commit of a change fails, nothing of the change is seen until the next
// start; then it is there as a whole if the store has made it, and not at all
// otherwise. The tokens have the objects of the keys that there are.
func TestOutcomes(t *testing.T) {
	r := newOutcomeRig(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	imports := &ed25519Import{material: pkcs8(t, private)}
	imports.id = createExternal(t, r.client(), types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify)
	imports.renew(t, r)
	for _, change := range outcomeChanges(imports) {
		for how := range numberOfFate {
			for good := range change.commits {
				t.Run(fmt.Sprintf("%s/%v/%d", change.name, how, good), func(t *testing.T) {
					r.t = t
					defer func() { r.t = t }()
					r.fails(t, change, how, good)
				})
			}
		}
	}
}

// fails has a change fail in one of its commits.
func (r *outcomeRig) fails(t *testing.T, change outcomeChange, how fate, good int) {
	t.Helper()
	do, done := change.prepare(t, r)
	r.store.arm(good, how)
	err := do()
	if r.store.disarm() == 0 || err == nil {
		t.Fatalf("nothing failed: %v", err)
	}
	made := change.deletes && good > 0 // what failed only forgets the intent
	if !change.sweeps && done() != made {
		t.Errorf("changed: %t", done())
	}
	if how == full {
		must(0, r.Sweep(t.Context()))
		r.agree(t)
		made = made || change.sweeps
	}
	made = made || how == unknownMade && (change.deletes || good == change.commits-1)
	r.restart()
	if done() != made {
		t.Errorf("changed: %t, after the restart", done())
	}
	r.agree(t)
	r.sweep() // or the next change would find this one's key
}

// What was made in the token for somebody who waits no more is destroyed by the
// worker.
func TestWorkerDestroysLater(t *testing.T) {
	r := newOutcomeRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.store.after = cancel // once the intent is stored
	_, err := r.client().CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify})
	if err == nil {
		t.Fatal("a key that nobody waited for")
	}
	r.sweep()
	r.agree(t)
	if n := r.LeftoversKnown(); n > 0 {
		t.Errorf("%d intents are left", n)
	}
}

// What was being made when the process ended is kept for seven days, and then
// destroyed.
func TestLeftoversAreKeptForAWhile(t *testing.T) {
	r := newOutcomeRig(t)
	r.config.KeepLeftovers = 0
	r.store.arm(1, unknownLost)
	edwards := &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify}
	if _, err := r.client().CreateKey(t.Context(), edwards); err == nil {
		t.Fatal("a key that is not stored")
	}
	r.end()
	objects := func() int { return len(must(r.config.Vault.Residents(t.Context()))) }
	r.open()
	for range 2 { // the date stays through restarts
		r.clock.advance(3 * 24 * time.Hour)
		r.sweep()
		if n := objects(); n != 1 {
			t.Fatalf("%d objects in the token after %v", n, r.clock.now())
		}
		r.reopen()
	}
	r.clock.advance(25 * time.Hour)
	r.sweep()
	if n, left := objects(), r.LeftoversKnown(); n != 0 || left != 0 {
		t.Errorf("%d objects are in the token and %d intents left after seven days", n, left)
	}
}

// end ends the process though its store is broken.
func (r *outcomeRig) end() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = r.Close(ctx) // a broken store takes no usage
	if err := r.config.Store.Close(); err != nil {
		r.t.Fatal(err)
	}
}
