// Command benchmark prints the ratios of docs/performance.md from one run on one
// machine: what a SoftHSM2 token can do, what hyok makes of it without and with
// the network, and what a bare net/http server does; for the XKS proxy, for the
// embedded KMS, for both with the module in a process of its own, and for an
// embedded KMS with 100,000 keys.
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
	"runtime/pprof"
	"slices"
	"time"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == keystore.ModuleCommand {
		fmt.Fprintln(os.Stderr, "benchmark:", keystore.ServeModule())
		os.Exit(1)
	}
	o := options{}
	part := flag.String("part", "all", "what to measure: xks, kms, isolation, scale or all")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of all measurements")
	flag.DurationVar(&o.length, "time", time.Second, "time of one measurement")
	flag.IntVar(&o.keys, "keys", 100000, "keys of the part scale")
	profile := flag.String("cpuprofile", "", "file for a CPU profile of the whole run")
	flag.Parse()
	debug.SetGCPercent(800) // as hyok serve; the bare server has the benefit of it too
	if err := profiled(*profile, func() error { return run(context.Background(), *part, o) }); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

// profiled runs f, and writes a CPU profile of it to the file at path; "": none.
func profiled(path string, f func() error) (err error) {
	if path == "" {
		return f()
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// options is how to measure.
type options struct {
	rounds int
	length time.Duration // of one measurement
	keys   int           // of the part scale
}

// run measures one part, or all, with the tokens in a folder that it removes.
func run(ctx context.Context, part string, o options) (err error) {
	parts := []struct {
		name string
		run  func(context.Context, string, options) error
	}{{"xks", runXKS}, {"kms", runKMS}, {"isolation", runIsolation}, {"scale", runScale}}
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
	fmt.Printf("%s, %d cores, %d rounds of %v each\n", runtime.Version(), runtime.GOMAXPROCS(0), o.rounds, o.length)
	known := false
	for _, p := range parts {
		if part != "all" && part != p.name {
			continue
		}
		known = true
		if err := p.run(ctx, dir, o); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if !known {
		return fmt.Errorf("there is no part %q: name xks, kms, isolation, scale or all", part)
	}
	return nil
}

// memoryFolder is where SoftHSM2 need not wait for a disk when keys are made.
func memoryFolder() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// figure is something to measure.
type figure struct {
	rate    *float64 // gets the median of the calls a second
	measure func() (tally, error)
	each    *float64 // gets the median of the CPU time of a call, in microseconds; nil: nobody asks
}

// alternate measures all figures in turn, in rounds.
func alternate(rounds int, figures []figure) error {
	rates, each := make([][]float64, len(figures)), make([][]float64, len(figures))
	for round := range rounds + 1 {
		for i, f := range figures {
			t, err := f.measure()
			if err != nil {
				return err
			}
			if round > 0 { // the first one warms up
				rates[i], each[i] = append(rates[i], t.rate()), append(each[i], t.each())
			}
		}
	}
	for i, f := range figures {
		*f.rate = median(rates[i])
		if f.each != nil {
			*f.each = median(each[i])
		}
	}
	return nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
