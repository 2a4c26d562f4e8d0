// Command benchmark prints the ratios of docs/performance.md from one run on one
// machine: what a SoftHSM2 token can do, what hyok makes of it without and with
// the network, and what a bare net/http server does.
//
// Rounds of all measurements alternate, and medians are compared, since the
// speed of a shared machine drifts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/softhsm"
)

func main() {
	rounds := flag.Int("rounds", 3, "rounds of all measurements")
	length := flag.Duration("time", time.Second, "time of one measurement")
	flag.Parse()
	debug.SetGCPercent(800) // as hyok serve; the bare server has the benefit of it too
	if err := run(*rounds, *length, []int{4, 1000, 10000}); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

// connections is the number of TLS connections of (c) and (d).
const connections = 16

// result is the median over the rounds for one number of keys, in operations
// or requests a second.
type result struct {
	rawObject, rawCopy   float64 // (a)
	handler, handlerCDIV float64 // (b)
	allocs, allocsCDIV   float64
	tls, bare            float64 // (c), (d)
	p99                  time.Duration
}

func run(rounds int, length time.Duration, sizes []int) (err error) {
	dir, err := os.MkdirTemp(memoryFolder(), "hyok-benchmark-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conf, err := softhsm.Configure(dir)
	if err != nil {
		return err
	}
	if err := os.Setenv(softhsm.ConfigVariable, conf); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %d rounds of %v each; 32-byte plaintext, 32-byte AAD, 4 keys used\n\n", runtime.Version(), runtime.GOMAXPROCS(0), rounds, length)
	fmt.Println("                                              keys in the token")
	fmt.Printf("%-42s", "a second, median")
	for _, n := range sizes {
		fmt.Printf("%12d", n)
	}
	fmt.Println()
	var results []result
	for _, n := range sizes {
		r, err := measure(context.Background(), dir, n, rounds, length)
		if err != nil {
			return fmt.Errorf("%d keys: %w", n, err)
		}
		results = append(results, r)
	}
	print(results)
	return nil
}

// memoryFolder is where SoftHSM2 need not wait for a disk when keys are made.
func memoryFolder() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

func print(results []result) {
	for _, row := range []struct {
		name   string
		value  func(result) float64
		format string
	}{
		{"(a) raw C_Encrypt, token object", func(r result) float64 { return r.rawObject }, "%12.0f"},
		{"(a) raw C_Encrypt, session copy", func(r result) float64 { return r.rawCopy }, "%12.0f"},
		{"(b) handler, Encrypt", func(r result) float64 { return r.handler }, "%12.0f"},
		{"    share of what (a) copy allows: 1 call", func(r result) float64 { return 100 * r.handler / r.rawCopy }, "%11.0f%%"},
		{"    share of what (a) object allows: 1 call", func(r result) float64 { return 100 * r.handler / r.rawObject }, "%11.0f%%"},
		{"    allocations", func(r result) float64 { return r.allocs }, "%12.0f"},
		{"(b) handler, Encrypt with CDIV", func(r result) float64 { return r.handlerCDIV }, "%12.0f"},
		{"    share of what (a) copy allows: 2 calls", func(r result) float64 { return 200 * r.handlerCDIV / r.rawCopy }, "%11.0f%%"},
		{"    share of what (a) object allows: 2 calls", func(r result) float64 { return 200 * r.handlerCDIV / r.rawObject }, "%11.0f%%"},
		{"    allocations", func(r result) float64 { return r.allocsCDIV }, "%12.0f"},
		{"(c) TLS, SigV4, Encrypt with CDIV", func(r result) float64 { return r.tls }, "%12.0f"},
		{"(d) bare net/http over TLS", func(r result) float64 { return r.bare }, "%12.0f"},
		{"    (c) as a share of (d)", func(r result) float64 { return 100 * r.tls / r.bare }, "%11.0f%%"},
		{"p99 at 1,800 a second, ms", func(r result) float64 { return float64(r.p99.Microseconds()) / 1000 }, "%12.2f"},
	} {
		fmt.Printf("%-42s", row.name)
		for _, r := range results {
			fmt.Printf(row.format, row.value(r))
		}
		fmt.Println()
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
