package engine_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

// crashVariable makes the test binary the process that TestCrash kills; it holds a
// crashPlan.
const crashVariable = "HYOK_TEST_CRASH_CHILD"

const (
	crashWorkers = 8 // the last two make keys in the custom key store alone
	crashVault   = "test"
	crashReplica = "us-east-1"
	keysOfWorker = 6
)

// crashPlan is what the killed process is told.
type crashPlan struct {
	Main, Cluster string // URIs of the tokens
	Path          string // of the database
	Anchor        string
	StoreID       string        // of the custom key store
	Ahead         time.Duration // of the clock
	JumpAt        int           // lines until the clock jumps over waiting periods; 0: it does not
	Pairs         bool          // RSA pairs are made above all
	Seed          uint64
}

// crashJump is more than the waiting period of every key.
const crashJump = 8 * 24 * time.Hour

// crashNote is a line that the process prints: that it began, is about to do
// something with a key, has done it, or was refused.
type crashNote struct {
	Note     string // began, try, done, refused, failed
	Do       string
	Region   string
	Key      string
	Spec     types.KeySpec
	Origin   types.OriginType
	Material string
	Text     string // plaintext, message, value of a tag
	Blob     []byte // ciphertext, signature
	Name     string // of an alias or tag, id of a grant
	At       time.Time
	Ahead    time.Duration
}

// crashChild is the process that is killed.
type crashChild struct {
	plan   crashPlan
	engine *engine.Engine

	mu    sync.Mutex // keeps lines whole and in the order of what they tell
	lines int        // guarded by mu
	ahead time.Duration
}

func runCrashChild(text string) error {
	c := new(crashChild)
	if err := json.Unmarshal([]byte(text), &c.plan); err != nil {
		return err
	}
	c.ahead = c.plan.Ahead
	ctx := context.Background()
	config, err := c.open(ctx)
	if err != nil {
		return err
	}
	// All logins are done: SoftHSM2 truncates and rewrites the file of the token
	// itself at each, and does not survive to be killed in between.
	c.print(crashNote{Note: "began"})
	if c.engine, err = engine.Open(ctx, config); err != nil {
		return err
	}
	workers := make([]*crashWorker, crashWorkers)
	for n := range workers {
		workers[n] = &crashWorker{child: c, n: n, rand: mathrand.New(mathrand.NewPCG(c.plan.Seed, uint64(n)))}
		if err := workers[n].adopt(ctx); err != nil { // before anybody makes others
			return err
		}
	}
	ended := make(chan error)
	for _, w := range workers {
		go func() { ended <- w.work(ctx) }()
	}
	return <-ended
}

// open opens both tokens and the store.
func (c *crashChild) open(ctx context.Context) (config engine.Config, err error) {
	options := func(uri string) keystore.Options {
		u, e := keystore.ParseURI(uri)
		err = errors.Join(err, e)
		return tokentest.Options(u)
	}
	main, cluster := options(c.plan.Main), options(c.plan.Cluster)
	if err != nil {
		return config, err
	}
	if config.Token, err = keystore.Open(ctx, &modules, main); err != nil {
		return config, err
	}
	if config.Vault, err = config.Token.OpenVault(ctx, keystore.VaultOptions{Name: crashVault}); err != nil {
		return config, err
	}
	if _, err := keystore.Open(ctx, &modules, cluster); err != nil {
		return config, err
	}
	config.Clusters = map[string]engine.Cluster{
		clusterID: engine.NewCluster(&modules, cluster, keystore.VaultOptions{Name: clusterVault}, c.plan.Anchor),
	}
	config.Store, err = store.OpenSQLite(ctx, c.plan.Path, slog.New(slog.DiscardHandler))
	config.Now, config.SweepInterval, config.KeepLeftovers, config.ManagedKeys = c.now, 5*time.Millisecond, -1, true
	return config, err
}

func (c *crashChild) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// print prints a note, and lets the clock jump when it is time: what it prints of
// that comes first, since the worker sees the new time at once.
func (c *crashChild) print(n crashNote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	write := func(n crashNote) {
		line, err := json.Marshal(n)
		if err != nil {
			panic(err)
		}
		if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
			os.Exit(1) // the parent is gone
		}
	}
	write(n)
	if c.lines++; c.lines == c.plan.JumpAt {
		write(crashNote{Note: "clock", Ahead: c.ahead + crashJump})
		c.ahead += crashJump
	}
}

// crashWorker changes keys that no other worker touches, one after the other.
type crashWorker struct {
	child *crashChild
	n     int
	rand  *mathrand.Rand
	keys  []*crashKey
	fresh int // for names
}

// crashKey is a key as the worker knows it.
type crashKey struct {
	client  *engine.Client
	region  string
	id      string
	spec    types.KeySpec
	origin  types.OriginType
	primary bool // of a multi-Region key
	replica bool // the primary key has one
	aliases []string
	grants  []string

	token  []byte // to import with; nil: none
	public *rsa.PublicKey
}

func (w *crashWorker) client(region string) *engine.Client {
	return w.child.engine.Client(region, engine.Caller{Account: account, ARN: "arn:aws:iam::" + account + ":user/alice", UserID: "AIDAEXAMPLE"})
}

func (w *crashWorker) work(ctx context.Context) error {
	if w.inStore() {
		if err := w.awaitStore(ctx); err != nil {
			return err
		}
	}
	for {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
}

func (w *crashWorker) inStore() bool { return w.n >= crashWorkers-2 }

func (w *crashWorker) awaitStore(ctx context.Context) error {
	for {
		out, err := w.client(region).DescribeCustomKeyStores(ctx, &kms.DescribeCustomKeyStoresInput{CustomKeyStoreId: &w.child.plan.StoreID})
		if err != nil {
			return err
		}
		switch s := out.CustomKeyStores[0]; s.ConnectionState {
		case types.ConnectionStateTypeConnected:
			return nil
		case types.ConnectionStateTypeConnecting:
			time.Sleep(time.Millisecond)
		default:
			return fmt.Errorf("the custom key store is %s %s", s.ConnectionState, s.ConnectionErrorCode)
		}
	}
}

// adopt takes over this worker's share of the keys that former processes made.
func (w *crashWorker) adopt(ctx context.Context) error {
	c := w.client(region)
	pages := kms.NewListKeysPaginator(c, &kms.ListKeysInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, entry := range page.Keys {
			h := fnv.New32a()
			_, _ = h.Write([]byte(*entry.KeyId))
			out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: entry.KeyId})
			if isCode(err, "NotFoundException") {
				continue // its time came just now
			} else if err != nil {
				return err
			}
			m := out.KeyMetadata
			inStore := m.Origin == types.OriginTypeAwsCloudhsm
			share := int(h.Sum32() % (crashWorkers - 2))
			if inStore {
				share = crashWorkers - 2 + int(h.Sum32()%2)
			}
			if share != w.n || m.DeletionDate != nil || m.PendingDeletionWindowInDays != nil {
				continue
			}
			w.keys = append(w.keys, w.keyOf(c, region, m))
		}
	}
	return nil
}

func (w *crashWorker) keyOf(c *engine.Client, region string, m *types.KeyMetadata) *crashKey {
	k := &crashKey{client: c, region: region, id: *m.KeyId, spec: m.KeySpec, origin: m.Origin}
	if r := m.MultiRegionConfiguration; r != nil {
		k.primary, k.replica = true, len(r.ReplicaKeys) > 0
	}
	return k
}

func isCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode() == code {
			return true
		}
	}
	return false
}

// step does one thing with one key.
func (w *crashWorker) step(ctx context.Context) error {
	if w.child.plan.Pairs && !w.inStore() {
		return w.pair(ctx)
	}
	what := w.rand.IntN(100)
	if len(w.keys) < 2 || what < 12 && len(w.keys) < keysOfWorker {
		return w.create(ctx)
	}
	n := w.rand.IntN(len(w.keys))
	k := w.keys[n]
	switch {
	case what < 20 || len(w.keys) >= keysOfWorker:
		return w.delete(ctx, n)
	case k.origin == types.OriginTypeExternal && what < 60:
		return w.importSomething(ctx, k)
	case what < 46:
		return w.use(ctx, k)
	case what < 50:
		return w.dataPair(ctx, k)
	case what < 65:
		return w.rotate(ctx, k)
	case what < 75:
		return w.alias(ctx, k)
	case what < 85:
		return w.grant(ctx, k)
	case what < 90:
		return w.tag(ctx, k)
	case what < 94:
		return w.describeManaged(ctx)
	}
	return w.replicate(ctx, k)
}

// change prints what is about to be done, does it, and prints that it is done with
// what it returns, or that it was refused for one of some reasons.
func (w *crashWorker) change(k *crashKey, n crashNote, do func(*crashNote) error, refusals ...string) (done bool, err error) {
	if k != nil {
		n.Region, n.Key, n.Spec, n.Origin = k.region, k.id, k.spec, k.origin
	}
	n.Note = "try"
	w.child.print(n)
	err = do(&n)
	switch {
	case err == nil:
		n.Note = "done"
	case isCode(err, refusals...):
		n.Note = "refused"
	default:
		return false, fmt.Errorf("%s of %s: %w", n.Do, n.Key, err)
	}
	w.child.print(n)
	return err == nil, nil
}

func (w *crashWorker) create(ctx context.Context) error {
	in := &kms.CreateKeyInput{}
	if !w.inStore() && w.rand.IntN(6) == 0 {
		return w.createRSA(ctx)
	}
	switch kind := w.rand.IntN(6); {
	case w.inStore():
		in.Origin, in.CustomKeyStoreId = types.OriginTypeAwsCloudhsm, &w.child.plan.StoreID
	case kind == 0:
		in.KeySpec, in.KeyUsage = types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify
	case kind == 1:
		in.KeySpec, in.KeyUsage = types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify
	case kind == 2:
		in.MultiRegion = aws.Bool(true)
	case kind == 3:
		in.Origin = types.OriginTypeExternal
	case kind == 4:
		in.Origin, in.KeySpec, in.KeyUsage = types.OriginTypeExternal, types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify
	}
	return w.createBy(ctx, in)
}

// createRSA is not patient, so that pairs come late for their requests.
func (w *crashWorker) createRSA(ctx context.Context) error {
	ctx, cancel := w.impatient(ctx)
	defer cancel()
	return w.createBy(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify}, "DependencyTimeoutException")
}

func (w *crashWorker) impatient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(w.rand.IntN(20))*time.Millisecond)
}

func (w *crashWorker) createBy(ctx context.Context, in *kms.CreateKeyInput, refusals ...string) error {
	c := w.client(region)
	_, err := w.change(nil, crashNote{Do: "create"}, func(n *crashNote) error {
		out, err := c.CreateKey(ctx, in)
		if err != nil {
			return err
		}
		k := w.keyOf(c, region, out.KeyMetadata)
		w.keys = append(w.keys, k)
		n.Region, n.Key, n.Spec, n.Origin = k.region, k.id, k.spec, k.origin
		n.Material = aws.ToString(out.KeyMetadata.CurrentKeyMaterialId)
		return nil
	}, refusals...)
	return err
}

// pair has an RSA pair made, for a key or for the caller.
func (w *crashWorker) pair(ctx context.Context) error {
	i := slices.IndexFunc(w.keys, func(k *crashKey) bool {
		return k.spec == types.KeySpecSymmetricDefault && k.origin == types.OriginTypeAwsKms
	})
	switch {
	case len(w.keys) >= keysOfWorker:
		return w.delete(ctx, w.rand.IntN(len(w.keys)))
	case i < 0:
		return w.createBy(ctx, &kms.CreateKeyInput{})
	case w.rand.IntN(2) == 0:
		return w.createRSA(ctx)
	}
	return w.dataPair(ctx, w.keys[i])
}

// dataPair has an RSA pair made for the caller, as createRSA does.
func (w *crashWorker) dataPair(ctx context.Context, k *crashKey) error {
	if k.spec != types.KeySpecSymmetricDefault || k.origin == types.OriginTypeAwsCloudhsm {
		return w.use(ctx, k)
	}
	ctx, cancel := w.impatient(ctx)
	defer cancel()
	_, err := w.change(k, crashNote{Do: "pair"}, func(n *crashNote) error {
		out, err := k.client.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{
			KeyId: &k.id, KeyPairSpec: types.DataKeyPairSpecRsa2048,
		})
		if err == nil {
			n.Blob = out.PublicKey
		}
		return err
	}, "DependencyTimeoutException", "KMSInvalidStateException")
	return err
}

func (w *crashWorker) delete(ctx context.Context, n int) error {
	k := w.keys[n]
	w.keys = append(w.keys[:n], w.keys[n+1:]...)
	_, err := w.change(k, crashNote{Do: "delete"}, func(n *crashNote) error {
		out, err := k.client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &k.id, PendingWindowInDays: aws.Int32(7)})
		if err == nil && out.DeletionDate != nil {
			n.At = *out.DeletionDate
		}
		return err
	})
	return err
}

// use makes a ciphertext or a signature.
func (w *crashWorker) use(ctx context.Context, k *crashKey) error {
	text := w.name("text")
	_, err := w.change(k, crashNote{Do: "use", Text: text}, func(n *crashNote) (err error) {
		if k.spec != types.KeySpecSymmetricDefault {
			out, e := k.client.Sign(ctx, &kms.SignInput{KeyId: &k.id, Message: []byte(text), SigningAlgorithm: signingAlgorithm(k.spec)})
			if err = e; err == nil {
				n.Blob = out.Signature
			}
			return err
		}
		out, err := k.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.id, Plaintext: []byte(text)})
		if err == nil {
			n.Blob = out.CiphertextBlob
		}
		return err
	}, "KMSInvalidStateException")
	return err
}

func signingAlgorithm(s types.KeySpec) types.SigningAlgorithmSpec {
	switch s {
	case types.KeySpecEccNistP256:
		return types.SigningAlgorithmSpecEcdsaSha256
	case types.KeySpecRsa2048:
		return types.SigningAlgorithmSpecRsassaPssSha256
	}
	return types.SigningAlgorithmSpecEd25519Sha512
}

func (w *crashWorker) rotate(ctx context.Context, k *crashKey) error {
	if k.spec != types.KeySpecSymmetricDefault || k.origin == types.OriginTypeAwsCloudhsm {
		return w.use(ctx, k)
	}
	_, err := w.change(k, crashNote{Do: "rotate"}, func(n *crashNote) error {
		if _, err := k.client.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: &k.id}); err != nil {
			return err
		}
		out, err := k.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &k.id})
		if err == nil {
			n.Material = *out.KeyMetadata.CurrentKeyMaterialId
		}
		return err
	}, "KMSInvalidStateException", "LimitExceededException")
	return err
}

// importSomething imports what the key lacks, or deletes some of what it has.
func (w *crashWorker) importSomething(ctx context.Context, k *crashKey) error {
	if k.token == nil && !w.parameters(ctx, k) {
		return errors.New("no parameters for import")
	}
	seen, current, _ := w.child.engine.MaterialsSeen(account, k.region, k.id)
	there := 0
	for _, m := range seen {
		if m.There {
			there++
		}
	}
	symmetric := k.spec == types.KeySpecSymmetricDefault
	switch {
	case len(seen) == 0 || there < len(seen):
		return w.importMaterial(ctx, k, there > 0 && len(seen) == there)
	case w.rand.IntN(3) == 0:
		in := &kms.DeleteImportedKeyMaterialInput{KeyId: &k.id}
		m := seen[w.rand.IntN(len(seen))]
		if symmetric {
			in.KeyMaterialId = &m.ID
		}
		_, err := w.change(k, crashNote{Do: "unimport", Material: m.ID}, func(*crashNote) error {
			_, err := k.client.DeleteImportedKeyMaterial(ctx, in)
			return err
		})
		return err
	case symmetric && current == seen[len(seen)-1].ID:
		return w.importMaterial(ctx, k, true)
	}
	return w.use(ctx, k)
}

// parameters gets an import token. That makes an RSA key, which is slow, so one
// serves for all imports of a key by this process.
func (w *crashWorker) parameters(ctx context.Context, k *crashKey) bool {
	done, err := w.change(k, crashNote{Do: "parameters"}, func(*crashNote) error {
		out, err := k.client.GetParametersForImport(ctx, &kms.GetParametersForImportInput{
			KeyId: &k.id, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
		})
		if err != nil {
			return err
		}
		public, err := x509.ParsePKIXPublicKey(out.PublicKey)
		if err == nil {
			k.token, k.public = out.ImportToken, public.(*rsa.PublicKey)
		}
		return err
	})
	return done && err == nil
}

// importMaterial imports material of the key: one that it never had, or one that
// it lacks.
func (w *crashWorker) importMaterial(ctx context.Context, k *crashKey, another bool) error {
	seed := w.lacking(ctx, k)
	if another || seed == "" {
		seed = w.name("material")
	}
	in := &kms.ImportKeyMaterialInput{KeyId: &k.id, ImportToken: k.token, ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire}
	if another {
		in.ImportType = types.ImportTypeNewKeyMaterial
	}
	var material []byte
	if k.spec == types.KeySpecSymmetricDefault {
		sum := sha256.Sum256([]byte(seed))
		material, in.KeyMaterialDescription = sum[:], &seed
	} else {
		sum := sha256.Sum256([]byte(k.id)) // the same again and again
		der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(sum[:]))
		if err != nil {
			return err
		}
		material = der
	}
	var err error
	if in.EncryptedKeyMaterial, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, k.public, material, nil); err != nil {
		return err
	}
	_, err = w.change(k, crashNote{Do: "import"}, func(n *crashNote) error {
		out, err := k.client.ImportKeyMaterial(ctx, in)
		if isCode(err, "ExpiredImportTokenException", "InvalidImportTokenException") {
			k.token = nil // the clock has jumped
		}
		if err != nil {
			return err
		}
		n.Material = aws.ToString(out.KeyMaterialId)
		if seen, _, _ := w.child.engine.MaterialsSeen(account, k.region, k.id); n.Material == "" && len(seen) == 1 {
			n.Material = seen[0].ID // which the operation does not tell of a pair
		}
		return nil
	}, "ExpiredImportTokenException", "InvalidImportTokenException")
	return err
}

// lacking returns what a material that the key lacks was made of, which stands in
// its description.
func (w *crashWorker) lacking(ctx context.Context, k *crashKey) string {
	if k.spec != types.KeySpecSymmetricDefault {
		return ""
	}
	out, err := k.client.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: &k.id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial})
	if err != nil {
		return ""
	}
	for _, m := range out.Rotations {
		if m.ImportState == types.ImportStatePendingImport {
			return aws.ToString(m.KeyMaterialDescription)
		}
	}
	return ""
}

func (w *crashWorker) alias(ctx context.Context, k *crashKey) error {
	if len(k.aliases) > 1 {
		name := k.aliases[0]
		k.aliases = k.aliases[1:]
		_, err := w.change(k, crashNote{Do: "unalias", Name: name}, func(*crashNote) error {
			_, err := k.client.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &name})
			return err
		})
		return err
	}
	name := "alias/" + w.name("alias")
	done, err := w.change(k, crashNote{Do: "alias", Name: name}, func(*crashNote) error {
		_, err := k.client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &k.id})
		return err
	}, "LimitExceededException")
	if done {
		k.aliases = append(k.aliases, name)
	}
	return err
}

func (w *crashWorker) grant(ctx context.Context, k *crashKey) error {
	if len(k.grants) > 1 {
		id := k.grants[0]
		k.grants = k.grants[1:]
		_, err := w.change(k, crashNote{Do: "revoke", Name: id}, func(*crashNote) error {
			_, err := k.client.RevokeGrant(ctx, &kms.RevokeGrantInput{GrantId: &id, KeyId: &k.id})
			return err
		}, "KMSInvalidStateException")
		return err
	}
	_, err := w.change(k, crashNote{Do: "grant"}, func(n *crashNote) error {
		out, err := k.client.CreateGrant(ctx, &kms.CreateGrantInput{
			KeyId: &k.id, GranteePrincipal: aws.String("arn:aws:iam::" + account + ":user/bob"),
			Operations: []types.GrantOperation{types.GrantOperationDescribeKey},
		})
		if err == nil {
			n.Name = *out.GrantId
			k.grants = append(k.grants, n.Name)
		}
		return err
	}, "KMSInvalidStateException")
	return err
}

func (w *crashWorker) tag(ctx context.Context, k *crashKey) error {
	name, value := fmt.Sprint("tag", w.rand.IntN(4)), w.name("value")
	_, err := w.change(k, crashNote{Do: "tag", Name: name, Text: value}, func(*crashNote) error {
		_, err := k.client.TagResource(ctx, &kms.TagResourceInput{KeyId: &k.id, Tags: []types.Tag{{TagKey: &name, TagValue: &value}}})
		return err
	})
	return err
}

// describeManaged describes the alias of an AWS managed key, as others may at the
// same time, for the first time in one of some Regions.
func (w *crashWorker) describeManaged(ctx context.Context) error {
	n := crashNote{Do: "describe managed", Region: fmt.Sprint("zz-managed-", w.rand.IntN(50)), Name: "alias/aws/s3"}
	_, err := w.change(nil, n, func(n *crashNote) error {
		out, err := w.client(n.Region).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &n.Name})
		if err == nil {
			n.Key = *out.KeyMetadata.KeyId
		}
		return err
	})
	return err
}

func (w *crashWorker) replicate(ctx context.Context, k *crashKey) error {
	if !k.primary {
		return w.use(ctx, k)
	}
	if k.replica { // it goes again, so that the primary key can
		k.replica = false
		there := &crashKey{client: w.client(crashReplica), region: crashReplica, id: k.id, spec: k.spec, origin: k.origin}
		_, err := w.change(there, crashNote{Do: "delete"}, func(n *crashNote) error {
			out, err := there.client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &k.id, PendingWindowInDays: aws.Int32(7)})
			if err == nil {
				n.At = *out.DeletionDate
			}
			return err
		}, "KMSInvalidStateException", "NotFoundException")
		return err
	}
	done, err := w.change(k, crashNote{Do: "replicate"}, func(*crashNote) error {
		_, err := k.client.ReplicateKey(ctx, &kms.ReplicateKeyInput{KeyId: &k.id, ReplicaRegion: aws.String(crashReplica)})
		return err
	}, "AlreadyExistsException", "KMSInvalidStateException")
	k.replica = done
	return err
}

// name returns a name that nobody else gives, in this process or another.
func (w *crashWorker) name(kind string) string {
	w.fresh++
	sum := sha256.Sum256(fmt.Append(nil, w.child.plan.Seed, w.n, w.fresh))
	return kind + "-" + hex.EncodeToString(sum[:8])
}
