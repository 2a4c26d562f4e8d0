package engine

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/google/uuid"
)

// usage is the last use of a key. It is noted in memory at once and stored by the
// worker, so that a use costs no disk: a crash loses what happened since.
type usage struct {
	last   atomic.Pointer[lastUsage]
	stored atomic.Pointer[lastUsage] // what was stored last; written by the worker alone

	encryptions atomic.Pointer[encryptions] // under the current material; nil: none yet
}

// lastUsage is a successful cryptographic operation with a key.
type lastUsage struct {
	Account   string                              `json:"a"`
	Region    string                              `json:"r"`
	KeyID     string                              `json:"k"`
	Operation types.KeyLastUsageTrackingOperation `json:"o"`
	At        time.Time                           `json:"t"`
	RequestID string                              `json:"q,omitzero"`
	EventID   string                              `json:"e,omitzero"`

	// As of when it was stored:
	Material    string `json:"m,omitzero"` // KeyMaterialId of the last encryption
	Encryptions uint64 `json:"n,omitzero"` // under that material
}

func (u *lastUsage) ref() keyRef { return newKeyRef(u.Account, u.Region, u.KeyID) }

// noteUse notes that an operation with the key succeeded.
func (k *key) noteUse(ctx context.Context, op types.KeyLastUsageTrackingOperation, now time.Time) {
	k.used.last.Store(&lastUsage{
		Account: k.Account, Region: k.Region, KeyID: k.ID, Operation: op, At: now, RequestID: RequestID(ctx),
	})
}

// latest returns the last use with its event id, which it gets only when somebody
// asks for it; nil if there is none.
func (u *usage) latest() *lastUsage {
	for {
		last := u.last.Load()
		if last == nil || last.EventID != "" {
			return last
		}
		named := *last
		named.EventID = uuid.NewString()
		if u.last.CompareAndSwap(last, &named) {
			return &named
		}
	}
}

// storeUsage stores the uses since the last time.
func (e *Engine) storeUsage(ctx context.Context) error {
	var used []*usage
	e.eachKey(func(k *key) bool {
		if last := k.used.last.Load(); last != nil && last != k.used.stored.Load() {
			used = append(used, k.used)
		}
		return true
	})
	const most = 1000 // in one batch
	for some := range slices.Chunk(used, most) {
		if err := e.storeUses(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// storeUses stores the last uses of some keys together.
func (e *Engine) storeUses(ctx context.Context, used []*usage) error {
	b, last := new(batch), make([]*lastUsage, len(used))
	for i, u := range used {
		last[i] = u.latest()
		b.putUsage(u.withCount(last[i]))
	}
	if err := e.commit(ctx, b); err != nil {
		return err
	}
	for i, u := range used {
		u.stored.Store(last[i])
	}
	return nil
}

// eachKey calls f for every key until it returns false. The keys are those of one
// instant.
func (e *Engine) eachKey(f func(*key) bool) {
	e.state.mu.Lock()
	keys := e.state.keys.Copy() // copied on write, so at little cost
	e.state.mu.Unlock()
	keys.Scan(func(_ string, k *key) bool { return f(k) })
}
