package verify

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hyok-kms/hyok/xks"
)

// operation is one of the four operations of the API.
type operation string

const (
	health   operation = "health"
	metadata operation = "metadata"
	encrypt  operation = "encrypt"
	decrypt  operation = "decrypt"
)

func operations() []operation { return []operation{health, metadata, encrypt, decrypt} }

// section is the operation's heading in the specification.
func (op operation) section() string {
	switch op {
	case health:
		return "GetHealthStatus"
	case metadata:
		return "GetKeyMetadata"
	case encrypt:
		return "Encrypt"
	default:
		return "Decrypt"
	}
}

// resource is the path of the operation below the path prefix.
func (op operation) resource(key string) string {
	if op == health {
		return xks.APIPath + "/health"
	}
	return xks.APIPath + "/keys/" + key + "/" + string(op)
}

// object is a JSON object that can lack members and have wrong ones.
type object map[string]any

// The sample values of the specification.
const (
	samplePrincipal = "arn:aws:iam::123456789012:user/Alice"
	sampleKeyARN    = "arn:aws:kms:us-east-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	sampleAAD       = "project=nile,department=marketing"
	samplePlaintext = "Hello World!"
)

// requestMetadata returns all members that the operation requires.
func (op operation) requestMetadata() object {
	m := object{"kmsRequestId": newUUID()}
	switch op {
	case health:
		m["kmsOperation"] = "KmsHealthCheck"
		return m
	case metadata:
		m["kmsOperation"] = "CreateKey"
	case encrypt:
		m["kmsOperation"] = "Encrypt"
	case decrypt:
		m["kmsOperation"] = "Decrypt"
	}
	m["awsPrincipalArn"] = samplePrincipal
	if op != metadata {
		m["kmsKeyArn"] = sampleKeyARN
	}
	return m
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// call is one request before it is sent: correct as [prober.call] makes it,
// and wrong in what its edits change.
type call struct {
	client     *http.Client
	method     string
	prefix     string // path prefix of the key store
	resource   string // path below the prefix
	body       object
	raw        []byte // sent instead of body if not nil
	header     http.Header
	signing    signing
	tamper     func(*http.Request) // damages the request after it was signed
	unrecorded bool                // the answer does not count for the "answers" checks
}

// edit changes one thing about a call.
type edit func(*call)

// set gives a member of the body a value: "plaintext", or
// "requestMetadata.kmsOperation".
func set(path string, value any) edit {
	return func(c *call) {
		o, name := c.member(path)
		o[name] = value
	}
}

// drop removes a member of the body.
func drop(path string) edit {
	return func(c *call) {
		o, name := c.member(path)
		delete(o, name)
	}
}

func (c *call) member(path string) (object, string) {
	if outer, name, nested := strings.Cut(path, "."); nested {
		return c.body[outer].(object), name
	}
	return c.body, path
}

// raw sends these bytes, correctly signed, as the body.
func raw(body string) edit { return func(c *call) { c.raw = []byte(body) } }

// at sends the request to another path below the key store's prefix.
func at(resource string) edit { return func(c *call) { c.resource = resource } }

// method sends the request, correctly signed, with another method.
func method(name string) edit { return func(c *call) { c.method = name } }

// signed changes how the request is signed.
func signed(change func(*signing)) edit { return func(c *call) { change(&c.signing) } }

// tampered damages the request after it was signed.
func tampered(damage func(*http.Request)) edit { return func(c *call) { c.tamper = damage } }

func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
}
