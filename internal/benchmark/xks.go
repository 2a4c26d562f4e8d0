package main

import (
	"context"
	"fmt"
	"time"
)

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

// runXKS measures the XKS proxy, parts (a) to (d) of docs/performance.md.
func runXKS(ctx context.Context, dir string, o options) error {
	sizes := []int{4, 1000, 10000}
	fmt.Println("\nXKS proxy: 32-byte plaintext, 32-byte AAD, 4 keys used")
	fmt.Println("                                              keys in the token")
	fmt.Printf("%-42s", "a second, median")
	for _, n := range sizes {
		fmt.Printf("%12d", n)
	}
	fmt.Println()
	var results []result
	for _, n := range sizes {
		r, err := measure(ctx, dir, n, o.rounds, o.length)
		if err != nil {
			return fmt.Errorf("%d keys: %w", n, err)
		}
		results = append(results, r)
	}
	print(results)
	return nil
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
