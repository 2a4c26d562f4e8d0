package keystore

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

func TestMarkRoundTrip(t *testing.T) {
	for _, m := range []mark{
		{version: 1, rest: []byte{}},
		{version: math.MaxUint32, disabled: true, encrypt: true, decrypt: true, adopted: true, rest: []byte{0, 0xff}},
		{version: 7, disabled: true, decrypt: true, rest: bytes.Repeat([]byte{9}, 300)},
		newMark(3),
	} {
		got, ok := parseMark(m.bytes())
		if !ok || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v, %v", m, got, ok)
		}
	}
	valid := newMark(1).bytes()
	for name, id := range map[string][]byte{
		"nil": nil, "short": valid[:markSize-1], "foreign": []byte("some other key id"), "version 0": mark{}.bytes(),
		"format": append([]byte("hyok\x02"), valid[5:]...), "unknown flag": append(append(bytes.Clone(valid[:9]), 0x80), valid[10:]...),
	} {
		if m, ok := parseMark(id); ok {
			t.Errorf("%s was parsed as %+v", name, m)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add(newMark(1).bytes())
	f.Add([]byte("hyok"))
	f.Fuzz(func(t *testing.T, id []byte) {
		if m, ok := parseMark(id); ok && !bytes.Equal(m.bytes(), id) {
			t.Errorf("%x became %x", id, m.bytes())
		}
	})
}

// What was found a minute ago says nothing of now: the probe itself must hang.
func TestOldHealthIsUnavailable(t *testing.T) {
	var tok Token
	tok.health.last = Health{State: Active, Checked: time.Now().Add(-probeMaxAge + time.Second)}
	if h := tok.Health(); h.State != Active {
		t.Errorf("%+v", h)
	}
	tok.health.last.Checked = time.Now().Add(-probeMaxAge - time.Millisecond)
	if h := tok.Health(); h.State != Unavailable || !strings.Contains(h.Reason, "minute") {
		t.Errorf("%+v", h)
	}
}

// After a handle turned out invalid, a fresh search says nothing any more of
// what is in the token: the next one who asks must not be told so by it.
func TestForgottenKeyIsSearchedFor(t *testing.T) {
	tok := &Token{name: "t", epoch: time.Now()}
	tok.life.closed = true // shows that a search would start, and starts none
	v := &version{number: 1, handle: 5}
	tok.index.keys.Store(&map[string]*Key{"k": {token: tok, id: "k", versions: []*version{v}}})
	tok.index.scanned, tok.index.unknown = true, rate.NewLimiter(0, 0)
	if _, err := tok.search(tok.clock(), false); err != nil {
		t.Fatalf("a fresh index was searched again: %v", err)
	}
	tok.forget("k", v)
	if _, err := tok.search(tok.clock(), false); !errors.Is(err, ErrClosed) {
		t.Errorf("no search after a key was forgotten: %v", err)
	}
}

// A search that had begun before somebody asks may have passed the key by before it
// was made: it is not said to be missing on its word.
func TestKeyMadeDuringASearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok := &Token{name: "t", epoch: time.Now()}
		tok.index.init()
		tok.life.closed = true // shows that a search would start, and starts none
		s := &scan{began: tok.clock(), done: make(chan struct{})}
		tok.index.scanned, tok.index.scanning = true, s
		time.Sleep(time.Millisecond) // of the bubble's clock
		found := make(chan error, 1)
		go func() {
			_, err := tok.Find(t.Context(), "k")
			found <- err
		}()
		synctest.Wait()
		tok.index.mu.Lock()
		tok.index.scanning = nil
		tok.index.mu.Unlock()
		close(s.done)
		if err := <-found; !errors.Is(err, ErrClosed) {
			t.Errorf("no search after the one that was running: %v", err)
		}
	})
}
