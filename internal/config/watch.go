package config

import (
	"context"
	"maps"
	"os"
	"time"
)

// patience is how many ticks a changed configuration may be wrong before that
// is reported: a certificate may be in place while its key is not yet.
const patience = 5

// Watcher loads a configuration again when its file, or one that it names,
// changes.
type Watcher struct {
	// Ticks says when to look for changes, such as a [time.Ticker] of a second.
	Ticks <-chan time.Time
	// Now asks to load at once, changed or not, such as SIGHUP. It may be nil.
	Now <-chan os.Signal
	// Profiles are those of Load.
	Profiles []string
	// Reload gets each new good configuration, or, once, the error of a bad one, and
	// whether Now has asked. It is called by the goroutine of Run alone.
	Reload func(c *Config, asked bool, err error)

	// The rest belongs to the goroutine of Run.
	path   string
	files  []string // to watch
	loaded snapshot // of the files at the last attempt that was reported
	last   snapshot // of the files at the last tick
	bad    int      // ticks since a change that could not be loaded
}

// Run watches until ctx is done. It starts with the configuration that is in
// force, and finds what changed since that was loaded.
func (w *Watcher) Run(ctx context.Context, current *Config) {
	w.path = current.Path
	w.files = current.Files()
	w.loaded, w.last, w.bad = current.seen, current.seen, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Now:
			w.bad = patience
			w.load(w.look(), true)
		case <-w.Ticks:
			w.tick()
		}
	}
}

// tick loads what has changed and then stayed as it is for a whole tick.
func (w *Watcher) tick() {
	seen := w.look()
	settled := maps.Equal(seen, w.last)
	if !settled {
		w.bad = 0
	}
	w.last = seen
	if settled && !maps.Equal(seen, w.loaded) {
		w.load(seen, false)
	}
}

// look returns how the files are, those included that a new text of the
// configuration names.
func (w *Watcher) look() snapshot {
	if self := versionOf(w.path); self != w.last[w.path] {
		if data, err := readFile(w.path); err == nil {
			c, _ := parse(w.path, data, nil) // errors are reported by load
			w.files = c.Files()
		}
	}
	return takeSnapshot(w.files)
}

// load reports the configuration of the files in seen, or its error, if that
// has been there for long enough.
func (w *Watcher) load(seen snapshot, asked bool) {
	c, err := Load(w.path, w.Profiles...)
	if err != nil {
		if w.bad++; w.bad < patience {
			return
		}
		w.bad = 0
		w.last, w.loaded = seen, seen
		w.Reload(nil, asked, err)
		return
	}
	w.bad = 0
	w.files = c.Files()
	w.last, w.loaded = c.seen, c.seen
	w.Reload(c, asked, nil)
}
