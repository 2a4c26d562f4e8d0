package engine

import (
	"runtime"
	"sync"

	"github.com/hyok-kms/hyok/engine/store"
)

// loading decodes stored records, which takes most of the time of a start, on all
// cores, and then puts them into the state one after the other.
type loading struct {
	decode  func(store.Record) (put func(), err error)
	records chan []store.Record
	workers sync.WaitGroup
	pack    []store.Record // not sent yet; owned by who calls add

	mu   sync.Mutex
	puts []func() // guarded by mu
	err  error    // of a record; guarded by mu
}

// loadPack is how many records a worker takes at a time.
const loadPack = 256

// newLoading starts the workers; finish must follow. decode returns what puts a
// record into the state, and is called by many goroutines at once.
func newLoading(decode func(store.Record) (put func(), err error)) *loading {
	n := runtime.GOMAXPROCS(0)
	l := &loading{decode: decode, records: make(chan []store.Record, n)}
	for range n {
		l.workers.Go(l.work)
	}
	return l
}

// add hands a record to the workers. An error is that of some record before.
func (l *loading) add(r store.Record) error {
	if l.pack = append(l.pack, r); len(l.pack) < loadPack {
		return nil
	}
	l.records <- l.pack
	l.pack = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// finish waits for the workers and puts what they decoded into the state, unless
// a record could not be decoded.
func (l *loading) finish() error {
	l.records <- l.pack
	close(l.records)
	l.workers.Wait()
	if l.err != nil {
		return l.err
	}
	for _, put := range l.puts {
		put()
	}
	return nil
}

func (l *loading) work() {
	for pack := range l.records {
		puts := make([]func(), 0, len(pack))
		var failed error
		for _, r := range pack {
			put, err := l.decode(r)
			if err != nil {
				failed = err
				break
			}
			puts = append(puts, put)
		}
		l.mu.Lock()
		l.puts = append(l.puts, puts...)
		if l.err == nil {
			l.err = failed
		}
		l.mu.Unlock()
	}
}
