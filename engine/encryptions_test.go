package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// The log tells of a key material that is used too much, by each quarter of what
// it bears from the half on, also if the process was restarted meanwhile.
func TestEncryptionsAreCounted(t *testing.T) {
	var log bytes.Buffer
	e := &Engine{log: slog.New(slog.NewTextHandler(&log, nil)), background: t.Context()}
	k := &key{ID: "1", used: new(usage)}
	e.noteEncryption(k, "a")
	k.used.encryptions.Load().n.Store(1<<31 - 2)
	e.noteEncryption(k, "a")
	if log.Len() > 0 {
		t.Fatalf("too early: %s", &log)
	}
	stored := k.used.withCount(&lastUsage{KeyID: k.ID})
	k.used = new(usage)
	k.used.restore(stored)
	for range 2 {
		e.noteEncryption(k, "a")
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "encryptions=2147483648") {
		t.Errorf("at the half: %s", text)
	}
	k.used.encryptions.Load().n.Store(1<<32 - 1)
	e.noteEncryption(k, "a")
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 {
		t.Errorf("at the end: %s", text)
	}
	log.Reset()
	e.noteEncryption(k, "b")
	if n := k.used.encryptions.Load().n.Load(); n != 1 || log.Len() > 0 {
		t.Errorf("after a rotation: %d, %s", n, &log)
	}
}
