package verify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// pathCharacters are those that XksProxyUriPath may have.
const pathCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_"

const (
	defaultTimeout = 10 * time.Second
	defaultRegion  = "us-east-1"
	maxAnswer      = 4 << 20 // bytes read of an answer; the longest correct one is far shorter

	throttleTries = 5                      // a request answered by ThrottlingException is repeated so often
	throttleWait  = 200 * time.Millisecond // before the second try, twice that before the third, ...
)

// prober sends requests to the target. Its fields do not change once made,
// and what record holds has its own lock, so calls may run in parallel.
type prober struct {
	target  Target
	base    url.URL // scheme and host
	prefix  string  // path prefix without a slash at the end
	client  *http.Client
	record  *record
	checkID string
}

func newProber(t Target) (*prober, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, fmt.Errorf("proxy URL: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("proxy URL: want https://HOST[:PORT][/PREFIX]")
	}
	prefix := strings.TrimRight(u.Path, "/")
	prefix = strings.TrimSuffix(prefix, xks.APIPath)
	if strings.ContainsFunc(prefix, func(r rune) bool { return !strings.ContainsRune(pathCharacters, r) }) {
		return nil, errors.New("proxy URL: a path prefix has only the characters a-z, A-Z, 0-9, '/', '-' and '_'")
	}
	if t.KeyID == "" || t.Credential.AccessKeyID == "" || t.Credential.SecretAccessKey == "" {
		return nil, errors.New("a key id, an access key id and a secret access key are needed")
	}
	if t.Region == "" {
		t.Region = defaultRegion
	}
	if t.Timeout <= 0 {
		t.Timeout = defaultTimeout
	}
	p := &prober{target: t, base: url.URL{Scheme: u.Scheme, Host: u.Host}, prefix: prefix, record: &record{}}
	p.client = p.newClient(p.tlsConfig())
	return p, nil
}

func (p *prober) close() { p.client.CloseIdleConnections() }

// forCheck returns a prober whose answers are recorded under the check's id.
func (p *prober) forCheck(id string) *prober {
	q := *p
	q.checkID = id
	return &q
}

func (p *prober) secure() bool { return p.base.Scheme == "https" }

// tlsConfig trusts and presents what the target says.
func (p *prober) tlsConfig() *tls.Config {
	c := &tls.Config{RootCAs: p.target.RootCAs, MinVersion: tls.VersionTLS12}
	if p.target.ClientCertificate != nil {
		c.Certificates = []tls.Certificate{*p.target.ClientCertificate}
	}
	return c
}

// newClient speaks HTTP/1.1, which every proxy must support, and never
// follows a redirect.
func (p *prober) newClient(c *tls.Config) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return p.clientFor(&http.Transport{TLSClientConfig: c, Protocols: &protocols, MaxIdleConnsPerHost: parallel})
}

func (p *prober) clientFor(t *http.Transport) *http.Client {
	t.IdleConnTimeout = time.Minute
	return &http.Client{
		Transport:     t,
		Timeout:       p.target.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// preflight finds out whether checking makes sense at all.
func (p *prober) preflight(ctx context.Context) error {
	a := p.ask(ctx, health)
	if a.err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, a.err)
	}
	if a.errorName() == xks.AuthenticationFailedException {
		return fmt.Errorf("%w: it answers a signed GetHealthStatus with %s: check the URL's path prefix, the access key id, its secret and the clock",
			ErrUnreachable, a.describe())
	}
	return nil
}

// call makes a correct request under the target's key and applies the edits.
// For decrypt it is given something encrypted just before.
func (p *prober) call(ctx context.Context, op operation, edits ...edit) (*call, error) {
	body := object{}
	switch op {
	case encrypt:
		body = encryptBody([]byte(samplePlaintext), []byte(sampleAAD))
	case decrypt:
		s, err := p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), []byte(sampleAAD))
		if err != nil {
			return nil, fmt.Errorf("encrypting something to decrypt: %w", err)
		}
		body = s.decryptBody([]byte(sampleAAD))
	}
	return p.callWith(op, p.target.KeyID, body, edits...), nil
}

func (p *prober) callWith(op operation, key string, body object, edits ...edit) *call {
	body["requestMetadata"] = op.requestMetadata()
	c := &call{
		client:   p.client,
		method:   http.MethodPost,
		prefix:   p.prefix,
		resource: op.resource(key),
		body:     body,
		header:   http.Header{"Content-Type": {"application/json"}},
		signing:  newSigning(p.target.Credential, p.target.Region, time.Now()),
	}
	for _, e := range edits {
		e(c)
	}
	return c
}

// ask makes a call and sends it.
func (p *prober) ask(ctx context.Context, op operation, edits ...edit) answer {
	c, err := p.call(ctx, op, edits...)
	if err != nil {
		return answer{err: err}
	}
	return p.send(ctx, c)
}

// send sends a call and records the answer. It tries again when throttled: a
// proxy may throttle, and that says nothing about the check.
func (p *prober) send(ctx context.Context, c *call) answer {
	for try := 1; ; try++ {
		a := p.sendOnce(ctx, c)
		if a.err == nil && !c.unrecorded {
			p.record.add(p.checkID, c, a)
		}
		if a.errorName() != xks.ThrottlingException || try == throttleTries {
			return a
		}
		select {
		case <-ctx.Done():
			return answer{err: ctx.Err()}
		case <-time.After(throttleWait << (try - 1)):
		}
	}
}

func (p *prober) sendOnce(ctx context.Context, c *call) answer {
	body := c.raw
	if body == nil {
		var err error
		if body, err = json.Marshal(c.body, json.Deterministic(true)); err != nil {
			return answer{err: fmt.Errorf("encode the request: %w", err)}
		}
	}
	u := p.base
	u.Path = c.prefix + c.resource
	r, err := http.NewRequestWithContext(ctx, c.method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{err: fmt.Errorf("make the request: %w", err)}
	}
	r.Header = c.header.Clone()
	// Not sent: it tells the transport that the request may be repeated if the
	// proxy closes an idle connection under it.
	r.Header["X-Idempotency-Key"] = nil
	c.signing.sign(r, body)
	if c.tamper != nil {
		c.tamper(r)
	}
	return roundTrip(c.client, r)
}

func roundTrip(client *http.Client, r *http.Request) answer {
	started := time.Now()
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }() // only read from: nothing is lost
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{err: fmt.Errorf("read the answer: %w", err)}
	}
	return answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header, body: body, duration: time.Since(started)}
}
