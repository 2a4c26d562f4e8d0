package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// crashRounds is how often TestCrash kills, unless HYOK_TEST_CRASH_ROUNDS says
// otherwise.
const crashRounds = 20

// TestCrash kills, by SIGKILL and at a random instant, a process in which several
// goroutines create, use, rotate, import, replicate, name, grant and delete keys,
// and opens what it left, again and again on the same tokens and database. All that
// was acknowledged must be there: keys in their states, ciphertexts that decrypt,
// signatures that verify, material, aliases, grants, tags; what was deleted stays
// so; the tokens have the objects of the keys and no others; and no key pair that came
// late for its request was given to two.
//
// HYOK_TEST_CRASH_ROUNDS sets the number of rounds, HYOK_TEST_CRASH_SEED what is
// random in them but for the instant; both are numbers.
func TestCrash(t *testing.T) {
	rounds, seed := tokentest.Number(t, "HYOK_TEST_CRASH_ROUNDS", crashRounds), tokentest.Number(t, "HYOK_TEST_CRASH_SEED", int(time.Now().UnixNano()))
	t.Logf("HYOK_TEST_CRASH_SEED=%d", seed)
	r := newCrashRig(t, uint64(seed))
	for n := range rounds {
		r.rounds++
		r.kill(n)
		// Some are killed while they tidy up after the one before.
		if n%4 != 2 || n == rounds-1 {
			r.check(n)
		}
		if t.Failed() {
			break
		}
	}
	r.report()
}

// crashRig is what outlives the killed processes.
type crashRig struct {
	t      *testing.T
	rand   *rand.Rand
	plan   crashPlan
	ledger *crashLedger

	rounds, acknowledged int
	early                int // rounds in which nothing was begun
	fragments            int // objects of a token that SoftHSM2 had not finished, at most
}

func newCrashRig(t *testing.T, seed uint64) *crashRig {
	t.Helper()
	r := &crashRig{t: t, rand: rand.New(rand.NewPCG(seed, 0)), ledger: newCrashLedger(t)}
	cluster := newClusterRig(t)
	r.plan = crashPlan{
		Main: tokentest.NewToken(t, &modules).String(), Cluster: cluster.options.URI.String(),
		Path: filepath.Join(t.TempDir(), "kms.db"), Anchor: cluster.anchor,
	}
	p := r.open()
	c := p.client(region)
	id := cluster.create(c)
	connect(t, c, id)
	p.close()
	r.plan.StoreID = *id
	return r
}

// kill runs a process and kills it.
func (r *crashRig) kill(round int) {
	t := r.t
	t.Helper()
	r.plan.Seed, r.plan.JumpAt = r.rand.Uint64(), 0
	r.plan.Pairs = round%5 == 4
	if round%3 == 1 {
		r.plan.JumpAt = 100 + r.rand.IntN(300)
	}
	plan, err := json.Marshal(r.plan)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = tokentest.ChildEnv(crashVariable + "=" + string(plan))
	var complaints bytes.Buffer
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	notes := r.follow(child, bufio.NewReader(out))
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Exited() || complaints.Len() > 0 {
		t.Fatalf("round %d: the process was not killed: %v: %s", round, err, &complaints)
	}
	if notes == 0 {
		r.early++
	}
}

// follow reads what the process says and kills it some lines and moments after it
// began, one time in five at once. It returns the number of notes.
func (r *crashRig) follow(child *exec.Cmd, out *bufio.Reader) (notes int) {
	t := r.t
	t.Helper()
	patience := 1 + r.rand.IntN(600)
	if r.plan.Pairs {
		patience *= 5 // which take long
	}
	if r.rand.IntN(5) == 0 {
		patience = 0
	}
	moment := time.Duration(r.rand.IntN(int(6 * time.Millisecond)))
	kill := func() {
		time.Sleep(moment) // so that it does not always die just after a line
		if err := child.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	for line := 0; ; line++ {
		text, err := out.ReadBytes('\n')
		if err == io.EOF {
			return notes // what is left of a line was not acknowledged
		} else if err != nil {
			t.Fatal(err)
		}
		var n crashNote
		if err := json.Unmarshal(text, &n); err != nil {
			t.Fatal(err)
		}
		if line == 0 {
			if n.Note != "began" {
				t.Fatalf("%+v", n)
			}
		} else {
			notes++
			r.ledger.enter(n)
			if n.Note == "done" {
				r.acknowledged++
			}
			r.plan.Ahead = max(r.plan.Ahead, n.Ahead)
		}
		if line == patience {
			go kill()
		}
	}
}

// crashProcess is an engine that the test itself opens.
type crashProcess struct {
	*engine.Engine
	r       *crashRig
	config  engine.Config
	cluster *keystore.Token
	vault   *keystore.Vault // of the cluster
}

// open opens the engine as a new process does: nobody has the PKCS#11 module open
// between two rounds, so that it reads the tokens anew.
func (r *crashRig) open() *crashProcess {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	p := &crashProcess{r: r}
	options := func(uri string) keystore.Options {
		return tokentest.Options(must(keystore.ParseURI(uri)))
	}
	p.config.Token = must(keystore.Open(ctx, &modules, options(r.plan.Main)))
	p.cluster = must(keystore.Open(ctx, &modules, options(r.plan.Cluster)))
	for _, token := range []*keystore.Token{p.config.Token, p.cluster} {
		_, fragments := tokenLabels(t, token) // now, since unwrapped keys have no labels either
		r.fragments = max(r.fragments, fragments)
	}
	p.config.Vault = must(p.config.Token.OpenVault(ctx, keystore.VaultOptions{Name: crashVault}))
	p.vault = must(p.cluster.OpenVault(ctx, keystore.VaultOptions{Name: clusterVault}))
	p.config.Clusters = map[string]engine.Cluster{
		clusterID: engine.NewCluster(&modules, options(r.plan.Cluster), keystore.VaultOptions{Name: clusterVault}, r.plan.Anchor),
	}
	p.config.Store = must(store.OpenSQLite(ctx, r.plan.Path, slog.New(slog.DiscardHandler)))
	// A little later than the process that was killed, so that replicas are there.
	p.config.Now = func() time.Time { return time.Now().Add(r.plan.Ahead + 2*time.Second) }
	p.config.SweepInterval, p.config.KeepLeftovers, p.config.ManagedKeys = -1, -1, true
	p.Engine = must(engine.Open(ctx, p.config))
	return p
}

func (p *crashProcess) client(region string) *engine.Client {
	return p.Client(region, engine.Caller{Account: account, ARN: "arn:aws:iam::" + account + ":user/alice", UserID: "AIDAEXAMPLE"})
}

func (p *crashProcess) close() {
	p.r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := errors.Join(p.Close(ctx), p.config.Store.Close(), p.vault.Close(), p.cluster.Close(ctx), p.config.Vault.Close(), p.config.Token.Close(ctx))
	if err != nil {
		p.r.t.Fatal(err)
	}
}

// check opens what the killed process left.
func (r *crashRig) check(round int) {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	p := r.open()
	c := p.client(region)
	settled(t, c, &r.plan.StoreID)
	// The objects of the store's token are destroyed once that is connected.
	if err := eventuallyFails(t, func() error {
		if p.LeftoversKnown() == 0 {
			return errTidy
		}
		return nil
	}); err != errTidy {
		t.Errorf("round %d: intents are left", round)
	}
	if err := p.Sweep(ctx); err != nil {
		t.Errorf("round %d: %v", round, err)
	}
	r.ledger.check(round, p)
	main, clusters := p.ResidentsKnown()
	r.checkToken(round, p.config.Token, p.config.Vault, crashVault, main, "hyok.root."+crashVault, "hyok.seal."+crashVault)
	r.checkToken(round, p.cluster, p.vault, clusterVault, clusters, "hyok.root."+clusterVault)
	p.close()
	r.checkIntents(round)
}

// checkToken fails unless a token has the objects of some materials, those of the
// vault's own, and no other of hyok's but the probe key.
func (r *crashRig) checkToken(round int, token *keystore.Token, vault *keystore.Vault, name string, want []string, own ...string) {
	t := r.t
	t.Helper()
	got, err := vault.Residents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("round %d: vault %s has the objects %v, and the keys have %v", round, name, got, want)
	}
	labels := slices.Clone(own)
	for _, id := range want {
		labels = append(labels, "hyok.kms."+name+"."+id)
	}
	found, _ := tokenLabels(t, token)
	found = slices.DeleteFunc(found, func(l string) bool { return l == "hyok.probe" })
	slices.Sort(labels)
	if !slices.Equal(found, labels) {
		t.Errorf("round %d: the token of vault %s has %v instead of %v", round, name, found, labels)
	}
}

// tokenLabels returns the labels of a token's objects, sorted, and how many have
// none, or are not even token objects: SoftHSM2 writes an object attribute by
// attribute, these first, and was killed on the way.
func tokenLabels(t *testing.T, token *keystore.Token) (labels []string, fragments int) {
	t.Helper()
	ctx := pkcs11.New(tokentest.Module(t)) // the process has it, initialized
	defer ctx.Destroy()
	s := must(ctx.OpenSession(token.Info().Slot, pkcs11.CKF_SERIAL_SESSION))
	defer func() { _ = ctx.CloseSession(s) }()
	if err := ctx.FindObjectsInit(s, nil); err != nil {
		t.Fatal(err)
	}
	for {
		objects, _, err := ctx.FindObjects(s, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(objects) == 0 {
			break
		}
		for _, o := range objects {
			a, err := ctx.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, nil)})
			switch {
			case err != nil || len(a[0].Value) == 0:
				fragments++
			case a[1].Value[0] == 1: // else it is a session copy
				labels = append(labels, string(a[0].Value))
			}
		}
	}
	if err := ctx.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	slices.Sort(labels)
	return labels, fragments
}

// checkIntents fails if the store has an intent, or a record of a key that is no
// more.
func (r *crashRig) checkIntents(round int) {
	t := r.t
	t.Helper()
	s := must(store.OpenSQLite(t.Context(), r.plan.Path, slog.New(slog.DiscardHandler)))
	err := s.Load(t.Context(), func(record store.Record) error {
		if record.Kind == "intent" {
			return fmt.Errorf("the intent %s is left", record.ID)
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Errorf("round %d: %v", round, err)
	}
}

func (r *crashRig) report() {
	var kinds []string
	for do, n := range r.ledger.count {
		kinds = append(kinds, fmt.Sprint(do, " ", n))
	}
	slices.Sort(kinds)
	r.t.Logf("%d rounds, %d killed before their first change; %d changes acknowledged: %s; %d known keys, %d of them gone; at most %d key pairs kept, and %d unfinished objects of SoftHSM2 in a token",
		r.rounds, r.early, r.acknowledged, strings.Join(kinds, ", "), len(r.ledger.keys), r.ledger.gone(), r.ledger.kept, r.fragments)
	if r.acknowledged < 20*r.rounds {
		r.t.Errorf("only %d changes were acknowledged", r.acknowledged)
	}
}
