package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/logbuffer"
	"github.com/hyok-kms/hyok/internal/logfile"
	"github.com/hyok-kms/hyok/internal/proxy"
)

// serveFlags override the configuration for one run.
type serveFlags struct {
	data              dataFlags
	listen            string
	operations        string
	plainHTTP         bool
	behindTerminator  bool
	logLevel, logFile string
}

func newServeCommand() *cobra.Command {
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the XKS proxy API and the AWS KMS API",
		Long: `Opens the configured tokens and serves the key stores to AWS KMS, and the embedded
KMS to whoever its identities are, until SIGTERM or SIGINT, then finishes the requests
in flight (limits.drain).

The configuration, credentials and certificates are read again when they change, and
on SIGHUP, which also searches the tokens for new keys at once and tries a PIN again
that a token has refused. One that is not valid
is refused, with its errors in the log, and the one in force stays. The log is JSON,
one line for each request, on standard error, or in a file, which is opened again on
SIGHUP and when another one is at its path, as after its rotation.`,
		Example: `  $ hyok serve --data /srv/hyok
  $ hyok serve --data /srv/hyok --listen 127.0.0.1:8080 --plain-http`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd) },
	}
	flags.data.add(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.listen, "listen", "", "XKS listener's address, instead of the configured one (if there is one)")
	f.StringVar(&flags.operations, "operations", "", "operators' listener's address, instead of the configured one")
	f.BoolVar(&flags.plainHTTP, "plain-http", false, "serve plain HTTP, on a loopback address alone")
	f.BoolVar(&flags.behindTerminator, "behind-tls-terminator", false, "with --plain-http: any address, since another program does TLS in front")
	f.StringVar(&flags.logLevel, "log-level", "", "debug, info, warn or error, instead of log.level")
	f.StringVar(&flags.logFile, "log-file", "", "append the log to this file instead of standard error")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command) (err error) {
	spendMemoryOnGarbage()
	c, err := f.data.load()
	if err == nil {
		err = f.override(c)
	}
	if err != nil {
		return err
	}
	proxy.SpareProcessors(c)
	out, err := f.logOutput(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	buffer := logbuffer.New(out)
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP) // which would end a process that is only starting
	defer signal.Stop(hangUp)
	defer func() { err = errors.Join(err, buffer.Close(), out.Close()) }()
	level := &slog.LevelVar{}
	level.Set(c.Log.Level)
	log := slog.New(slog.NewJSONHandler(buffer, &slog.HandlerOptions{Level: level}))

	warn(log, c)
	ctx := cmd.Context()
	p, err := proxy.Start(ctx, c, versionString(), log)
	if err != nil {
		return err
	}
	p.WatchLog(buffer.Lost)
	if err := f.announce(cmd.OutOrStdout(), c, p); err != nil {
		return errors.Join(err, p.Shutdown(ctx))
	}
	watching, stop := context.WithCancel(ctx)
	watched := f.watch(watching, c, p, level, log, reopening(watching, hangUp, out))
	var failed error
	select {
	case <-ctx.Done():
		log.Info("shutting down", "drain", c.Limits.Drain.String())
	case failed = <-p.Failed():
	}
	stop()
	<-watched
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Limits.Drain)
	defer cancel()
	return errors.Join(failed, p.Shutdown(drain))
}

// warn logs what a configuration has that is probably not meant.
func warn(log *slog.Logger, c *config.Config) {
	for _, err := range c.Warnings {
		log.Warn("the configuration may not be as it is meant", "warning", err)
	}
}

// spendMemoryOnGarbage collects garbage eight times more rarely than Go does by
// default, unless the environment says how often: what lives is a few megabytes,
// and requests make hundreds a second.
func spendMemoryOnGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(800)
	}
}

// logOutput is where the log goes.
type logOutput interface {
	io.WriteCloser
	Reopen()
}

// logOutput opens where the log goes.
func (f *serveFlags) logOutput(standard io.Writer) (logOutput, error) {
	if f.logFile == "" {
		return stream{standard}, nil
	}
	return logfile.Open(f.logFile)
}

// stream is an output that is neither closed nor opened again.
type stream struct{ io.Writer }

func (stream) Close() error { return nil }
func (stream) Reopen()      {}

// reopening passes signals on until ctx is done, and has the log opened anew at each:
// whatever the configuration is like, it may have been moved away.
func reopening(ctx context.Context, signals <-chan os.Signal, log logOutput) <-chan os.Signal {
	passed := make(chan os.Signal, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				log.Reopen()
				select {
				case passed <- s:
				default: // one is waiting, and will do
				}
			}
		}
	}()
	return passed
}

// override applies the flags to the configuration.
func (f *serveFlags) override(c *config.Config) error {
	if f.operations != "" {
		c.Operations = f.operations
	}
	if f.logLevel != "" {
		if err := c.Log.Level.UnmarshalText([]byte(f.logLevel)); err != nil {
			return usagef("--log-level must be debug, info, warn or error")
		}
	}
	if f.listen == "" && !f.plainHTTP {
		return nil
	}
	if len(c.Listeners) != 1 {
		return usagef("--listen and --plain-http need a configuration with one listener; %s has %d", c.Path, len(c.Listeners))
	}
	l := &c.Listeners[0]
	if f.listen != "" {
		l.Address = f.listen
	}
	if f.plainHTTP {
		l.TLS = nil
		if !f.behindTerminator && !isLoopback(l.Address) {
			return usagef("plain HTTP on %s would show every plaintext to the network: use a loopback address, or say --behind-tls-terminator if another program does TLS in front", l.Address)
		}
	}
	return nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// watch reloads the configuration when it changes and on hangUp, until ctx is
// done; then it closes the channel that it returns.
func (f *serveFlags) watch(ctx context.Context, c *config.Config, p *proxy.Proxy, level *slog.LevelVar, log *slog.Logger, hangUp <-chan os.Signal) <-chan struct{} {
	done := make(chan struct{})
	ticker := time.NewTicker(time.Second)
	w := config.Watcher{Ticks: ticker.C, Now: hangUp, Profiles: profiles(), Reload: func(next *config.Config, asked bool, err error) {
		if err == nil {
			err = f.override(next)
		}
		if err == nil {
			err = p.Reload(ctx, next)
		}
		if err != nil {
			log.Error("the new configuration is refused; the one in force stays", "error", err)
			return
		}
		level.Set(next.Log.Level)
		log.Info("configuration reloaded")
		warn(log, next)
		if asked { // a certificate that renews itself says nothing of a PIN
			p.RetryPINs()
		}
		if err := p.Refresh(ctx); err != nil {
			log.Error("the search for new keys failed", "error", err)
		}
	}}
	go func() {
		defer close(done)
		defer ticker.Stop()
		w.Run(ctx, c)
	}()
	return done
}

// announce prints what a person needs next.
func (f *serveFlags) announce(w io.Writer, c *config.Config, p *proxy.Proxy) error {
	var b strings.Builder
	for i, addr := range p.Addresses() {
		scheme := "https"
		if c.Listeners[i].TLS == nil {
			scheme = "http"
		}
		for s := range c.Stores {
			fmt.Fprintf(&b, "Key store %s: %s://%s%s (credentials in %s)\n", c.Stores[s].Name, scheme, reachable(addr), c.Stores[s].URIPath(), c.Stores[s].CredentialsFile)
		}
	}
	for i, addr := range p.KMSAddresses() {
		scheme := "https"
		if c.KMS.Listeners[i].TLS == nil {
			scheme = "http"
		}
		fmt.Fprintf(&b, "AWS KMS API: %s://%s (identities in %s)\n", scheme, reachable(addr), c.KMS.IdentitiesFile)
	}
	for _, err := range p.Unopened() {
		fmt.Fprintf(&b, "Not there yet, and looked for every two seconds: %v\n", err)
	}
	if addr := p.OperationsAddress(); addr != nil {
		fmt.Fprintf(&b, "Metrics and probes: http://%s/metrics, /readyz\n", reachable(addr))
	}
	if env := filepath.Join(c.Dir(), quickstartFile); fileExists(env) && f.listen == "" && !f.plainHTTP {
		fmt.Fprintf(&b, "Try it from another terminal:\n\n%s", curlExample(env))
		if c.KMS != nil {
			b.WriteString("  aws kms create-key\n")
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// reachable replaces the address of all interfaces by a local one.
func reachable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return addr.String()
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
