package group

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
)

func TestHedgeBudget(t *testing.T) {
	var b budget
	b.init()
	spent := 0
	for range 1000 {
		b.earn()
		if b.spend() {
			spent++
		}
	}
	if spent < 100 || spent > 100+hedgeBurst+1 {
		t.Errorf("%d of 1000 requests were hedged", spent)
	}
}

// What a member opens that nobody waits for any more is wiped, and it has ended
// when the answer is there.
func TestLosersAreWiped(t *testing.T) {
	g, k, r := newProven(t)
	secret := []byte("a secret that nobody gets")
	late := false
	out, err := race(t.Context(), r, []int{0, 1}, func(ctx context.Context, held *keystore.Key) ([]byte, error) {
		if held == r.keys[1] {
			return []byte("the answer"), nil
		}
		<-ctx.Done() // the other one has answered
		late = true
		return secret, nil
	}, wipe)
	if string(out) != "the answer" || err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	if !late || !bytes.Equal(secret, make([]byte, len(secret))) {
		t.Errorf("the loser's answer is %q", secret)
	}
	if s := g.Stats(); s.Hedges != 1 || k.by.Load() != g.members[1] {
		t.Errorf("%+v", s)
	}
}

// newProven returns a group of two tokens that does no work in the background, with
// a request for a key that both have proven.
func newProven(t *testing.T) (*Group, *Key, *request) {
	t.Helper()
	var modules keystore.Modules
	var tokens []*keystore.Token
	for range 2 {
		tok := tokentest.Open(t, &modules, tokentest.Options(tokentest.NewToken(t, &modules)))
		if err := tok.ImportKey(t.Context(), "k", both, bytes.Repeat([]byte{1}, 32)); err != nil {
			t.Fatal(err)
		}
		tok.Probe(t.Context())
		tokens = append(tokens, tok)
	}
	g := New(Options{Name: "store", Tokens: tokens, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(g.Close)
	k, err := g.Find(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.request(t.Context(), k, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range g.members {
		if f := g.startProof(m, r.version); f == nil {
			t.Fatal("closed")
		} else if <-f.done; f.err != nil {
			t.Fatal(f.err)
		}
	}
	return g, k, r
}

// Members that become others again and again cannot be asked; nothing failed in hyok.
func TestMembersThatChangeAreUnavailable(t *testing.T) {
	g, k, _ := newProven(t)
	_, err := do(t.Context(), k, 1, toEncrypt, func(context.Context, *keystore.Key) (struct{}, error) {
		for _, m := range g.members {
			m.returns.Add(1)
		}
		return struct{}{}, nil
	}, func(struct{}) {})
	if !errors.Is(err, keystore.ErrUnavailable) {
		t.Error(err)
	}
}

// A hiccup is no reason not to ask a member what it forbids; one that has failed or
// hung for a while is not waited for.
func TestSuspectsAreAskedForAWhile(t *testing.T) {
	g, _, r := newProven(t)
	m := g.members[1]
	for since, want := range map[time.Duration]bool{time.Hour: true, -time.Hour: false} { // from now: no test is that slow
		g.doubt(m, errOverdue)
		m.mu.Lock()
		m.doubted = g.now() + since
		m.mu.Unlock()
		r.version.members[1].look.Store(nil)
		asked := false
		for _, w := range g.look(r, lookForce) {
			asked = asked || w.m == m
			<-w.flight.done
		}
		if asked != want {
			t.Errorf("suspect since %v from now: asked %v", since, asked)
		}
	}
}

// The wait for a look begins with the look, however old the request is, and is as
// long as the member may take.
func TestWaitForALook(t *testing.T) {
	g, _, r := newProven(t)
	now := g.now()
	r.began = now - time.Hour
	waits := g.look(r, lookForce)
	if len(waits) != 2 {
		t.Fatalf("%d looks", len(waits))
	}
	for _, w := range waits {
		if w.since < now {
			t.Errorf("it has waited for %v already", now-w.since)
		}
		<-w.flight.done
	}
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond: minLookWait, 12 * time.Millisecond: 72 * time.Millisecond, time.Second: maxLookWait,
	} {
		m := &member{}
		m.learn(took)
		if got := m.lookWait(); got != want {
			t.Errorf("a look at a member that takes %v is waited for %v, not %v", took, got, want)
		}
	}
}

// A look that hangs alone keeps nobody from looking.
func TestLookBesideOneThatHangs(t *testing.T) {
	g, _, r := newProven(t)
	s := &r.version.members[1]
	hangs := &flight{done: make(chan struct{}), began: g.now() - lookForce}
	s.looking = hangs
	f := g.startLook(g.members[1], r.version)
	if f == hangs {
		t.Fatal("nobody looks")
	}
	<-f.done
	// What an older look says at last counts no longer.
	later := &look{began: g.now() + time.Hour, disabled: true}
	s.look.Store(later)
	f = g.startLook(g.members[1], r.version)
	<-f.done
	if f.err != nil || s.look.Load() != later {
		t.Errorf("%v, %+v", f.err, s.look.Load())
	}
}

// What is revoked while a request is on its way through slow members is refused.
func TestRevokedDuringARequest(t *testing.T) {
	g, k, r := newProven(t)
	if _, _, err := k.Permissions(t.Context()); err != nil {
		t.Fatal(err)
	}
	var begun sync.Once
	ended := make(chan struct{})
	_, err := do(t.Context(), k, 1, toEncrypt, func(ctx context.Context, _ *keystore.Key) (struct{}, error) {
		begun.Do(func() {
			defer close(ended)
			if err := g.members[1].token.SetEnabled(t.Context(), "k", false); err != nil {
				t.Error(err)
			}
			<-time.After(lookForce) // so long it takes
		})
		<-ended
		return struct{}{}, nil
	}, func(struct{}) {})
	if errors.Is(err, keystore.ErrKeyDisabled) {
		return
	}
	// On a slow machine it was not waited for.
	s := &r.version.members[1]
	s.mu.Lock()
	f := s.looking
	s.mu.Unlock()
	if f != nil {
		<-f.done
	}
	if l := s.look.Load(); l == nil || !l.disabled {
		t.Errorf("nobody looked: %v", err)
	}
}

func FuzzParseAnswers(f *testing.F) {
	f.Add([]byte(`{"format":1,"keys":[]}`))
	f.Add([]byte(`{"format":1,"keys":[{"id":"k","version":1,"members":[{"name":"a/1","proven":true,"destroyed":true}],
		"answer":{"text":"AAA=","iv":"AAAAAAAAAAAAAAAA","ciphertext":"AAA=","tag":"AAAAAAAAAAAAAAAAAAAAAA==","by":"a"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := parseAnswers(data)
		if err != nil {
			return
		}
		a := NewAnswers(slog.New(slog.DiscardHandler))
		a.records = records
		for v, r := range records {
			for name := range r.held {
				a.names = append(a.names, name)
			}
			if v.number == 0 {
				t.Error("version 0")
			}
		}
		text, err := json.Marshal(a.file())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseAnswers(text); err != nil || len(again) != len(records) {
			t.Errorf("written and read again: %d of %d, %v", len(again), len(records), err)
		}
	})
}

// What is written is what a former process knew.
func TestAnswersRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "answers.json")
	a, err := OpenAnswers(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.keepMembers([]*member{{name: "a/1"}, {name: "b/2"}}, nil)
	v := versionID{"k", 3}
	a.put(v, &answer{Text: []byte("t"), Sealed: keystore.Sealed{IV: make([]byte, 12), Ciphertext: []byte("c"), Tag: make([]byte, 16)}, By: "a"})
	a.hold(v, "a/1")
	a.hold(v, "stranger/3")
	a.saw(v, "b/2", &look{began: time.Hour, disabled: true})
	unproven := versionID{"unproven", 1} // nobody has proven it yet
	a.saw(unproven, "b/2", &look{began: time.Hour, usage: both})
	if a.remembers(unproven) {
		t.Error("it remembers what forbids nothing")
	}
	a.saw(unproven, "b/2", &look{began: time.Hour, disabled: true, usage: both})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := OpenAnswers(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.get(v); got == nil || string(got.Text) != "t" || got.By != "a" {
		t.Errorf("%+v", got)
	}
	if held, revoked := b.member(v, "a/1"); !held || revoked != nil {
		t.Error(held, revoked)
	}
	if held, revoked := b.member(v, "b/2"); held || revoked == nil || !errors.Is(revoked.refusal(toEncrypt), keystore.ErrKeyDisabled) {
		t.Error(held, revoked)
	}
	if held, _ := b.member(v, "stranger/3"); held {
		t.Error("it remembers somebody who is not in the group")
	}
	if _, revoked := b.member(unproven, "b/2"); revoked == nil || !revoked.disabled {
		t.Errorf("of a version that nobody has proven it remembers %+v", revoked)
	}
}
