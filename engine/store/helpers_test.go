package store

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"
)

func open(path string) (*SQLite, error) {
	return OpenSQLite(context.Background(), path, slog.New(slog.DiscardHandler))
}

// openAt opens the store for the time of the test.
func openAt(t testing.TB, path string) *SQLite {
	t.Helper()
	s, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// patient bounds what a test waits for, far above what it should take.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func change(kind, id string, data []byte) Change {
	return Change{Record: Record{Kind: kind, ID: id, Data: data}}
}

func remove(kind, id string) Change {
	c := change(kind, id, nil)
	c.Delete = true
	return c
}

func apply(t testing.TB, s *SQLite, changes ...Change) {
	t.Helper()
	if err := s.Apply(patient(t), changes...); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t testing.TB, s *SQLite) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// load returns the data of each id.
func load(t testing.TB, s *SQLite) (map[string]string, error) {
	all := map[string]string{}
	err := s.Load(patient(t), func(r Record) error {
		all[r.ID] = string(r.Data)
		return nil
	})
	return all, err
}

func expect(t testing.TB, s *SQLite, want map[string]string) {
	t.Helper()
	if got, err := load(t, s); err != nil || !maps.Equal(got, want) {
		t.Errorf("the store has %.200q, %v, want %.200q", fmt.Sprint(got), err, fmt.Sprint(want))
	}
}
