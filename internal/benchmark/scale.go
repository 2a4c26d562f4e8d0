package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const (
	fewKeys  = 100
	diskKeys = 5000 // made where the store is on a disk
	creators = 64   // make keys at the same time

	// cacheSize is how many unwrapped keys the vault of many keys keeps, the usual
	// number, and smallCache that of few keys: as large a share of them.
	cacheSize  = 4096
	smallCache = 4
)

// scaleResult is the median over the rounds for one number of keys, in operations
// a second.
type scaleResult struct {
	describe, hit, miss          float64
	describeCPU, hitCPU, missCPU float64 // of a call, in microseconds
	missed                       float64 // share of miss that were unwrapped
}

// runScale measures an embedded KMS with many keys beside one with few.
func runScale(ctx context.Context, dir string, o options) (err error) {
	dir = filepath.Join(dir, "scale")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	t, err := newRawToken(ctx, "bench-scale", 0, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	fmt.Printf("\nscale: an embedded KMS with %d keys beside one with %d\n\n", o.keys, fewKeys)
	if err := createOnDisk(ctx, t); err != nil {
		return err
	}
	many, err := newScaleSubject(ctx, t, "many", cacheSize, filepath.Join(dir, "many.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, many.node.close(ctx)) }()
	if err := many.create(ctx, o.keys, "store in "+where(dir)); err != nil {
		return err
	}
	if err := many.restart(ctx, t, o.rounds); err != nil {
		return err
	}
	return compare(ctx, t, dir, many, o)
}

// where names the kind of storage of a folder of ours.
func where(dir string) string {
	if strings.HasPrefix(dir, "/dev/shm/") {
		return "memory"
	}
	return "a folder"
}

// createOnDisk makes keys with a store in the folder for temporary files.
func createOnDisk(ctx context.Context, t *rawToken) (err error) {
	dir, err := os.MkdirTemp("", "hyok-benchmark-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newScaleSubject(ctx, t, "disk", cacheSize, filepath.Join(dir, "disk.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.node.close(ctx)) }()
	return s.create(ctx, diskKeys, "store in "+os.TempDir())
}

// scaleSubject is an embedded KMS with a number of keys.
type scaleSubject struct {
	node *node
	keys []string // ids
	// warm is how many of the first keys are in the vault's cache during the
	// measurement of hits.
	warm int
}

func newScaleSubject(ctx context.Context, t *rawToken, name string, cache int, path string) (*scaleSubject, error) {
	n, err := newNode(ctx, t, name, cache, path)
	return &scaleSubject{node: n}, err
}

// create makes n keys, and prints how many a second were made of the first and of
// the last of them.
func (s *scaleSubject) create(ctx context.Context, n int, what string) error {
	s.keys = make([]string, n)
	edge := min(10000, n/2)
	var next, made atomic.Int64
	begin := time.Now()
	var first, last atomic.Int64 // nanoseconds until the first edge keys, and all but the last, were made
	_, err := parallel(creators, time.Hour, func(_ int, _ func() bool) error {
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			out, err := s.node.client.CreateKey(ctx, &kms.CreateKeyInput{})
			if err != nil {
				return err
			}
			s.keys[i] = aws.ToString(out.KeyMetadata.KeyId)
			switch made.Add(1) {
			case int64(edge):
				first.Store(int64(time.Since(begin)))
			case int64(n - edge):
				last.Store(int64(time.Since(begin)))
			}
		}
		return nil
	})
	rate := func(took time.Duration) float64 { return float64(edge) / took.Seconds() }
	fmt.Printf("CreateKey a second, %d at once, %s: first %d %.0f, last %d %.0f\n", creators, what,
		edge, rate(time.Duration(first.Load())), edge, rate(time.Since(begin)-time.Duration(last.Load())))
	return err
}

// restart closes and opens the engine again, in rounds, and prints how long the
// opening took and what memory it needs.
func (s *scaleSubject) restart(ctx context.Context, t *rawToken, rounds int) error {
	var took, used []float64
	var empty, full uint64
	for range rounds {
		if err := s.node.shut(ctx); err != nil {
			return err
		}
		s.node.engine, s.node.client = nil, nil
		empty = heap()
		begin, cpu := time.Now(), cpuTime()
		if err := s.node.open(ctx, t); err != nil {
			return err
		}
		took, used = append(took, time.Since(begin).Seconds()), append(used, (cpuTime()-cpu).Seconds())
		full = heap()
	}
	rss, err := residentMemory()
	if err != nil {
		return err
	}
	fmt.Printf("start-up with %d keys, store and engine: %.2f s, CPU %.2f s\n", len(s.keys), median(took), median(used))
	fmt.Printf("memory: heap in use %.0f MB, %.0f MB of them for %d keys (%.0f bytes each); resident set %.0f MB\n\n",
		mega(full), mega(full-empty), len(s.keys), float64(full-empty)/float64(len(s.keys)), mega(rss))
	return nil
}

func mega(n uint64) float64 { return float64(n) / 1e6 }

// heap returns the bytes of the heap that are in use. Garbage is collected, and
// given back to the system, before.
func heap() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// residentMemory returns the resident set of this process in bytes: of the Go
// heap, and of the token, which is in the same process.
func residentMemory() (uint64, error) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		return 0, err
	}
	return resident * uint64(os.Getpagesize()), nil
}

// compare measures operations with random keys, in turn on few and on many keys.
func compare(ctx context.Context, t *rawToken, dir string, many *scaleSubject, o options) (err error) {
	few, err := newScaleSubject(ctx, t, "few", cacheSize, filepath.Join(dir, "few.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, few.node.close(ctx)) }()
	cold, err := newScaleSubject(ctx, t, "cold", smallCache, filepath.Join(dir, "cold.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cold.node.close(ctx)) }()
	for _, s := range []*scaleSubject{few, cold} {
		if err := s.create(ctx, fewKeys, "one of those with few keys"); err != nil {
			return err
		}
	}
	few.warm, many.warm = fewKeys, min(cacheSize*9/10, len(many.keys))
	var a, b scaleResult
	err = alternate(o.rounds, []figure{
		{&a.describe, func() (tally, error) { return few.describe(ctx, o.length) }, &a.describeCPU},
		{&b.describe, func() (tally, error) { return many.describe(ctx, o.length) }, &b.describeCPU},
		{&a.hit, func() (tally, error) { return few.encryptWarm(ctx, o.length) }, &a.hitCPU},
		{&b.hit, func() (tally, error) { return many.encryptWarm(ctx, o.length) }, &b.hitCPU},
		{&a.miss, func() (tally, error) { return cold.encryptCold(ctx, o.length, &a.missed) }, &a.missCPU},
		{&b.miss, func() (tally, error) { return many.encryptCold(ctx, o.length, &b.missed) }, &b.missCPU},
	})
	if err != nil {
		return err
	}
	printScale(a, b, len(many.keys))
	full := heap()
	rss, err := residentMemory()
	fmt.Printf("memory with %d unwrapped keys: heap in use %.0f MB, resident set %.0f MB\n", many.node.vault.Stats().Cached, mega(full), mega(rss))
	return err
}

func printScale(few, many scaleResult, keys int) {
	fmt.Printf("\n%-42s%12d%12d%12s\n", "a second, median; keys", fewKeys, keys, "cost")
	for _, row := range []struct {
		name      string
		rate, cpu func(scaleResult) float64
	}{
		{"DescribeKey of a random key", func(r scaleResult) float64 { return r.describe }, func(r scaleResult) float64 { return r.describeCPU }},
		{"Encrypt, random key, unwrapped already", func(r scaleResult) float64 { return r.hit }, func(r scaleResult) float64 { return r.hitCPU }},
		{"Encrypt, random key of all", func(r scaleResult) float64 { return r.miss }, func(r scaleResult) float64 { return r.missCPU }},
	} {
		a, b := row.rate(few), row.rate(many)
		fmt.Printf("%-42s%12.0f%12.0f%11.2fx\n", row.name, a, b, a/b)
		a, b = row.cpu(few), row.cpu(many)
		fmt.Printf("%-42s%12.1f%12.1f%11.2fx\n", "    CPU, microseconds each", a, b, b/a)
	}
	fmt.Printf("%-42s%11.0f%%%11.0f%%\n", "    of which had to be unwrapped", 100*few.missed, 100*many.missed)
}

func (s *scaleSubject) describe(ctx context.Context, length time.Duration) (tally, error) {
	return operationRate(ctx, length, func(ctx context.Context, _ int) error {
		_, err := s.node.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &s.keys[rand.IntN(len(s.keys))]})
		return err
	}, nil)
}

func (s *scaleSubject) encrypt(ctx context.Context, key string) error {
	_, err := s.node.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: make([]byte, 32)})
	return err
}

// encryptWarm encrypts with keys that are unwrapped.
func (s *scaleSubject) encryptWarm(ctx context.Context, length time.Duration) (tally, error) {
	for _, key := range s.keys[:s.warm] {
		if err := s.encrypt(ctx, key); err != nil {
			return tally{}, err
		}
	}
	return operationRate(ctx, length, func(ctx context.Context, _ int) error {
		return s.encrypt(ctx, s.keys[rand.IntN(s.warm)])
	}, nil)
}

// encryptCold encrypts with any key. missed gets the share of keys that had to be
// unwrapped.
func (s *scaleSubject) encryptCold(ctx context.Context, length time.Duration, missed *float64) (tally, error) {
	before := s.node.vault.Stats()
	rate, err := operationRate(ctx, length, func(ctx context.Context, _ int) error {
		return s.encrypt(ctx, s.keys[rand.IntN(len(s.keys))])
	}, nil)
	after := s.node.vault.Stats()
	unwraps := float64(after.Unwraps - before.Unwraps)
	*missed = unwraps / (unwraps + float64(after.Hits-before.Hits))
	return rate, err
}
