package store

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func BenchmarkApply(b *testing.B) {
	for _, appliers := range []int{1, 64} {
		b.Run(fmt.Sprintf("appliers=%d", appliers), func(b *testing.B) {
			s := openAt(b, filepath.Join(b.TempDir(), "store.db"))
			data := bytes.Repeat([]byte("d"), 600)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range appliers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						id := fmt.Sprintf("%08x-0000-0000-0000-%012x", uint32(i*2654435761), i)
						if err := s.Apply(context.Background(), change("key", id, data)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}

// BenchmarkLoad opens a store of 100,000 records of 600 bytes and loads them.
func BenchmarkLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	s := openAt(b, path)
	fill(b, s, 100_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s := openAt(b, path)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		s := openAt(b, path)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for b.Loop() {
			n := 0
			err := s.Load(context.Background(), func(Record) error { n++; return nil })
			if err != nil || n != 100_000 {
				b.Fatalf("%d records, %v", n, err)
			}
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N)/100_000, "allocs/record")
	})
}

// BenchmarkScrub rewrites a store of 100,000 records of 600 bytes.
func BenchmarkScrub(b *testing.B) {
	s := openAt(b, filepath.Join(b.TempDir(), "store.db"))
	fill(b, s, 100_000)
	for b.Loop() {
		b.StopTimer()
		if err := s.Apply(context.Background(), change("key", "one", nil)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Scrub(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBackup copies a store of 100,000 records of 600 bytes.
func BenchmarkBackup(b *testing.B) {
	dir := b.TempDir()
	s := openAt(b, filepath.Join(dir, "store.db"))
	fill(b, s, 100_000)
	n := 0
	for b.Loop() {
		n++
		if err := s.Backup(context.Background(), filepath.Join(dir, fmt.Sprint(n))); err != nil {
			b.Fatal(err)
		}
	}
}

func fill(b *testing.B, s *SQLite, n int) {
	b.Helper()
	data := bytes.Repeat([]byte("d"), 600)
	for start := 0; start < n; start += 10_000 {
		var changes []Change
		for i := start; i < start+10_000; i++ {
			changes = append(changes, change("key", fmt.Sprintf("%08x-0000-0000-0000-%012x", uint32(i*2654435761), i), data))
		}
		if err := s.Apply(context.Background(), changes...); err != nil {
			b.Fatal(err)
		}
	}
}
