package group

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// keyState is what the group knows of a key beyond the indices of its members.
type keyState struct {
	id string

	mu       sync.Mutex
	versions map[uint32]*versionState // of versions that are or were in a member; guarded by mu
}

// versionState is what the group knows of one version of a key.
type versionState struct {
	versionID
	making  chan struct{} // capacity 1: held by who makes the known answer
	members []seat        // in the order of Group.members
	absent  []*look       // what members that are not open forbid; fixed
}

// seat is what the group knows of a version in one member.
type seat struct {
	held  atomic.Bool           // the member once proved that it has it: if it is gone, it was destroyed
	proof atomic.Pointer[proof] // nil: none
	look  atomic.Pointer[look]  // the last one that was answered; nil: none

	tried   atomic.Int64 // time of the group when a proof last began, in nanoseconds; 0: none has
	mu      sync.Mutex
	looking *flight // nil: nobody looks; guarded by mu
	proving *flight // nil: nobody proves; guarded by mu
}

// binds reports whether a version that is not in the member any more was destroyed
// there: the member has proven it, or forbade something until then. Otherwise it may
// have been another key.
func (s *seat) binds() bool {
	l := s.look.Load()
	return s.held.Load() || l != nil && l.revokes()
}

// mayOpen reports whether a member that is away may be able to decrypt with the
// version, as far as the group knows.
func (s *seat) mayOpen(there bool) bool {
	l := s.look.Load()
	return (there || s.held.Load()) && (l == nil || l.refusal(toDecrypt) == nil)
}

// flight is something that is found out once for all who wait for it.
type flight struct {
	done  chan struct{}
	err   error         // valid once done is closed
	began time.Duration // time of the group, of a look
}

func (f *flight) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// answered reports whether it is over and the member has said something of the key.
func (f *flight) answered() bool { return f.over() && (f.err == nil || aboutKey(f.err)) }

func compareVersions(a, b versionID) int {
	return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.number, b.number))
}

// state returns the state of a key.
func (g *Group) state(id string) *keyState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.keys[id]
	if s == nil {
		s = &keyState{id: id, versions: map[uint32]*versionState{}}
		g.keys[id] = s
	}
	return s
}

// version returns the state of a version, with what is remembered of it.
func (g *Group) version(s *keyState, number uint32) *versionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.versions[number]
	if v == nil {
		v = &versionState{versionID: versionID{s.id, number}, making: make(chan struct{}, 1), members: make([]seat, len(g.members))}
		g.recall(v)
		s.versions[number] = v
	}
	return v
}

// existing is version, but nil for one that is neither in a member's index nor
// remembered: anybody can name such a one.
func (g *Group) existing(s *keyState, number uint32, keys []*keystore.Key) *versionState {
	s.mu.Lock()
	v := s.versions[number]
	s.mu.Unlock()
	if v != nil {
		return v
	}
	for _, k := range keys {
		if has(k, number) {
			return g.version(s, number)
		}
	}
	if g.answers.remembers(versionID{s.id, number}) {
		return g.version(s, number)
	}
	return nil
}

// has reports whether a version is in a member's index.
func has(k *keystore.Key, number uint32) bool { return k != nil && k.NewestUpTo(number) == number }

// recall fills in what the known answers say.
func (g *Group) recall(v *versionState) {
	v.absent = g.answers.forbidden(v.versionID, g.absent)
	for i, m := range g.members {
		held, revoked := g.answers.member(v.versionID, m.name)
		v.members[i].held.Store(held)
		if revoked != nil {
			v.members[i].look.Store(revoked)
		}
	}
}

// forget drops what is known of a version that was destroyed in all members.
func (g *Group) forget(v versionID) {
	s := g.state(v.id)
	s.mu.Lock()
	delete(s.versions, v.number)
	s.mu.Unlock()
	g.answers.forget(v)
}
