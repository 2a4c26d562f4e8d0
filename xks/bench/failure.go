package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// The kinds of an [ErrorCount].
const (
	KindAnswer    = "answer"    // the proxy answered, and not with what was asked for
	KindTransport = "transport" // no answer came
	KindSchedule  = "schedule"  // the request was due and never sent
	KindClient    = "client"    // the request could not be made
)

// failure names what went wrong with a request: one of the constants, an
// errorName, or "HTTP" and a status. Success is empty.
type failure string

// The failures that no errorName of the proxy names.
const (
	malformed      failure = "malformed answer"
	wrongPlaintext failure = "wrong plaintext"
	wrongCDIV      failure = "wrong integrity value"
	unknownName    failure = "unknown errorName"
	timedOut       failure = "timeout"
	refused        failure = "connection refused"
	closed         failure = "connection closed"
	tlsFailed      failure = "tls"
	dnsFailed      failure = "name resolution"
	otherTransport failure = "other transport error"
	notSent        failure = "not sent"
	notMade        failure = "request not made"
)

func (f failure) kind() string {
	switch f {
	case timedOut, refused, closed, tlsFailed, dnsFailed, otherTransport:
		return KindTransport
	case notSent:
		return KindSchedule
	case notMade:
		return KindClient
	}
	return KindAnswer
}

// waited reports whether the time until the failure is a lower bound of what
// the answer would have taken. Failures that come fast are none: counting
// them as latencies would make a broken proxy look quick.
func (f failure) waited() bool { return f == timedOut || f == notSent }

// errorAnswer names an answer with another status than 200.
func errorAnswer(status int, answer []byte) (failure, string) {
	var r xks.ErrorResponse
	// Members that we do not know are none of our business here.
	if err := json.Unmarshal(answer, &r); err != nil || r.Name == "" {
		return failure(fmt.Sprintf("HTTP %d", status)), "an answer without an errorName"
	}
	if r.Name.Status() == 0 {
		return unknownName, printable(string(r.Name))
	}
	return failure(r.Name), printable(r.Message)
}

// transportFailure names the kind of an error of the transport.
func transportFailure(err error) (failure, string) {
	return transportKind(err), printable(err.Error())
}

func transportKind(err error) failure {
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return timedOut
	case errors.As(err, &dns):
		return dnsFailed
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case isTLS(err):
		return tlsFailed
	case strings.Contains(err.Error(), "malformed HTTP"): // net/http has no type for it
		return malformed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return closed
	}
	return otherTransport
}

func isTLS(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
	)
	return errors.As(err, &certificate) || errors.As(err, &record) || errors.As(err, &alert) ||
		errors.As(err, &authority) || errors.As(err, &hostname) || errors.Is(err, http.ErrSchemeMismatch) ||
		strings.Contains(err.Error(), "tls: ") // most of crypto/tls's errors have no type
}

// maxExample bounds the text kept of one failure of each name, in bytes.
const maxExample = 200

// printable makes a stranger's text fit for a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxExample)]
}
