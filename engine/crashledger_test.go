package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/hyok-kms/hyok/engine"
)

// crashLedger is what killed processes have acknowledged.
type crashLedger struct {
	t     *testing.T
	keys  map[string]*crashEntry // by Region and id
	given map[string]bool        // public keys of the data key pairs that callers got
	count map[string]int         // acknowledged changes, by what was done
	// managed has the ids of AWS managed keys by their Region and alias.
	managed map[[2]string]string
	kept    int // key pairs that waited for a request after a round, at most
}

// crashEntry is what is known of a key.
type crashEntry struct {
	made      crashNote
	created   bool     // acknowledged
	pending   []string // what was begun and perhaps done when a process was killed, until the next look
	materials []string // KeyMaterialIds that were acknowledged, but for those given up
	given     []string // those given up
	current   string
	uses      []crashNote
	aliases   map[string]bool
	grants    map[string]bool
	tags      map[string]string
	unknown   map[string]bool // aliases, grants and tags of which it is not known
	deleting  bool
	at        time.Time // zero while it waits for its replicas
	gone      bool
	history   []string // the last of all that was said and seen, for complaints
}

// usesKept bounds the ciphertexts and signatures that are kept of a key.
const usesKept = 40

func newCrashLedger(t *testing.T) *crashLedger {
	return &crashLedger{t: t, keys: map[string]*crashEntry{}, given: map[string]bool{}, count: map[string]int{}, managed: map[[2]string]string{}}
}

func (l *crashLedger) entry(region, id string) *crashEntry {
	e := l.keys[region+"/"+id]
	if e == nil {
		e = &crashEntry{
			made:    crashNote{Region: region, Key: id},
			aliases: map[string]bool{}, grants: map[string]bool{}, tags: map[string]string{}, unknown: map[string]bool{},
		}
		l.keys[region+"/"+id] = e
	}
	return e
}

// enter enters what a process says.
func (l *crashLedger) enter(n crashNote) {
	if n.Key == "" {
		return // the clock, or a key to be made whose name nobody knows yet
	}
	if n.Do == "describe managed" {
		l.enterManaged([2]string{n.Region, n.Name}, n.Key)
		l.count[n.Do]++
		return
	}
	e := l.entry(n.Region, n.Key)
	touched := []*crashEntry{e}
	if n.Do == "replicate" {
		touched = append(touched, l.entry(crashReplica, n.Key))
	}
	for _, e := range touched {
		e.remember(n.Note + " " + n.Do)
		if e.made.Spec == "" {
			e.made.Spec, e.made.Origin = n.Spec, n.Origin
		}
		e.note(n)
	}
	if n.Note == "done" {
		l.count[n.Do]++
		if n.Do == "create" && n.Spec == types.KeySpecRsa2048 {
			l.count["create RSA"]++
		}
		if n.Do == "pair" {
			if l.given[string(n.Blob)] {
				l.t.Errorf("a data key pair was given twice")
			}
			l.given[string(n.Blob)] = true
		}
		e.created = true
		e.apply(n, l)
	}
}

// enterManaged enters the key that an alias of AWS was seen to name, which is the
// same for ever.
func (l *crashLedger) enterManaged(alias [2]string, id string) {
	l.t.Helper()
	if known := l.managed[alias]; known != "" && known != id {
		l.t.Errorf("%s names %s, and named %s", alias, id, known)
	}
	l.managed[alias] = id
}

// checkManaged looks for a second AWS managed key of an alias.
func (l *crashLedger) checkManaged(p *crashProcess) {
	l.t.Helper()
	for alias := range l.managed {
		c, ctx := p.client(alias[0]), l.t.Context()
		out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &alias[1]})
		if err != nil {
			l.t.Fatal(err)
		}
		l.enterManaged(alias, *out.KeyMetadata.KeyId)
		keys, err := c.ListKeys(ctx, &kms.ListKeysInput{})
		if err != nil {
			l.t.Fatal(err)
		}
		if len(keys.Keys) != 1 {
			l.t.Errorf("%d keys in the Region of %s, want 1", len(keys.Keys), alias)
		}
	}
}

func (e *crashEntry) remember(what string) {
	e.history = append(e.history, what)
	e.history = e.history[max(0, len(e.history)-12):]
}

// note notes what is begun with a key, and whether it is over.
func (e *crashEntry) note(n crashNote) {
	if n.Note == "try" {
		e.pending = append(e.pending, n.Do)
		if n.Name != "" {
			e.unknown[n.Name] = true
		}
		return
	}
	delete(e.unknown, n.Name)
	if i := slices.Index(e.pending, n.Do); i >= 0 {
		e.pending = slices.Delete(e.pending, i, i+1)
	}
}

func (e *crashEntry) apply(n crashNote, l *crashLedger) {
	switch n.Do {
	case "create":
		e.addMaterial(n.Material)
		e.current = n.Material
	case "use":
		e.uses = append(e.uses, n)
		if len(e.uses) > usesKept { // the oldest is of the most material ago
			e.uses = slices.Delete(e.uses, 1, 2)
		}
	case "rotate":
		e.addMaterial(n.Material)
		e.current = n.Material
	case "import":
		e.addMaterial(n.Material)
	case "unimport":
		e.materials = slices.DeleteFunc(e.materials, func(m string) bool { return m == n.Material })
		e.given = append(e.given, n.Material)
	case "alias":
		e.aliases[n.Name] = true
	case "unalias":
		e.aliases[n.Name] = false
	case "grant":
		e.grants[n.Name] = true
	case "revoke":
		e.grants[n.Name] = false
	case "tag":
		e.tags[n.Name] = n.Text
	case "replicate":
		replica := l.entry(crashReplica, n.Key)
		*replica = crashEntry{
			made: crashNote{Region: crashReplica, Key: n.Key, Spec: n.Spec, Origin: n.Origin}, created: true,
			materials: slices.Clone(e.materials), uses: slices.Clone(e.uses),
			aliases: map[string]bool{}, grants: map[string]bool{}, tags: map[string]string{}, unknown: map[string]bool{},
		}
	case "delete":
		e.deleting, e.at = true, n.At
	}
}

func (e *crashEntry) addMaterial(id string) {
	e.given = slices.DeleteFunc(e.given, func(m string) bool { return m == id })
	if id != "" && !slices.Contains(e.materials, id) {
		e.materials = append(e.materials, id)
	}
}

func (l *crashLedger) gone() int {
	n := 0
	for _, e := range l.keys {
		if e.gone {
			n++
		}
	}
	return n
}

// check compares what was acknowledged with what an engine has.
func (l *crashLedger) check(round int, p *crashProcess) {
	l.t.Helper()
	l.checkPairs(round, p)
	for _, e := range l.keys {
		(&crashCheck{t: l.t, round: round, p: p, c: p.client(e.made.Region), e: e}).key()
	}
	l.checkManaged(p)
}

// checkPairs fails if one key pair is two keys, or a key and a caller's.
func (l *crashLedger) checkPairs(round int, p *crashProcess) {
	l.t.Helper()
	held := map[string]bool{}
	for _, public := range append(p.PairsHeld(), p.PairsKept()...) {
		if held[string(public)] || l.given[string(public)] {
			l.t.Errorf("round %d: a key pair was given twice", round)
		}
		held[string(public)] = true
	}
	l.kept = max(l.kept, len(p.PairsKept()))
}

// crashCheck compares one key.
type crashCheck struct {
	t     *testing.T
	round int
	p     *crashProcess
	c     *engine.Client
	e     *crashEntry
}

func (c *crashCheck) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("round %d: key %s in %s (%s %s, %v perhaps done, after %q): "+format,
		append([]any{c.round, c.e.made.Key, c.e.made.Region, c.e.made.Origin, c.e.made.Spec, c.e.pending, c.e.history}, args...)...)
}

func (c *crashCheck) perhaps(do string) bool { return slices.Contains(c.e.pending, do) }

func (c *crashCheck) key() {
	e, id := c.e, &c.e.made.Key
	c.t.Helper()
	defer func() { e.pending, e.unknown = nil, map[string]bool{} }() // what was begun is done now, or never
	out, err := c.c.DescribeKey(c.t.Context(), &kms.DescribeKeyInput{KeyId: id})
	switch {
	case isCode(err, "NotFoundException"):
		e.remember(fmt.Sprint("look ", c.round, " absent"))
		c.absent()
		return
	case err != nil:
		c.errorf("%v", err)
		return
	}
	m := out.KeyMetadata
	e.remember(fmt.Sprint("look ", c.round, " ", m.KeyState))
	deleting := m.KeyState == types.KeyStatePendingDeletion || m.KeyState == types.KeyStatePendingReplicaDeletion
	due := e.deleting && !e.at.IsZero() && !e.at.After(c.p.config.Now())
	again := c.perhaps("replicate") && (e.gone || due) // the clock may have jumped before that was begun
	switch {
	case e.gone && !again:
		c.errorf("it was deleted and is there again, %s", m.KeyState)
	case due && !again:
		c.errorf("its time has come, and it is %s", m.KeyState)
	case e.deleting && !deleting && !again, deleting && !e.deleting && !c.perhaps("delete"):
		c.errorf("it is %s", m.KeyState)
	}
	e.gone, e.deleting = false, deleting
	if m.DeletionDate != nil {
		e.at = *m.DeletionDate
	}
	c.materials()
	c.names()
	if m.KeyState == types.KeyStateEnabled {
		c.uses()
	} else if !deleting && (m.KeyState != types.KeyStatePendingImport || e.made.Origin != types.OriginTypeExternal) {
		c.errorf("it is %s", m.KeyState)
	}
}

// absent checks a key that is not there.
func (c *crashCheck) absent() {
	e := c.e
	c.t.Helper()
	due := e.deleting && !e.at.After(c.p.config.Now()) // or it waited for its replicas
	// A deletion that was not acknowledged may have been followed by a jump of the
	// clock.
	if e.created && !e.gone && !due && !c.perhaps("delete") {
		c.errorf("it was acknowledged and is lost")
	}
	e.gone = true
}

func (c *crashCheck) materials() {
	e := c.e
	c.t.Helper()
	seen, current, ok := c.p.MaterialsSeen(account, e.made.Region, e.made.Key)
	if !ok {
		c.errorf("it is gone")
		return
	}
	there := map[string]bool{}
	for _, m := range seen {
		there[m.ID] = m.There
	}
	changing := c.perhaps("unimport") || c.perhaps("import")
	for _, id := range e.materials {
		if !there[id] && !changing {
			c.errorf("its material %.8s is lost", id)
		}
	}
	for _, id := range e.given {
		if there[id] && !changing {
			c.errorf("its material %.8s was deleted and is there", id)
		}
	}
	if e.current != "" && current != e.current && !c.perhaps("rotate") {
		c.errorf("its current material is %.8s instead of %.8s", current, e.current)
	}
	if e.current != "" {
		e.current = current
	}
	e.materials, e.given = nil, nil
	for _, m := range seen {
		if m.There {
			e.materials = append(e.materials, m.ID)
		} else {
			e.given = append(e.given, m.ID)
		}
	}
}

func (c *crashCheck) names() {
	e, ctx, id := c.e, c.t.Context(), &c.e.made.Key
	c.t.Helper()
	aliases := map[string]bool{}
	pages := kms.NewListAliasesPaginator(c.c, &kms.ListAliasesInput{KeyId: id})
	for pages.HasMorePages() {
		for _, a := range must(pages.NextPage(ctx)).Aliases {
			aliases[*a.AliasName] = true
		}
	}
	c.compare("alias", e.aliases, aliases)
	tags := map[string]string{}
	for _, tag := range must(c.c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: id})).Tags {
		tags[*tag.TagKey] = *tag.TagValue
	}
	for name, value := range e.tags {
		if tags[name] != value && !e.unknown[name] {
			c.errorf("its tag %s is %q instead of %q", name, tags[name], value)
		}
	}
	e.tags = tags
	grants := map[string]bool{}
	list := kms.NewListGrantsPaginator(c.c, &kms.ListGrantsInput{KeyId: id})
	for list.HasMorePages() {
		for _, g := range must(list.NextPage(ctx)).Grants {
			grants[*g.GrantId] = true
		}
	}
	c.compare("grant", e.grants, grants)
}

// compare compares what was acknowledged to be there or not with what is there,
// and goes by that from here on.
func (c *crashCheck) compare(what string, want, got map[string]bool) {
	c.t.Helper()
	for name, there := range want {
		if got[name] != there && !c.e.unknown[name] {
			c.errorf("%s %s: there %t, acknowledged as %t", what, name, got[name], there)
		}
		want[name] = got[name]
	}
}

// uses checks that all ciphertexts decrypt and all signatures verify, and that the
// key still makes them.
func (c *crashCheck) uses() {
	e, ctx, id := c.e, c.t.Context(), &c.e.made.Key
	c.t.Helper()
	const text = "after the crash"
	if e.made.Spec == types.KeySpecSymmetricDefault {
		out, err := c.c.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte(text)})
		if err != nil {
			c.errorf("it does not encrypt: %v", err)
			return
		}
		for _, use := range append(e.uses, crashNote{Text: text, Blob: out.CiphertextBlob}) {
			out, err := c.c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: use.Blob})
			if err != nil || string(out.Plaintext) != use.Text {
				c.errorf("a ciphertext is lost: %v", err)
			}
		}
		return
	}
	out, err := c.c.Sign(ctx, &kms.SignInput{KeyId: id, Message: []byte(text), SigningAlgorithm: signingAlgorithm(e.made.Spec)})
	if err != nil {
		c.errorf("it does not sign: %v", err)
		return
	}
	for _, use := range append(e.uses, crashNote{Text: text, Blob: out.Signature}) {
		_, err := c.c.Verify(ctx, &kms.VerifyInput{
			KeyId: id, Message: []byte(use.Text), Signature: use.Blob, SigningAlgorithm: signingAlgorithm(e.made.Spec), MessageType: types.MessageTypeRaw,
		})
		if err != nil {
			c.errorf("a signature does not verify: %v", err)
		}
	}
}
