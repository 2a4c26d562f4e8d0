package sigv4

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The credential and the moment of AWS's published examples.
const (
	exampleID     = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	exampleDate   = "20150830T123600Z"
)

func exampleTime() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) }

// vector is a request with the signature that another implementation made for
// it: AWS's published examples, botocore 1.43 and curl 7.88.
type vector struct {
	name, method, url string
	header            http.Header
	body              string
	id, secret        string
	region, service   string
	date              string
	signature         string
}

func vectors() []vector {
	aws := func(v vector) vector {
		v.id, v.secret, v.date = exampleID, exampleSecret, exampleDate
		if v.region == "" {
			v.region, v.service = "us-east-1", "service"
		}
		return v
	}
	curl := vector{
		method: "POST", header: http.Header{"Content-Type": {"application/json"}},
		id: "BETWEEN2TENAND3TENCHARACTERS", secret: "PleaseReplaceThisWithSomeSecretOfLength43To64",
		region: "us-east-1", service: "kms-xks-proxy", date: "20261122T222938Z",
	}
	health, empty := curl, curl
	health.name = "curl with a body"
	health.url = "http://127.0.0.1:18471/example/uri/path/prefix/kms/xks/v1/health"
	health.body = `{"requestMetadata":{"kmsRequestId":"r","kmsOperation":"KmsHealthCheck"}}`
	health.signature = "2af5ae55e6577b50f285eb0f26d081d968aacdb868826928719314459969c8f2"
	empty.name = "curl with a host of its own and no body"
	empty.url = "http://xks.example.com/kms/xks/v1/keys/foo/metadata"
	empty.signature = "be0596d1e702f4d449c3ac38c07d2909495208f3a54646527f7d1f7d26844976"
	return []vector{
		health, empty,
		aws(vector{name: "get", method: "GET", url: "https://example.amazonaws.com/",
			signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"}),
		aws(vector{name: "post", method: "POST", url: "https://example.amazonaws.com/",
			signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"}),
		aws(vector{name: "form", method: "POST", url: "https://example.amazonaws.com/", body: "Param1=value1",
			header:    http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
			signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"}),
		aws(vector{name: "query sorted by name", method: "GET", url: "https://example.amazonaws.com/?Param2=value2&Param1=value1",
			signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"}),
		aws(vector{name: "query sorted by value, one name the beginning of another", method: "GET",
			url:       "https://example.amazonaws.com/?b=1&a-b=x&a=2&a=10&a=",
			signature: "d0db248831effea8e9c2f34a81956f0eb9b04f4ca0b5986f2b2bd9382dec3ab4"}),
		aws(vector{name: "query with escapes", method: "GET", url: "https://example.amazonaws.com/?k=%2F%20%2A",
			signature: "b23429931a8cafdd44578c0b54dd2ac85173b620fce5507dfe54a73f6bc3f1b5"}),
		aws(vector{name: "path with UTF-8", method: "GET", url: "https://example.amazonaws.com/%E1%88%B4",
			signature: "697b34846207a3f72246f99d74ae1ee4fe54f44bb06730c58a0d339eb079596d"}),
		aws(vector{name: "path with reserved characters", method: "GET", url: "https://example.amazonaws.com/a%20b/c:d",
			signature: "db02cdca127b327ce88ef132a6930a4359bea75481532adbd8eb2199de7570ca"}),
		aws(vector{name: "headers trimmed and folded", method: "GET", url: "https://example.amazonaws.com/",
			header:    http.Header{"My-Header1": {"a   b    c"}, "My-Header2": {"  x  "}},
			signature: "66042f0960e417758148ecec6e2779c9f1dcc2aaad2cb8031f668b303a661184"}),
		aws(vector{name: "proxy", method: "POST", url: "https://example.amazonaws.com/p/kms/xks/v1/keys/a.b-c_D/encrypt",
			header: http.Header{"Content-Type": {"application/json"}}, body: `{"plaintext":"SGVsbG8="}`,
			region: "eu-west-1", service: "kms-xks-proxy",
			signature: "22612e9410cb0d07f0842367c6a17c395b3c5383b066be3dd4a50590525767e4"}),
	}
}

func (v vector) request() (r *http.Request, extra []string) {
	r = httptest.NewRequest(v.method, v.url, strings.NewReader(v.body))
	for name, values := range v.header {
		r.Header[name] = values
		extra = append(extra, name)
	}
	return r, extra
}

func TestSignMakesTheSignaturesOfOthers(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			r, extra := v.request()
			at, err := time.Parse(dateFormat, v.date)
			if err != nil {
				t.Fatal(err)
			}
			Sign(r, []byte(v.body), v.id, NewSecret(v.secret), v.region, v.service, at, extra...)
			if got := r.Header.Get("X-Amz-Date"); got != v.date {
				t.Errorf("X-Amz-Date is %q, want %q", got, v.date)
			}
			got := r.Header.Get("Authorization")
			wantStart := algorithm + " Credential=" + v.id + "/" + v.date[:8] + "/" + v.region + "/" + v.service + "/aws4_request, SignedHeaders="
			if !strings.HasPrefix(got, wantStart) {
				t.Errorf("Authorization is %q, want it to begin with %q", got, wantStart)
			}
			if _, signature, _ := strings.Cut(got, ", Signature="); signature != v.signature {
				t.Errorf("signature is %s, want %s", signature, v.signature)
			}
		})
	}
}

func TestCheckAcceptsTheSignaturesOfOthers(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			r, extra := v.request()
			at, err := time.Parse(dateFormat, v.date)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Amz-Date", v.date)
			r.Header.Set("Authorization", algorithm+" Credential="+v.id+"/"+v.date[:8]+"/"+v.region+"/"+v.service+
				"/aws4_request, SignedHeaders="+strings.Join(signedHeaders(r, extra), ";")+", Signature="+v.signature)
			verifier := &Verifier{Service: v.service, Now: func() time.Time { return at }}
			a, err := verifier.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if a.AccessKeyID != v.id || a.Scope.Region != v.region {
				t.Errorf("parsed %q in %q, want %q in %q", a.AccessKeyID, a.Scope.Region, v.id, v.region)
			}
			if err := a.Check(r, []byte(v.body), NewSecret(v.secret)); err != nil {
				t.Errorf("Check: %v", err)
			}
			if err := a.Check(r, []byte(v.body), NewSecret(v.secret+"x")); !errors.Is(err, errMismatch) {
				t.Errorf("Check with another secret: %v, want %v", err, errMismatch)
			}
			if err := a.Check(r, []byte(v.body+" "), NewSecret(v.secret)); !errors.Is(err, errMismatch) {
				t.Errorf("Check with another body: %v, want %v", err, errMismatch)
			}
			if err := a.CheckUnknown(r, []byte(v.body)); !errors.Is(err, errMismatch) {
				t.Errorf("CheckUnknown: %v, want %v", err, errMismatch)
			}
		})
	}
}
