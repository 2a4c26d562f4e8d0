package group

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of a group's figures, for metrics.
type Stats struct {
	Members       int           // those that are not open included
	Usable        int           // available and not in quarantine
	Quarantined   int           // members with another key than the rest
	PassedOver    int           // members that fail or hang, which get no request while there is another
	Failovers     uint64        // operations given to another member after one failed
	Hedges        uint64        // operations given to another member while one did not answer
	HedgesRefused uint64        // the same, not done because of the budget
	ProofsFailed  uint64        // times that a member had another key than the rest
	LookAge       time.Duration // longest time that a key was ever used without each member that could be asked being asked
	Unwritten     uint64        // failed attempts to write the known answers
}

// counters are updated without a lock.
type counters struct {
	failovers, hedges, refused, proofsFailed atomic.Uint64
	lookAge                                  atomic.Int64
}

// Stats returns the present figures.
func (g *Group) Stats() Stats {
	s := Stats{
		Members: len(g.members) + len(g.absent), Failovers: g.counts.failovers.Load(), Hedges: g.counts.hedges.Load(),
		HedgesRefused: g.counts.refused.Load(), ProofsFailed: g.counts.proofsFailed.Load(),
		LookAge: time.Duration(g.counts.lookAge.Load()), Unwritten: g.answers.failures.Load(),
	}
	for _, m := range g.members {
		if m.usable() {
			s.Usable++
		}
		if m.quarantined.Load() {
			s.Quarantined++
		}
		if m.suspect.Load() {
			s.PassedOver++
		}
	}
	return s
}

func (c *counters) noteLookAge(age time.Duration) {
	for was := c.lookAge.Load(); int64(age) > was; was = c.lookAge.Load() {
		if c.lookAge.CompareAndSwap(was, int64(age)) {
			return
		}
	}
}
