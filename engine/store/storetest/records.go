package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/engine/store"
)

func testEmpty(_ *testing.T, d *database) {
	d.expect(records{})
	d.apply() // nothing to do is done
	d.expect(records{})
}

func testPutReplaceDelete(_ *testing.T, d *database) {
	d.apply(put("key", "a", "one"), put("key", "b", "two"), put("alias", "a", "three"))
	d.expect(records{{"key", "a"}: "one", {"key", "b"}: "two", {"alias", "a"}: "three"})
	d.apply(put("key", "a", "longer than before"), remove("key", "b"), remove("key", "never was"))
	d.expect(records{{"key", "a"}: "longer than before", {"alias", "a"}: "three"})
	d.apply(put("key", "b", "again"), remove("alias", "a"))
	d.expect(records{{"key", "a"}: "longer than before", {"key", "b"}: "again"})
}

func testChangesInOrder(_ *testing.T, d *database) {
	d.apply(put("key", "a", "one"), put("key", "a", "two"),
		put("key", "b", "one"), remove("key", "b"),
		remove("key", "c"), put("key", "c", "one"))
	d.expect(records{{"key", "a"}: "two", {"key", "c"}: "one"})
}

// testNames has names that a database may take for the same, or may not take.
func testNames(_ *testing.T, d *database) {
	want := records{}
	for _, kind := range []string{"key", "Key", "k", "ke", strings.Repeat("k", store.MaxKind)} {
		for _, id := range []string{
			"a", "A", "a ", " a", "%", "_", "'", `"`, "\\", "1", "01", "1.0", "\n", "ä", "a\u0308", "\U0001F511",
			"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
			strings.Repeat("i", store.MaxID), strings.Repeat("i", store.MaxID-1),
		} {
			want[name{kind, id}] = kind + id
		}
	}
	for n, data := range want {
		d.apply(put(n.kind, n.id, data))
	}
	d.expect(want)
	d.apply(remove("key", "a"))
	delete(want, name{"key", "a"})
	d.expect(want)
}

func testSizes(_ *testing.T, d *database) {
	want := records{}
	for _, size := range []int{0, 1, 600, 4095, 4096, 4097, 32 << 10, 1 << 20, store.MaxData} {
		id := fmt.Sprint(size)
		want[name{"key", id}] = strings.Repeat("\x00\xff'", size/3+1)[:size]
		d.apply(put("key", id, want[name{"key", id}]))
	}
	d.apply(store.Change{Record: store.Record{Kind: "key", ID: "nil"}})
	want[name{"key", "nil"}] = ""
	d.expect(want)
}

func testManyChanges(_ *testing.T, d *database) {
	want := records{}
	var puts, removals []store.Change
	for i := range 5000 {
		id := fmt.Sprint(i)
		puts = append(puts, put("key", id, strings.Repeat(id, 100)))
		if i%2 == 0 {
			removals = append(removals, remove("key", id))
			continue
		}
		want[name{"key", id}] = strings.Repeat(id, 100)
	}
	d.apply(puts...)
	d.apply(removals...)
	d.expect(want)
}

// testInvalid has in each set one change that cannot be made; none may be.
func testInvalid(t *testing.T, d *database) {
	d.apply(put("key", "a", "one"))
	for what, bad := range map[string]store.Change{
		"no kind":            put("", "a", ""),
		"long kind":          put(strings.Repeat("k", store.MaxKind+1), "a", ""),
		"kind with NUL":      put("k\x00", "a", ""),
		"kind not UTF-8":     put("k\xff", "a", ""),
		"no id":              put("key", "", ""),
		"long id":            put("key", strings.Repeat("i", store.MaxID+1), ""),
		"id with NUL":        put("key", "a\x00b", ""),
		"id not UTF-8":       put("key", "\xc3", ""),
		"long data":          put("key", "b", strings.Repeat("d", store.MaxData+1)),
		"removal of no kind": remove("", "a"),
		"removal of no id":   remove("key", ""),
	} {
		err := d.Apply(d.ctx, put("key", "a", "two"), put("key", "new", ""), bad, remove("key", "a"))
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	d.expect(records{{"key", "a"}: "one"})
}

func testLoadedDataIsTheCallers(t *testing.T, d *database) {
	want := records{}
	for i := range 100 {
		id := fmt.Sprint(i)
		want[name{"key", id}] = "data of " + id
		d.apply(put("key", id, "data of "+id))
	}
	var kept []store.Record
	err := d.Load(d.ctx, func(r store.Record) error {
		kept = append(kept, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range kept {
		if want[name{r.Kind, r.ID}] != string(r.Data) {
			t.Errorf("%s has %q by the end of Load", r.ID, r.Data)
		}
		clear(r.Data)
	}
	d.expect(want)
}

func testLoadStops(t *testing.T, d *database) {
	want := records{{"key", "a"}: "one", {"key", "b"}: "two", {"key", "c"}: "three"}
	for n, data := range want {
		d.apply(put(n.kind, n.id, data))
	}
	stop, calls := errors.New("stop"), 0
	err := d.Load(d.ctx, func(store.Record) error {
		if calls++; calls == 2 {
			return stop
		}
		return nil
	})
	if err != stop || calls != 2 { //nolint:errorlint // the error itself is promised
		t.Errorf("Load returned %v after %d calls, want its function's error after 2", err, calls)
	}
	d.expect(want)
}
