package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// ErrVersionNotFound: the key is there, but not this version of it. It comes
// together with [keystore.ErrKeyNotFound].
var ErrVersionNotFound = errors.New("no such version of the key")

// Options says what a group consists of.
type Options struct {
	Name   string            // for errors and logs
	Tokens []*keystore.Token // the first is the reference where nothing else decides
	// Absent names tokens that belong to the group and are not open yet: what they
	// have forbidden holds on, and what they hold nobody knows.
	Absent []string
	// Allow reports whether a key belongs to the group; nil: all do. Others are
	// not proven before somebody asks for them.
	Allow func(id string) bool
	// Answers is what is remembered of the keys, which a group that takes the
	// place of another takes over from it; nil: nothing is yet.
	Answers *Answers
	Logger  *slog.Logger
}

// Group is some tokens behind one set of keys. Its methods are safe for concurrent
// use.
type Group struct {
	name     string
	log      *slog.Logger
	allow    func(string) bool
	members  []*member
	absent   []string
	single   *keystore.Token // the one member; nil if there are several
	answers  *Answers
	epoch    time.Time // base of now
	turn     atomic.Uint32
	lastUsed atomic.Pointer[versionState] // by a request; for pings
	hedges   budget
	counts   counters

	// life is that of the group, not of one call; stop ends it.
	life context.Context
	stop context.CancelFunc
	mu   sync.Mutex
	keys map[string]*keyState // of known ids; guarded by mu
	over bool                 // nothing may start any more; guarded by mu
	busy sync.WaitGroup       // of all goroutines; Add under mu and while not over
}

// New makes a group of open tokens, which it does not close.
func New(o Options) *Group {
	g := &Group{
		name: o.Name, log: o.Logger.With("store", o.Name), allow: o.Allow, answers: o.Answers, absent: o.Absent,
		epoch: time.Now(), keys: map[string]*keyState{},
	}
	g.life, g.stop = context.WithCancel(context.Background())
	if g.allow == nil {
		g.allow = func(string) bool { return true }
	}
	if g.answers == nil {
		g.answers = NewAnswers(g.log)
	}
	for i, t := range o.Tokens {
		g.members = append(g.members, newMember(i, t))
	}
	if len(o.Tokens) == 1 && len(o.Absent) == 0 {
		g.single = o.Tokens[0]
	}
	g.hedges.init()
	return g
}

// Start begins the work in the background. The known answers belong to this group
// from now on: what they say of others than its members is forgotten.
func (g *Group) Start() {
	g.answers.keepMembers(g.members, g.absent)
	if g.single == nil {
		g.start(g.watch)
	}
}

// Close ends the work in the background. Requests may still be under way.
func (g *Group) Close() {
	g.mu.Lock()
	g.over = true
	g.mu.Unlock()
	g.stop()
	g.busy.Wait()
}

// start runs f in a goroutine that Close waits for, unless the group is closed.
func (g *Group) start(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return false
	}
	g.busy.Go(f)
	return true
}

// now is the monotonic time since the group was opened.
func (g *Group) now() time.Duration { return time.Since(g.epoch) }

// Find returns the key with this id. One that a member is known to have costs no
// call; another is searched for in all members at once. Errors: those of
// [keystore.Token.Find]; [keystore.ErrKeyNotFound] only if all members say so.
func (g *Group) Find(ctx context.Context, id string) (*Key, error) {
	if g.single != nil {
		k, err := g.single.Find(ctx, id)
		if err != nil {
			return nil, err
		}
		return &Key{g: g, id: id, single: k}, nil
	}
	known, err := g.known(id)
	if err != nil {
		return nil, err
	}
	if !known {
		if err := g.search(ctx, id); err != nil {
			return nil, err
		}
	}
	return &Key{g: g, id: id, state: g.state(id)}, nil
}

// known reports whether a member has the key by its index.
func (g *Group) known(id string) (bool, error) {
	found := false
	for _, m := range g.members {
		k, err := m.token.Known(id)
		if err != nil && m.usable() {
			return false, err
		}
		found = found || k != nil
	}
	return found, nil
}

// search looks for a key in all members that can be asked.
func (g *Group) search(ctx context.Context, id string) error {
	return g.ask(ctx, id, func(ctx context.Context, m *member) error {
		_, err := m.token.Find(ctx, id)
		return err
	})
}

// ask has all members that can be asked look for a key at the same time, until one
// has found it. It is said not to be there only if each member says so: it may be in
// the one that cannot be asked.
func (g *Group) ask(ctx context.Context, id string, look func(context.Context, *member) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(g.members))
	asked := 0
	for _, m := range g.members {
		if m.usable() {
			asked++
			go func() { answers <- look(ctx, m) }()
		}
	}
	err := g.unavailable(id)
	for n := range asked {
		switch answer := <-answers; {
		case answer == nil:
			return nil
		case !errors.Is(answer, keystore.ErrKeyNotFound), n == 0 && asked == len(g.members)+len(g.absent):
			err = answer
		}
	}
	return err
}

func (g *Group) unavailable(id string) error {
	return fmt.Errorf("key store %s, key %s: %w: no token that has the key can be asked", g.name, id, keystore.ErrUnavailable)
}

// Refresh looks again at what was found out about the members: whether those in
// quarantine have the right keys by now, and which keys were destroyed in all of
// them. It does not search the tokens.
func (g *Group) Refresh(ctx context.Context) {
	if g.single == nil {
		g.recheck(ctx)
		g.sweep(ctx)
	}
}

// MemberHealth is the health of a token and what the group found out about it.
type MemberHealth struct {
	Name   string
	Info   keystore.TokenInfo // nothing of one that is not open
	Health keystore.Health
}

// Health returns one entry for each member, without calling any.
func (g *Group) Health() []MemberHealth {
	all := make([]MemberHealth, 0, len(g.members)+len(g.absent))
	for _, m := range g.members {
		h := m.token.Health()
		if reason := m.differs(); reason != "" {
			h.State, h.Reason = keystore.Unavailable, reason
		}
		all = append(all, MemberHealth{m.token.Name(), m.token.Info(), h})
	}
	for _, name := range g.absent {
		all = append(all, MemberHealth{Name: name, Health: keystore.Health{Reason: "it could not be opened yet"}})
	}
	return all
}

// Lacks says that the group had keys and has none now, in no member; "" if not so. It
// does not call the members.
func (g *Group) Lacks() string {
	why := ""
	for _, m := range g.members {
		lacks := m.token.Lacks(g.allow)
		if lacks == "" && slices.ContainsFunc(m.token.KnownIDs(), g.allow) {
			return ""
		}
		if lacks != "" {
			why = fmt.Sprintf("token %s: %s", m.token.Name(), lacks)
		}
	}
	if why == "" && len(g.absent) == 0 && slices.ContainsFunc(g.answers.versions(), func(v versionID) bool { return g.allow(v.id) }) {
		why = "none of its tokens has one of the keys that were proven"
	}
	return why
}
