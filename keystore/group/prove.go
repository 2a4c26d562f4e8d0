package group

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// A member proves a version of a key by opening the known answer of the version: a
// random text that a member in good standing has sealed under it, once. Sealing
// proves nothing by itself, since tokens that make their own IVs seal differently
// each time.
//
// Where the member may not decrypt with the key, the proof goes the other way: it
// seals, and a member that has proven the version opens. What cannot be proven is a
// key with which all members may only encrypt, or all may only decrypt and no
// known answer is left from better times. Such a key is accepted as it is: that a
// ciphertext is invalid is then believed only when all members say so.

// proof is a member's proof of a version, or the acceptance of one that cannot be
// had.
type proof struct {
	object   keystore.Object // that was proven
	era      uint64          // of the member
	accepted bool
}

const proofTimeout = 5 * time.Second

// proven returns the proof of a version in a member, nil if there is none that
// holds for the key k, as the index has it now.
func (g *Group) proven(v *versionState, i int, k *keystore.Key) *proof {
	p := v.members[i].proof.Load()
	if p == nil || k == nil || p.era != g.members[i].era() || p.object != k.Object(v.number) {
		return nil
	}
	return p
}

// startProof has a member prove a version, unless it is at it; nil if the group is
// closed.
func (g *Group) startProof(m *member, v *versionState) *flight {
	s := &v.members[m.index]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proving != nil {
		return s.proving
	}
	f := &flight{done: make(chan struct{})}
	s.proving = f
	s.tried.Store(int64(g.now()))
	run := func() {
		ctx, cancel := context.WithTimeout(g.life, proofTimeout)
		defer cancel()
		f.err = g.prove(ctx, m, v)
		s.mu.Lock()
		s.proving = nil
		s.mu.Unlock()
		close(f.done)
	}
	if !g.start(run) {
		s.proving = nil
		return nil
	}
	return f
}

// awaitProofs has the members that can be asked prove the version, except for some,
// and reports whether one has.
func (g *Group) awaitProofs(ctx context.Context, r *request, except []int) (proven bool) {
	for i, m := range g.members {
		if slices.Contains(except, i) || !m.usable() || !has(r.keys[i], r.version.number) {
			continue
		}
		f := g.startProof(m, r.version)
		if f == nil {
			return false
		}
		select {
		case <-f.done:
			r.keys[i], _ = m.token.Known(r.key.id) // the proof may have found it anew
			proven = proven || f.err == nil
		case <-ctx.Done():
			return false
		}
	}
	return proven
}

// awaitProof returns the first of some members that proves the version.
func (g *Group) awaitProof(ctx context.Context, r *request, members []int) ([]int, error) {
	proofs := make(chan int, len(members))
	flights := make([]*flight, len(members))
	for n, i := range members {
		f := g.startProof(g.members[i], r.version)
		if f == nil {
			return nil, g.unavailable(r.key.id)
		}
		flights[n] = f
		go func() {
			select {
			case <-f.done:
			case <-ctx.Done():
			}
			proofs <- n
		}()
	}
	var err error
	for range members {
		n := <-proofs
		if ctx.Err() != nil {
			return nil, fmt.Errorf("key store %s, %v: no token has proven in time that it has the right key: %w", g.name, r.version.versionID, ctx.Err())
		}
		switch failure := flights[n].err; {
		case failure == nil:
			i := members[n]
			r.keys[i], _ = g.members[i].token.Known(r.key.id) // the proof may have found it anew
			return []int{i}, nil
		case err == nil, !errors.Is(failure, keystore.ErrKeyNotFound): // one that lost it does not speak for those that fail
			err = failure
		}
	}
	away := func(k *keystore.Key) bool { // those that can be asked are among members
		return has(k, r.version.number) && !slices.ContainsFunc(members, func(i int) bool { return r.keys[i] == k })
	}
	if errors.Is(err, keystore.ErrKeyNotFound) && slices.ContainsFunc(r.keys, away) {
		return nil, g.unavailable(r.key.id)
	}
	if errors.Is(err, keystore.ErrInvalidCiphertext) || errors.Is(err, errUnasked) {
		return nil, fmt.Errorf("%w (%v)", g.unavailable(r.key.id), err) // %v: it was not the caller's ciphertext
	}
	return nil, err
}

// prove has a member prove a version. ErrInvalidCiphertext means that it has another
// key; it is in quarantine then.
func (g *Group) prove(ctx context.Context, m *member, v *versionState) error {
	began, era := g.now(), m.era()
	k, err := m.token.Find(ctx, v.id)
	if err != nil {
		g.note(m, began, err)
		return err
	}
	p := &proof{object: k.Object(v.number), era: era}
	if p.object == (keystore.Object{}) {
		return fmt.Errorf("%v: %w in token %s", v.versionID, keystore.ErrKeyNotFound, m.token.Name())
	}
	a, err := g.answer(ctx, v)
	if err != nil {
		return err
	}
	began = g.now()
	if a == nil {
		p.accepted = true
	} else if p.accepted, err = g.open(ctx, m, k, v, a); err != nil && !errors.Is(err, errUnasked) {
		g.note(m, began, err)
	}
	switch {
	case errors.Is(err, keystore.ErrInvalidCiphertext) && m.era() == era:
		g.quarantine(m, v.versionID)
		return err
	case err != nil:
		return err
	}
	g.note(m, began, nil)
	if p.accepted {
		g.log.Warn("it cannot be proven that a token has the same key as the others, since it may not both encrypt and decrypt; it is used as it is",
			"token", m.token.Name(), "key", v.id, "version", v.number)
	}
	s := &v.members[m.index]
	s.proof.Store(p)
	s.held.Store(true)
	g.answers.hold(v.versionID, m.name)
	return nil
}

// open has a member open the known answer. accepted means that nothing can be
// proven.
func (g *Group) open(ctx context.Context, m *member, k *keystore.Key, v *versionState, a *answer) (accepted bool, err error) {
	text, err := k.Decrypt(ctx, v.number, a.Sealed, a.aad(v.versionID))
	switch {
	case errors.Is(err, keystore.ErrKeyUsage):
		return g.openElsewhere(ctx, m, k, v, a)
	case err == nil && subtle.ConstantTimeCompare(text, a.Text) == 0:
		return false, fmt.Errorf("token %s, %v: it opens the known answer to something else than was sealed", m.token.Name(), v.versionID)
	}
	return false, err
}

// errUnasked says that those who could tell whether a member has the right key
// cannot be asked.
var errUnasked = errors.New("no token that could tell whether it is the same key answers")

// openElsewhere has a member seal, and another that opens the known answer open.
// Nothing is accepted while one that may be able to is away.
func (g *Group) openElsewhere(ctx context.Context, m *member, k *keystore.Key, v *versionState, a *answer) (accepted bool, err error) {
	aad := a.aad(v.versionID)
	sealed, err := k.Encrypt(ctx, v.number, randomText(), aad)
	if err != nil {
		return false, err // it may do nothing with the key
	}
	unasked := g.answers.mayOpen(v.versionID, g.absent)
	for _, other := range g.members {
		held, _ := other.token.Known(v.id)
		switch there := has(held, v.number); {
		case other == m:
			continue
		case !other.token.Available():
			unasked = unasked || v.members[other.index].mayOpen(there)
			continue
		case !there:
			continue
		}
		began := g.now()
		_, err := held.Decrypt(ctx, v.number, a.Sealed, aad)
		if err == nil {
			if _, err = held.Decrypt(ctx, v.number, sealed, aad); err == nil || errors.Is(err, keystore.ErrInvalidCiphertext) {
				return false, err
			}
		}
		if !aboutKey(err) { // else it has no say
			g.note(other, began, err)
			unasked = true
		}
	}
	if unasked {
		return false, fmt.Errorf("token %s, %v: %w", m.token.Name(), v.versionID, errUnasked)
	}
	return true, nil
}

// answer returns the known answer of a version, and has it made if there is none;
// nil if no member may seal with it.
func (g *Group) answer(ctx context.Context, v *versionState) (*answer, error) {
	if a := g.answers.get(v.versionID); a != nil {
		return a, nil
	}
	select {
	case v.making <- struct{}{}:
		defer func() { <-v.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if a := g.answers.get(v.versionID); a != nil {
		return a, nil
	}
	var failure, gone error
	mayNot, away := false, false
	for _, m := range g.members { // nobody else can tell: the first in the configuration is right
		k, _ := m.token.Known(v.id)
		if !has(k, v.number) {
			continue
		}
		if !m.usable() {
			away = true
			continue
		}
		began := g.now()
		a, err := sealAnswer(ctx, m, k, v)
		g.note(m, began, err)
		switch {
		case err == nil:
			g.answers.put(v.versionID, a)
			return a, nil
		case errors.Is(err, keystore.ErrKeyUsage): // perhaps another may
			mayNot, failure = true, nil
		case errors.Is(err, keystore.ErrKeyNotFound): // perhaps another has it
			gone = err
		case aboutKey(err):
			return nil, err
		default:
			failure = err
		}
	}
	switch {
	case failure != nil || mayNot:
		return nil, failure
	case gone != nil && !away:
		return nil, gone
	}
	return nil, g.unavailable(v.id)
}

// sealAnswer has a member seal a random text, and open it again: a damaged answer
// would show all members in a bad light.
func sealAnswer(ctx context.Context, m *member, k *keystore.Key, v *versionState) (*answer, error) {
	a := &answer{Text: randomText(), By: m.token.Name()}
	sealed, err := k.Encrypt(ctx, v.number, a.Text, a.aad(v.versionID))
	if err != nil {
		return nil, err
	}
	a.Sealed = sealed
	text, err := k.Decrypt(ctx, v.number, sealed, a.aad(v.versionID))
	switch {
	case errors.Is(err, keystore.ErrKeyUsage): // it may only encrypt
	case errors.Is(err, keystore.ErrInvalidCiphertext), err == nil && subtle.ConstantTimeCompare(text, a.Text) == 0:
		return nil, fmt.Errorf("token %s, %v: it does not open what it has just sealed", m.token.Name(), v.versionID) // not for others to be measured by
	case err != nil:
		return nil, err
	}
	return a, nil
}

func randomText() []byte {
	text := make([]byte, 16)
	_, _ = rand.Read(text) // never fails
	return text
}
