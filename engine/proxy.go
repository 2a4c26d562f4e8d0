package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/hyok-kms/hyok/internal/egress"
	"github.com/hyok-kms/hyok/xks"
)

// proxyTimeout is how long AWS KMS waits for the answer of an XKS proxy, with the
// connection to it. It does not ask again.
const proxyTimeout = 250 * time.Millisecond

// dialTimeout bounds a connection attempt, which outlives the request that began
// it and which others join: where a name server is silent, they would wait with it
// for many seconds after it is back.
const dialTimeout = time.Second

// newProxies returns a client for XKS proxies that trusts the system's roots, and
// connects to public addresses alone: callers name the host.
func newProxies() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // AWS KMS goes through none
	t.DialContext = egress.PublicOnly().Dialer(&net.Dialer{Timeout: dialTimeout})
	t.MaxIdleConnsPerHost = 64 // all requests of a key store go to one host
	return &http.Client{Transport: t}
}

// proxyOf returns a client of a key store's proxy.
func (e *Engine) proxyOf(ctx context.Context, cks *customStore) (*xks.Client, error) {
	secret, err := e.openSecret(ctx, cks)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return e.proxyWith(cks, secret)
}

func (e *Engine) proxyWith(cks *customStore, secret []byte) (*xks.Client, error) {
	credential := xks.Credential{AccessKeyID: cks.AccessKeyID, SecretAccessKey: string(secret)}
	endpoint := cks.Endpoint + strings.TrimSuffix(cks.Path, xks.APIPath)
	// Requests bear the real time, which the proxy checks, not that of Config.Now.
	return xks.NewClient(endpoint, credential, cks.Region, xks.WithHTTPClient(e.proxies))
}

// requestMetadata tells a proxy of the operation that it is asked for.
func (c *Client) requestMetadata(ctx context.Context, op string) xks.RequestMetadata {
	m := xks.RequestMetadata{AWSPrincipalARN: c.caller.ARN, KMSOperation: op, KMSRequestID: requestIDOf(ctx)}
	if m.AWSPrincipalARN == "" { // which a proxy requires
		m.AWSPrincipalARN = "arn:" + partition(c.region) + ":iam::" + c.caller.Account + ":root"
	}
	return m
}

// requestIDOf returns the request id of ctx, or a new one.
func requestIDOf(ctx context.Context) string {
	if id := RequestID(ctx); id != "" {
		return id
	}
	return uuid.NewString()
}

// checkHealth asks a proxy for its health. The error is a *proxyFailure.
func (e *Engine) checkHealth(ctx context.Context, cks *customStore, proxy *xks.Client, op, requestID string) error {
	m := xks.RequestMetadata{KMSOperation: op, KMSRequestID: requestID}
	if requestID == "" {
		m.KMSRequestID = uuid.NewString()
	}
	health, err := ask(ctx, e, cks, m, func(ctx context.Context) (*xks.HealthResponse, error) {
		return proxy.GetHealthStatus(ctx, m)
	})
	if err != nil {
		return err
	}
	for _, manager := range health.EKMFleet {
		if manager.Health != xks.HealthUnavailable {
			return nil
		}
	}
	return &proxyFailure{unhealthy(), errors.New("all external key managers are unavailable")}
}

// ask asks a proxy once. The error is a *proxyFailure, or ctx's.
func ask[T any](ctx context.Context, e *Engine, cks *customStore, m xks.RequestMetadata, call func(context.Context) (T, error)) (T, error) {
	var reached progress
	bounded, cancel := context.WithTimeout(httptrace.WithClientTrace(ctx, reached.trace()), e.proxyTimeout)
	defer cancel()
	answer, err := call(bounded)
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return answer, ctx.Err() // the caller's doing, not the proxy's
	}
	e.log.WarnContext(ctx, "an external key store proxy failed", "store", cks.ID, "region", cks.Region, "account", cks.Account,
		"operation", m.KMSOperation, "request", m.KMSRequestID, "error", err)
	return answer, &proxyFailure{failureOf(err, &reached, bounded.Err() != nil), err}
}

// progress is how far a request has come. Its hooks may run after the request has
// ended.
type progress struct{ connected, secured atomic.Bool }

func (p *progress) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				p.connected.Store(true)
			}
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { p.secured.Store(err == nil) },
		GotConn: func(httptrace.GotConnInfo) {
			p.connected.Store(true)
			p.secured.Store(true)
		},
	}
}

// failureOf finds the row of the table of failure scenarios. late tells that the
// time was over: what seemed to be an answer is what hanging up has left of one.
func failureOf(err error, reached *progress, late bool) failure {
	var (
		named   *xks.Error
		answer  *xks.ResponseError
		dial    *net.OpError
		network net.Error
	)
	switch {
	case errors.As(err, &named):
		return namedFailure(named.Name)
	case errors.As(err, &answer) && !late:
		return malformed()
	case errors.As(err, &dial) && dial.Op == "dial", !reached.connected.Load():
		return noConnection()
	case late, errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return timedOut()
	case !reached.secured.Load():
		return noTLS()
	}
	return noConnection() // it broke
}

// proxyFailure is an error of an XKS proxy, or of the way to it.
type proxyFailure struct {
	failure
	cause error
}

// It has no Unwrap: nobody shall take the cause for an error of the engine's own.
func (f *proxyFailure) Error() string { return fmt.Sprintf("external key store proxy: %v", f.cause) }

// managing returns the exception of CreateCustomKeyStore and UpdateCustomKeyStore
// for an error of ask, creating that of CreateKey, and using that of a
// cryptographic operation.
func managing(err error) error {
	return exception(err, func(f failure) makeError { return f.managing })
}

func creating(err error) error {
	return exception(err, func(f failure) makeError { return f.creating })
}

func using(err error) error {
	return exception(err, func(failure) makeError { return keyInvalidState })
}

func exception(err error, of func(failure) makeError) error {
	var f *proxyFailure
	if !errors.As(err, &f) {
		return err
	}
	return of(f.failure)(aws.String(f.message))
}
