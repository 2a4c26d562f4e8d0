package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/hyok-kms/hyok/engine/store"
)

// testConcurrent applies from many goroutines, some of them sets that are
// refused, which must not touch the others.
func testConcurrent(t *testing.T, d *database) {
	const workers, rounds = 32, 40
	var wg sync.WaitGroup
	want := records{}
	for w := range workers {
		for r := range rounds {
			id := fmt.Sprint(w, "/", r)
			want[name{"key", id}], want[name{"alias", id}] = id, id
		}
		want[name{"usage", fmt.Sprint(w)}] = fmt.Sprint(rounds - 1)
		wg.Go(func() {
			for r := range rounds {
				id := fmt.Sprint(w, "/", r)
				err := d.Apply(d.ctx, put("key", id, id), put("alias", id, id), put("usage", fmt.Sprint(w), fmt.Sprint(r)))
				if err != nil {
					t.Error(err)
				}
				if err := d.Apply(d.ctx, put("key", "bad", id), put("key", "", id)); err == nil {
					t.Error("a change without an id was made")
				}
			}
		})
	}
	wg.Wait()
	d.expect(want)
}

// testContextEnds cancels contexts while Apply runs. Whatever instant it is, the
// error tells whether the changes were made.
func testContextEnds(t *testing.T, d *database) {
	ended, cancel := context.WithCancel(d.ctx)
	cancel()
	if err := d.Apply(ended, put("key", "early", "")); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply with a context that has ended: %v", err)
	}
	d.apply(put("key", "there", "1"))
	if err := d.Load(ended, func(store.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Load with a context that has ended: %v", err)
	}
	var tally tally
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for r := range 50 {
				ctx, cancel := context.WithCancel(d.ctx)
				go func() {
					for range r * 20 {
						runtime.Gosched()
					}
					cancel()
				}()
				tally.apply(ctx, t, d, fmt.Sprint(w, "/", r), context.Canceled)
			}
		})
	}
	wg.Wait()
	d.expect(tally.with(records{{"key", "there"}: "1"}))
}

// testCloseDuringApply closes the store while others apply: each learns whether
// its change was made.
func testCloseDuringApply(t *testing.T, d *database) {
	var tally tally
	var wg sync.WaitGroup
	started := make(chan struct{})
	var once sync.Once
	for w := range 16 {
		wg.Go(func() {
			for r := range 1000 {
				if !tally.apply(d.ctx, t, d, fmt.Sprint(w, "/", r), store.ErrClosed) {
					return
				}
				once.Do(func() { close(started) })
			}
		})
	}
	<-started
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	d.reopen()
	d.expect(tally.with(nil))
}

// tally notes which changes were acknowledged.
type tally struct {
	mu   sync.Mutex
	made records
}

// apply makes one change and reports whether it was made. It may fail by the
// error that may be, and by no other.
func (y *tally) apply(ctx context.Context, t *testing.T, d *database, id string, may error) bool {
	err := d.Apply(ctx, put("key", id, id))
	if err != nil {
		if !errors.Is(err, may) {
			t.Errorf("%s: %v", id, err)
		}
		return false
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.made == nil {
		y.made = records{}
	}
	y.made[name{"key", id}] = id
	return true
}

// with returns what was acknowledged, and more.
func (y *tally) with(more records) records {
	all := records{}
	for _, m := range []records{y.made, more} {
		for n, data := range m {
			all[n] = data
		}
	}
	return all
}

func testClosed(t *testing.T, d *database) {
	d.apply(put("key", "a", "one"))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := d.Apply(d.ctx, put("key", "a", "two")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if err := d.Load(d.ctx, func(store.Record) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Load after Close: %v", err)
	}
	d.reopen()
	d.expect(records{{"key", "a"}: "one"})
}
