// Package storetest has the test that every [store.Store] must pass. It looks at
// what a store promises its caller and at nothing of how it keeps it.
package storetest

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/engine/store"
)

// Fresh prepares an empty database for the time of a test and returns what opens
// it. The test opens it again after it closed it, and expects the same records.
type Fresh func(t *testing.T) (open func() (store.Store, error))

// Run tests the store that fresh makes.
func Run(t *testing.T, fresh Fresh) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, d *database)
	}{
		{"Empty", testEmpty},
		{"PutReplaceDelete", testPutReplaceDelete},
		{"ChangesInOrder", testChangesInOrder},
		{"Names", testNames},
		{"Sizes", testSizes},
		{"ManyChanges", testManyChanges},
		{"Invalid", testInvalid},
		{"LoadedDataIsTheCallers", testLoadedDataIsTheCallers},
		{"LoadStops", testLoadStops},
		{"Concurrent", testConcurrent},
		{"ContextEnds", testContextEnds},
		{"CloseDuringApply", testCloseDuringApply},
		{"Closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			t.Cleanup(cancel)
			d := &database{t: t, ctx: ctx, open: fresh(t)}
			d.reopen()
			t.Cleanup(func() { _ = d.Close() })
			test.run(t, d)
		})
	}
}

// database is a store that a test opens and closes.
type database struct {
	store.Store // nil until it is open
	t           *testing.T
	ctx         context.Context // far above what a test should take
	open        func() (store.Store, error)
}

type name struct{ kind, id string }

// records are the contents that a test expects.
type records map[name]string

// reopen closes the store, if it is open, and opens it.
func (d *database) reopen() {
	d.t.Helper()
	if d.Store != nil {
		if err := d.Close(); err != nil {
			d.t.Fatal(err)
		}
	}
	s, err := d.open()
	if err != nil {
		d.t.Fatal(err)
	}
	d.Store = s
}

func (d *database) apply(changes ...store.Change) {
	d.t.Helper()
	if err := d.Apply(d.ctx, changes...); err != nil {
		d.t.Fatal(err)
	}
}

// load returns all records, and fails where one is given twice.
func (d *database) load() records {
	d.t.Helper()
	all := records{}
	err := d.Load(d.ctx, func(r store.Record) error {
		n := name{r.Kind, r.ID}
		if _, ok := all[n]; ok {
			return errors.New("a record was given twice: " + r.Kind + " " + r.ID)
		}
		all[n] = string(r.Data)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// expect fails where the store has other records, now or opened again.
func (d *database) expect(want records) {
	d.t.Helper()
	d.compare("while open", want)
	d.reopen()
	d.compare("opened again", want)
}

func (d *database) compare(when string, want records) {
	d.t.Helper()
	got := d.load()
	if maps.Equal(got, want) {
		return
	}
	d.t.Errorf("%s there are %d records, want %d", when, len(got), len(want))
	for n, data := range want {
		if have, ok := got[n]; !ok || have != data {
			d.t.Errorf("%.40q has %.40q (%t), want %.40q", n, have, ok, data)
		}
	}
	for n := range got {
		if _, ok := want[n]; !ok {
			d.t.Errorf("%.40q should not be there", n)
		}
	}
}

func put(kind, id, data string) store.Change {
	return store.Change{Record: store.Record{Kind: kind, ID: id, Data: []byte(data)}}
}

func remove(kind, id string) store.Change {
	return store.Change{Record: store.Record{Kind: kind, ID: id}, Delete: true}
}
