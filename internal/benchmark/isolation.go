package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// cost is how often something can be done a second, and the CPU time that it takes,
// in microseconds: of all processes.
type cost struct{ rate, each float64 }

// isolationResult is the median over the rounds, with the module in one place.
type isolationResult struct {
	handler, tls, encrypt, decrypt, http cost
	median, p99                          time.Duration // of the proxy over TLS at AWS KMS's default quota
}

// runIsolation measures what it costs to have the module in a process of its own,
// part (h) of docs/performance.md.
func runIsolation(ctx context.Context, dir string, o options) (err error) {
	var results [2]isolationResult
	var figures []figure
	var proxies []*subject
	for i, isolation := range []string{"none", "process"} {
		s, k, err := newIsolation(ctx, filepath.Join(dir, isolation), isolation)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close(ctx), k.close(ctx)) }()
		more, err := isolationFigures(ctx, s, k, o.length, &results[i])
		if err != nil {
			return err
		}
		figures, proxies = append(figures, more...), append(proxies, s)
	}
	if err := alternate(o.rounds, figures); err != nil {
		return err
	}
	for i, s := range proxies {
		if results[i].median, results[i].p99, err = s.latency(ctx); err != nil {
			return err
		}
	}
	printIsolation(results)
	return nil
}

// newIsolation makes a proxy and an embedded KMS on a token each.
func newIsolation(ctx context.Context, dir, isolation string) (*subject, *kmsSubject, error) {
	s, err := newSubject(ctx, filepath.Join(dir, "xks"), "xks-"+isolation, usedKeys, isolation)
	if err != nil {
		return nil, nil, err
	}
	k, err := newKMSSubject(ctx, filepath.Join(dir, "kms"), "kms-"+isolation, isolation == "process")
	if err != nil {
		return nil, nil, errors.Join(err, s.close(ctx))
	}
	return s, k, nil
}

func isolationFigures(ctx context.Context, s *subject, k *kmsSubject, length time.Duration, r *isolationResult) ([]figure, error) {
	plain, cdiv, kms := s.requests(false), s.requests(true), k.requests("Encrypt")
	server, err := serve(k.handler, "", "")
	if err != nil {
		return nil, err
	}
	k.servers = append(k.servers, server)
	var allocs float64 // those of the other process do not count
	return []figure{
		{&r.handler.rate, func() (tally, error) { return handlerRate(s.proxy.Handler(), plain, length, &allocs) }, &r.handler.each},
		{&r.tls.rate, func() (tally, error) {
			return socketRate(ctx, s.proxy.Addresses()[0].String(), s.tls, cdiv, length)
		}, &r.tls.each},
		{&r.encrypt.rate, func() (tally, error) { return operationRate(ctx, length, k.encrypt, nil) }, &r.encrypt.each},
		{&r.decrypt.rate, func() (tally, error) { return operationRate(ctx, length, k.decrypt, nil) }, &r.decrypt.each},
		{&r.http.rate, func() (tally, error) { return socketRate(ctx, server.addr(), nil, kms, length) }, &r.http.each},
	}, nil
}

func printIsolation(results [2]isolationResult) {
	fmt.Printf("\n%-42s%12s%12s%12s\n", "(h) isolation", "none", "process", "ratio")
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	row := func(name, format string, value func(isolationResult) float64) {
		none, process := value(results[0]), value(results[1])
		fmt.Printf("%-42s"+format+format+"%11.0f%%\n", name, none, process, 100*process/none)
	}
	for _, c := range []struct {
		name string
		cost func(isolationResult) cost
	}{
		{"XKS handler, Encrypt", func(r isolationResult) cost { return r.handler }},
		{"XKS over TLS, Encrypt with CDIV", func(r isolationResult) cost { return r.tls }},
		{"KMS engine, Encrypt", func(r isolationResult) cost { return r.encrypt }},
		{"KMS engine, Decrypt", func(r isolationResult) cost { return r.decrypt }},
		{"KMS over HTTP, Encrypt", func(r isolationResult) cost { return r.http }},
	} {
		row(c.name+", a second", "%12.0f", func(r isolationResult) float64 { return c.cost(r).rate })
		row("    CPU, microseconds each", "%12.1f", func(r isolationResult) float64 { return c.cost(r).each })
	}
	row("XKS over TLS, 1,800 a second: p50, ms", "%12.2f", func(r isolationResult) float64 { return ms(r.median) })
	row("    p99, ms", "%12.2f", func(r isolationResult) float64 { return ms(r.p99) })
}
