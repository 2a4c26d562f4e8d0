package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Service is what the probes ask.
type Service interface {
	// Ready returns why the service should not get requests now, or nil.
	Ready() error
}

// Server is the operators' listener: plain HTTP, without authentication, for an
// address that only they reach.
//
//	/ping     200 while requests are welcome, for load balancers
//	/livez    200 while the process answers at all
//	/readyz   200 while every key store can serve, else 503 and why
//	/metrics  Prometheus
type Server struct {
	inner net.Listener
	http  *http.Server
	done  chan struct{}
}

// Listen serves on address until Close.
func Listen(address string, m *Metrics, s Service, log *slog.Logger) (*Server, error) {
	inner, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("operators' listener %s: another program listens there already: end it, or change operations.address in the configuration (%w)", address, err)
	} else if err != nil {
		return nil, fmt.Errorf("operators' listener %s: %w", address, err)
	}
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorLog: errorLog}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Ready()) })
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Ready()) })
	server := &Server{inner: inner, done: make(chan struct{}), http: &http.Server{
		Handler: mux, ErrorLog: errorLog,
		ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}}
	go func() {
		defer close(server.done)
		if err := server.http.Serve(inner); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the operators' listener has failed", "address", address, "error", err)
		}
	}()
	return server, nil
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err) // the peer has gone if this fails
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// Addr returns the address that connections are accepted on.
func (s *Server) Addr() net.Addr { return s.inner.Addr() }

// Close stops serving.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}
