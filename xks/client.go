package xks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hyok-kms/hyok/internal/sigv4"
)

// maxAnswer bounds an answer, in bytes beyond twice the size of the request:
// no valid answer repeats more than the request's ciphertext or plaintext.
const maxAnswer = 64 << 10

// Client calls an XKS proxy as AWS KMS does. It is safe for concurrent use. Its
// deadlines are those of the contexts: AWS KMS itself waits 250 ms.
//
// Its methods return a [*Error] for an error of the specification's table that
// the proxy answered, a [*ResponseError] for an answer that the specification
// does not allow, and any other error when there was no answer.
type Client struct {
	base        string // endpoint and APIPath
	accessKeyID string
	secret      *sigv4.Secret
	region      string
	http        *http.Client
	now         func() time.Time
}

// ClientOption changes what [NewClient] makes.
type ClientOption func(*Client)

// WithHTTPClient has requests sent by hc, for example with other TLS settings,
// instead of a client like http.DefaultClient. Redirects are not followed,
// whatever hc says.
func WithHTTPClient(hc *http.Client) ClientOption {
	return func(c *Client) { c.http = hc }
}

// WithClock has requests signed with the time that now returns.
func WithClock(now func() time.Time) ClientOption {
	return func(c *Client) { c.now = now }
}

// NewClient makes a client of the key store at endpoint: the URL, http or
// https, up to and with the store's path prefix, without [APIPath]. Requests
// are signed by the credential for an AWS Region.
func NewClient(endpoint string, credential Credential, region string, options ...ClientOption) (*Client, error) {
	base, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if err := credential.Validate(); err != nil {
		return nil, err
	}
	if region == "" || strings.ContainsAny(region, "/ ,\t\r\n") {
		return nil, fmt.Errorf("%q is no AWS Region: give one such as us-east-1", region)
	}
	c := &Client{
		base:        base + APIPath,
		accessKeyID: credential.AccessKeyID,
		secret:      sigv4.NewSecret(credential.SecretAccessKey),
		region:      region,
		http:        &http.Client{},
		now:         time.Now,
	}
	for _, option := range options {
		option(c)
	}
	hc := *c.http
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &hc
	return c, nil
}

func parseEndpoint(endpoint string) (base string, err error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", errors.New("the endpoint of the proxy is not a URL") // which might hold a password
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return "", fmt.Errorf("endpoint %q: it must begin with https:// or http:// and a host", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("endpoint %q: it must have no user, query or fragment", u.Redacted())
	}
	prefix := strings.TrimSuffix(u.EscapedPath(), "/")
	if strings.HasSuffix(prefix, APIPath) {
		return "", fmt.Errorf("endpoint %q: leave out %s at the end", endpoint, APIPath)
	}
	for _, ch := range []byte(prefix) {
		if !isAlphanumeric(ch) && ch != '/' && ch != '-' && ch != '_' {
			return "", fmt.Errorf("endpoint %q: its path may have only a-z, A-Z, 0-9, '/', '-' and '_'", endpoint)
		}
	}
	if strings.Contains(prefix, "//") {
		return "", fmt.Errorf("endpoint %q: its path has an empty segment", endpoint)
	}
	return u.Scheme + "://" + u.Host + prefix, nil
}

// GetKeyMetadata asks for the type, usage and status of an external key.
func (c *Client) GetKeyMetadata(ctx context.Context, keyID string, m RequestMetadata) (*MetadataResponse, error) {
	response := new(MetadataResponse)
	err := c.callKey(ctx, keyID, "metadata", &MetadataRequest{RequestMetadata: m}, response, response.fault)
	if err != nil {
		return nil, err
	}
	return response, nil
}

// Encrypt encrypts by an external key. The response is checked as AWS KMS does
// it, with its ciphertextDataIntegrityValue if r asks for one.
func (c *Client) Encrypt(ctx context.Context, keyID string, r *EncryptRequest) (*EncryptResponse, error) {
	response := new(EncryptResponse)
	err := c.callKey(ctx, keyID, "encrypt", r, response, func() string { return response.fault(r) })
	if err != nil {
		return nil, err
	}
	return response, nil
}

// Decrypt decrypts by an external key.
func (c *Client) Decrypt(ctx context.Context, keyID string, r *DecryptRequest) (*DecryptResponse, error) {
	response := new(DecryptResponse)
	err := c.callKey(ctx, keyID, "decrypt", r, response, func() string { return response.fault(r) })
	if err != nil {
		return nil, err
	}
	return response, nil
}

// GetHealthStatus asks for the health of the proxy and what stands behind it.
func (c *Client) GetHealthStatus(ctx context.Context, m RequestMetadata) (*HealthResponse, error) {
	response := new(HealthResponse)
	err := c.call(ctx, "/health", &HealthRequest{RequestMetadata: m}, response, response.fault)
	if err != nil {
		return nil, err
	}
	return response, nil
}

// NewRequest makes the signed POST of body to a path below [APIPath], for
// example "/keys/k/encrypt", for callers that send something unusual. A caller
// that changes what is signed, which is all but further headers, breaks the
// signature.
func (c *Client) NewRequest(ctx context.Context, path string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request for the XKS proxy: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	sigv4.Sign(r, body, c.accessKeyID, c.secret, c.region, Service, c.now())
	return r, nil
}

// callKey calls an operation of one key. It refuses key ids that would make
// another path, and all others that no external key can have.
func (c *Client) callKey(ctx context.Context, keyID, operation string, request, response any, fault func() string) error {
	if n := len(keyID); n < 1 || n > 128 {
		return fmt.Errorf("external key id has %d characters: it must have 1 to 128", n)
	}
	for _, ch := range []byte(keyID) {
		if !isAlphanumeric(ch) && ch != '-' && ch != '.' && ch != '_' {
			return fmt.Errorf("external key id %q has a character outside a-z, A-Z, 0-9, '-', '.' and '_'", keyID)
		}
	}
	if keyID == "." || keyID == ".." {
		return fmt.Errorf("external key id %q cannot stand in a URL", keyID)
	}
	return c.call(ctx, "/keys/"+keyID+"/"+operation, request, response, fault)
}

// call posts request and decodes the answer into response. fault tells what is
// wrong with a decoded response, or nothing.
func (c *Client) call(ctx context.Context, path string, request, response any, fault func() string) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request of the XKS proxy: %w", withoutContent(err))
	}
	r, err := c.NewRequest(ctx, path, body)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("calling the XKS proxy: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	limit := maxAnswer + 2*len(body)
	content, err := io.ReadAll(io.LimitReader(answer.Body, int64(limit)+1))
	if err != nil {
		return fmt.Errorf("reading the answer of the XKS proxy: %w", err)
	}
	if len(content) > limit {
		return &ResponseError{answer.StatusCode, fmt.Sprintf("it has more than %d bytes", limit)}
	}
	return decodeAnswer(answer, content, response, fault)
}

func decodeAnswer(answer *http.Response, content []byte, response any, fault func() string) error {
	status := answer.StatusCode
	if status == http.StatusMethodNotAllowed {
		return &ResponseError{status, "POST must be allowed"}
	}
	mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return &ResponseError{status, "its Content-Type is not application/json"}
	}
	if status != http.StatusOK {
		return decodeError(status, content)
	}
	if err := json.Unmarshal(content, response); err != nil {
		return &ResponseError{status, withoutContent(err).Error()}
	}
	if what := fault(); what != "" {
		return &ResponseError{status, what}
	}
	return nil
}

// withoutContent keeps of an error of package json only where it happened: the
// rest may quote what was decoded.
func withoutContent(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("its member %q is malformed", string(semantic.JSONPointer))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return fmt.Errorf("it is no JSON from byte %d on", syntactic.ByteOffset)
	}
	return errors.New("it is no JSON")
}
