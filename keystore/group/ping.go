package group

import (
	"context"
	"errors"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

const (
	pingPause   = 100 * time.Millisecond
	pingTimeout = time.Second
)

// ping asks a member that is passed over for something that no request depends on,
// so that it is noticed when it is well again: it looks at the version and opens
// the known answer.
func (g *Group) ping(m *member, v *versionState) {
	now := g.now()
	if v == nil || now-time.Duration(m.pinged.Load()) < pingPause || !m.pinging.CompareAndSwap(false, true) {
		return
	}
	m.pinged.Store(int64(now))
	if !g.start(func() { g.pingNow(m, v) }) {
		m.pinging.Store(false)
	}
}

func (g *Group) pingNow(m *member, v *versionState) {
	defer m.pinging.Store(false)
	f := g.startLook(m, v)
	if f == nil {
		return
	}
	ctx, cancel := context.WithTimeout(g.life, pingTimeout)
	defer cancel()
	select {
	case <-f.done:
	case <-ctx.Done():
		return
	}
	a := g.answers.get(v.versionID)
	k, _ := m.token.Known(v.id)
	if a == nil || !has(k, v.number) {
		return
	}
	began := g.now()
	text, err := k.Decrypt(ctx, v.number, a.Sealed, a.aad(v.versionID))
	clear(text)
	g.note(m, began, err)
	if errors.Is(err, keystore.ErrInvalidCiphertext) {
		g.startProof(m, v) // which decides what that means
	}
}
