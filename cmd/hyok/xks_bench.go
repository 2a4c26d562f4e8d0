package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hyok-kms/hyok/xks"
	"github.com/hyok-kms/hyok/xks/bench"
)

// xksBench is `hyok xks bench` with its flags.
type xksBench struct {
	xksFlags
	keyFile    string
	operation  string
	cdiv       bool
	plaintext  int
	aad        int
	conns      int
	rate       float64
	closed     bool
	duration   time.Duration
	requests   int64
	warmup     time.Duration
	output     string
	reportFile string
	maxP99     time.Duration
	minRate    float64
}

// xksBenchFailure says that a proxy did not stand the load: exit code 1.
type xksBenchFailure struct{ reasons []string }

func (e *xksBenchFailure) Error() string { return strings.Join(e.reasons, "; ") }

// ExitCode returns 1.
func (e *xksBenchFailure) ExitCode() int { return 1 }

// newXKSBenchCommand makes `hyok xks bench`.
func newXKSBenchCommand() *cobra.Command {
	b := &xksBench{}
	cmd := &cobra.Command{
		Use:   "bench [URL]",
		Short: "Load an XKS proxy and measure what AWS KMS would see",
		Long: `Load the XKS proxy at URL (default $HYOK_XKS_URL) and report its throughput,
its latencies and how many requests it answered within the 250 ms after which
AWS KMS gives up.

Requests come at a rate (open loop), by default at 1,800 a second: the quota
that AWS KMS has by default. Their latency counts from when they were due, so
that a stall of the proxy shows in full. With --closed each connection sends
its next request when the last is answered: that finds the maximum.

The requests are real: signed, and made with the external keys that are named.
They encrypt random data, and decrypt what was encrypted before.

Ctrl-C ends the measurement early; the report is that of the part until then.

Exit codes: 0 if each request was answered well and every threshold held, 1 if
not or if there was no measurement, 2 for a mistake on the command line.`,
		Example: `  . data/quickstart.env
  hyok xks bench
  hyok xks bench --closed --cdiv --report bench.html
  hyok xks bench --rate 5000 --duration 1m --max-p99 5ms -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%d arguments: at most one URL is expected", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd, args) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	b.register(cmd)
	return cmd
}

func (b *xksBench) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	b.xksFlags.register(fs)
	fs.StringVar(&b.keyFile, "key-file", "", "`file` with one external key id a line, instead of --key-id")
	fs.StringVar(&b.operation, "operation", string(bench.Encrypt), "encrypt, decrypt or mixed")
	fs.BoolVar(&b.cdiv, "cdiv", false, "ask for a ciphertextDataIntegrityValue, as AWS KMS does for data keys")
	fs.IntVar(&b.plaintext, "plaintext-size", 32, "`bytes` of each plaintext")
	fs.IntVar(&b.aad, "aad-size", 32, "`bytes` of each additional authenticated data; 0: none")
	fs.IntVar(&b.conns, "connections", 16, "`number` of connections, each with one request at a time")
	fs.Float64Var(&b.rate, "rate", bench.DefaultRate, "`number` of requests a second (open loop)")
	fs.BoolVar(&b.closed, "closed", false, "as many requests as the connections can carry (closed loop)")
	fs.DurationVar(&b.duration, "duration", 10*time.Second, "`time` to measure for")
	fs.Int64Var(&b.requests, "requests", 0, "`number` of requests to measure, instead of --duration")
	fs.DurationVar(&b.warmup, "warmup", time.Second, "`time` to send before measuring")
	fs.StringVarP(&b.output, "output", "o", "text", "text or json")
	fs.StringVar(&b.reportFile, "report", "", "also write a report with plots to this .html or .svg `file`")
	fs.DurationVar(&b.maxP99, "max-p99", 0, "exit with 1 if p99 is above this `time`")
	fs.Float64Var(&b.minRate, "min-rate", 0, "exit with 1 if fewer than this `number` of requests a second are answered")
}

func (b *xksBench) run(cmd *cobra.Command, args []string) error {
	if err := exclusive(cmd.Flags(), [][2]string{{"closed", "rate"}, {"requests", "duration"}, {"key-id", "key-file"}}); err != nil {
		return err
	}
	target, load, err := b.load(args)
	if err != nil {
		return err
	}
	// What goes wrong from here on is not a matter of usage.
	cmd.SilenceUsage = true
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	// A second Ctrl-C ends the program as usual.
	defer context.AfterFunc(ctx, stop)()

	bar := newBenchProgress(cmd.ErrOrStderr())
	report, err := bench.Run(ctx, load, bar.update)
	bar.finish()
	if err != nil {
		return fmt.Errorf("bench %s: %w", target.URL.Redacted(), err)
	}
	report.URL = target.URL.String()
	if err := b.write(cmd.OutOrStdout(), report); err != nil {
		return err
	}
	return b.verdict(report)
}

// exclusive refuses flags that contradict each other. Cobra's own check has an
// error that cannot be told from a failure of the command.
func exclusive(fs *pflag.FlagSet, pairs [][2]string) error {
	for _, p := range pairs {
		if fs.Changed(p[0]) && fs.Changed(p[1]) {
			return usagef("--%s and --%s exclude each other", p[0], p[1])
		}
	}
	return nil
}

// load makes the load of the flags and the environment.
func (b *xksBench) load(args []string) (xksTarget, bench.Load, error) {
	fail := func(err error) (xksTarget, bench.Load, error) { return xksTarget{}, bench.Load{}, err }
	if err := b.check(); err != nil {
		return fail(err)
	}
	if b.keyFile != "" {
		ids, err := readKeyFile(b.keyFile)
		if err != nil {
			return fail(err)
		}
		b.keyIDs = ids
	}
	target, err := b.target(args)
	if err != nil {
		return fail(err)
	}
	transport, err := b.transport(b.conns)
	if err != nil {
		return fail(err)
	}
	client, err := xks.NewClient(target.URL.String(), target.Credential, target.Region)
	if err != nil {
		return fail(&exitError{exitUsage, err})
	}
	load := bench.Load{
		NewRequest: client.NewRequest, Transport: transport,
		Operation: bench.Operation(b.operation), CDIV: b.cdiv, KeyIDs: target.KeyIDs,
		PlaintextSize: b.plaintext, AADSize: b.aad,
		Connections: b.conns, Rate: b.rate, Duration: b.duration, Requests: b.requests,
		Warmup: b.warmup, Timeout: b.timeout,
	}
	if b.closed {
		load.Rate = 0
	}
	if err := load.Validate(); err != nil {
		return fail(&exitError{exitUsage, err})
	}
	return target, load, nil
}

// check finds the mistakes that only this command can find.
func (b *xksBench) check() error {
	switch ext := filepath.Ext(b.reportFile); {
	case b.output != "text" && b.output != "json":
		return usagef("--output %s: it must be text or json", b.output)
	case b.reportFile != "" && ext != ".html" && ext != ".svg":
		return usagef("--report %s: its name must end in .html or .svg", b.reportFile)
	case !b.closed && b.rate == 0:
		return usagef("--rate 0: give a rate, or --closed for the maximum")
	case b.requests < 0:
		return usagef("--requests %d: it must be positive", b.requests)
	}
	return nil
}

func readKeyFile(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("external key ids: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var ids []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if id := strings.TrimSpace(lines.Text()); id != "" {
			ids = append(ids, id)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usagef("external key ids: %s: %w", name, err)
	}
	if len(ids) == 0 {
		return nil, usagef("external key ids: %s names none", name)
	}
	return ids, nil
}

// write writes the report to where the flags say.
func (b *xksBench) write(stdout io.Writer, r *bench.Report) error {
	var fileErr error
	if b.reportFile != "" {
		fileErr = writeReportFile(b.reportFile, r)
	}
	write := r.WriteText
	if b.output == "json" {
		write = r.WriteJSON
	}
	return errors.Join(write(stdout), fileErr)
}

func writeReportFile(name string, r *bench.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	write := r.WriteHTML
	if filepath.Ext(name) == ".svg" {
		write = r.WriteSVG
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("report %s: %w", name, err)
	}
	return nil
}

// verdict returns an error that names each reason for exit code 1.
func (b *xksBench) verdict(r *bench.Report) error {
	var reasons []string
	if r.Failed > 0 {
		reasons = append(reasons, fmt.Sprintf("%d of %d requests failed", r.Failed, r.Requests))
	}
	if p99 := time.Duration(r.Latency.P99US) * time.Microsecond; b.maxP99 > 0 && (p99 > b.maxP99 || r.Latency.Count == 0) {
		reasons = append(reasons, fmt.Sprintf("p99 of %v is above --max-p99 %v", p99, b.maxP99))
	}
	if r.ThroughputPerSecond < b.minRate {
		reasons = append(reasons, fmt.Sprintf("%.1f answers a second are below --min-rate %g", r.ThroughputPerSecond, b.minRate))
	}
	if len(reasons) > 0 {
		return &xksBenchFailure{reasons}
	}
	return nil
}
