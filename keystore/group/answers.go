package group

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// Answers is what a group remembers of its keys: for each version the known answer,
// which members have proven it, and what they forbid. It may be kept in a file, so
// that after a restart a member with another key is not taken for the right one
// while that is down, and a key that was destroyed in a member is not taken for one
// that it never had. Nothing in it is secret.
type Answers struct {
	log      *slog.Logger
	path     string // empty: in memory alone
	failures atomic.Uint64

	mu      sync.Mutex
	records map[versionID]*record // guarded by mu
	names   []string              // of the members that things are remembered of; guarded by mu
	dirty   bool                  // there is something to write; guarded by mu
	timer   *time.Timer           // runs if something is to be written; guarded by mu
	closed  bool                  // guarded by mu

	writing sync.Mutex // held by who writes the file
}

// record is what is remembered of a version.
type record struct {
	answer  *answer // nil: none could be made
	held    map[string]bool
	revoked map[string]*look // what a member forbids
}

// answer is a known answer. It is not changed once made.
type answer struct {
	Text   []byte
	Sealed keystore.Sealed
	By     string // name of the token that sealed it
}

// aad returns the additional data of a known answer: it is of use nowhere else.
func (*answer) aad(v versionID) []byte { return []byte("hyok known answer: " + v.String()) }

const (
	writeDelay = time.Second      // after a change, in which others may come
	writeRetry = 10 * time.Second // after a failure
)

// NewAnswers returns what remembers in memory alone.
func NewAnswers(log *slog.Logger) *Answers {
	return &Answers{log: log, records: map[versionID]*record{}}
}

// keepMembers forgets all that concerns others than these members and those that
// are absent: who is taken out of a group forbids nothing any more, and if it comes
// back, it comes as a new one.
func (a *Answers) keepMembers(members []*member, absent []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = nil
	for _, m := range members {
		a.names = append(a.names, m.name)
	}
	stranger := func(name string) bool { return !slices.Contains(a.names, name) && !isOf(name, absent) }
	for _, r := range a.records {
		before := len(r.held) + len(r.revoked)
		maps.DeleteFunc(r.held, func(name string, _ bool) bool { return stranger(name) })
		maps.DeleteFunc(r.revoked, func(name string, _ *look) bool { return stranger(name) })
		if len(r.held)+len(r.revoked) < before {
			a.change()
		}
	}
}

// isOf reports whether a member's name is that of one of these tokens. The serial
// number of one that is not open is not known.
func isOf(member string, tokens []string) bool {
	return slices.ContainsFunc(tokens, func(t string) bool { return strings.HasPrefix(member, memberName(t, "")) })
}

// forbidden returns what these tokens, which are not open, forbid of a version.
func (a *Answers) forbidden(v versionID, absent []string) []*look {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.records[v]
	if r == nil {
		return nil
	}
	var all []*look
	for name, l := range r.revoked {
		if isOf(name, absent) {
			all = append(all, l)
		}
	}
	return all
}

// mayOpen reports whether one of these tokens, which are not open, may be able to
// decrypt with a version.
func (a *Answers) mayOpen(v versionID, absent []string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.records[v]
	if r == nil {
		return false
	}
	for name := range r.held {
		if l := r.revoked[name]; isOf(name, absent) && (l == nil || l.refusal(toDecrypt) == nil) {
			return true
		}
	}
	return false
}

func (a *Answers) get(v versionID) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.records[v]; r != nil {
		return r.answer
	}
	return nil
}

func (a *Answers) remembers(v versionID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records[v] != nil
}

// versions returns all versions that something is remembered of.
func (a *Answers) versions() []versionID {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]versionID, 0, len(a.records))
	for v := range a.records {
		all = append(all, v)
	}
	return all
}

// member returns what is remembered of a version in a member: whether it has proven
// it, and what it forbids, nil if nothing.
func (a *Answers) member(v versionID, name string) (held bool, revoked *look) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.records[v]
	if r == nil {
		return false, nil
	}
	return r.held[name], r.revoked[name]
}

func (a *Answers) put(v versionID, known *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.record(v).answer = known
	a.change()
}

// hold remembers that a member has proven a version.
func (a *Answers) hold(v versionID, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.record(v); !r.held[name] && slices.Contains(a.names, name) {
		r.held[name] = true
		a.change()
	}
}

// saw remembers what a member forbids, or that it forbids nothing any more.
func (a *Answers) saw(v versionID, name string, l *look) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(a.names, name) {
		return
	}
	if l.revokes() { // though nobody may have proven the version yet
		remembered := *l
		remembered.began = longAgo
		a.record(v).revoked[name] = &remembered
		a.change()
	} else if r := a.records[v]; r != nil && r.revoked[name] != nil {
		delete(r.revoked, name)
		a.change()
	}
}

func (a *Answers) forget(v versionID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.records, v)
	a.change()
}

// record returns the record of a version. mu is held.
func (a *Answers) record(v versionID) *record {
	r := a.records[v]
	if r == nil {
		r = newRecord()
		a.records[v] = r
	}
	return r
}

// members returns the names of those that something is remembered of, in order:
// those that are not open are among them.
func (r *record) members() []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(r.held)), maps.Keys(r.revoked))
	slices.Sort(all)
	return slices.Compact(all)
}

func newRecord() *record { return &record{held: map[string]bool{}, revoked: map[string]*look{}} }

// change has the file written soon. mu is held.
func (a *Answers) change() {
	a.dirty = true
	a.writeIn(writeDelay)
}

// writeIn has the file written after a while unless it is going to be. mu is held.
func (a *Answers) writeIn(delay time.Duration) {
	if a.path == "" || a.closed || a.timer != nil {
		return
	}
	a.timer = time.AfterFunc(delay, func() { a.writeLater() })
}

// writeLater writes the file and, if it cannot, tries again later: a full disk is
// no reason not to serve.
func (a *Answers) writeLater() {
	a.mu.Lock()
	a.timer = nil
	a.mu.Unlock()
	if err := a.Write(); err != nil {
		a.log.Error("the known answers of the keys cannot be written; the next attempt follows", "error", err)
		a.mu.Lock()
		a.writeIn(writeRetry)
		a.mu.Unlock()
	}
}

// Close writes what is not written yet.
func (a *Answers) Close() error {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	return a.Write()
}
