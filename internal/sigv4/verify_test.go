package sigv4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const testBody = `{"requestMetadata":{"kmsRequestId":"r"}}`

// signedRequest is a request of the proxy as a server sees it, signed with
// exampleSecret at exampleTime.
func signedRequest(extra ...string) *http.Request {
	r := httptest.NewRequest("POST", "https://xks.example.com/p/kms/xks/v1/keys/k/encrypt", strings.NewReader(testBody))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Two", "a")
	r.Header.Add("X-Two", "b")
	Sign(r, []byte(testBody), exampleID, NewSecret(exampleSecret), "eu-west-1", "kms-xks-proxy", exampleTime(), extra...)
	return r
}

func testVerifier() *Verifier {
	return &Verifier{Service: "kms-xks-proxy", Now: exampleTime}
}

// verify is what a server does with a request.
func verify(v *Verifier, r *http.Request, body string) error {
	a, err := v.Parse(r)
	if err != nil {
		return err
	}
	return a.Check(r, []byte(body), NewSecret(exampleSecret))
}

// replace changes one thing in the Authorization header.
func replace(old, by string) func(*http.Request) {
	return func(r *http.Request) {
		header := r.Header.Get("Authorization")
		if !strings.Contains(header, old) {
			panic("the header does not contain " + old)
		}
		r.Header.Set("Authorization", strings.Replace(header, old, by, 1))
	}
}

func set(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

func path(p string) func(*http.Request) {
	return func(r *http.Request) {
		u, err := r.URL.Parse("https://xks.example.com")
		if err != nil {
			panic(err)
		}
		u.Path, u.RawQuery, _ = strings.Cut(p, "?")
		r.URL = u
	}
}

func TestDefects(t *testing.T) {
	const signature = "Signature="
	header := signedRequest().Header.Get("Authorization")
	_, hexDigits, _ := strings.Cut(header, signature)
	tests := []struct {
		name   string
		change func(*http.Request)
		want   Error
	}{
		{"no Authorization", func(r *http.Request) { r.Header.Del("Authorization") }, errHeaderCount},
		{"two Authorizations", set("Authorization", header, header), errHeaderCount},
		{"empty Authorization", set("Authorization", ""), errAlgorithm},
		{"other algorithm", replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), errAlgorithm},
		{"algorithm in lower case", replace("AWS4-HMAC-SHA256", "aws4-hmac-sha256"), errAlgorithm},
		{"algorithm alone", set("Authorization", algorithm), errParts},
		{"comma after the algorithm", replace(algorithm, algorithm+" ,"), errParts},
		{"comma at the end", func(r *http.Request) { r.Header["Authorization"][0] += "," }, errParts},
		{"no Credential", replace("Credential="+exampleID+"/20150830/eu-west-1/kms-xks-proxy/aws4_request, ", ""), errParts},
		{"no SignedHeaders", replace("SignedHeaders=content-type;host;x-amz-date, ", ""), errParts},
		{"no Signature", replace(", Signature="+hexDigits, ""), errParts},
		{"two Credentials", replace(algorithm, algorithm+" Credential=a/b/c/d/aws4_request,"), errParts},
		{"two SignedHeaders", replace("SignedHeaders=", "SignedHeaders=host, SignedHeaders="), errParts},
		{"two Signatures", replace(signature, "Signature=00, Signature="), errParts},
		{"unknown part", replace(", SignedHeaders", ", Extra=1, SignedHeaders"), errParts},
		{"part in another case", replace(signature, "signature="), errParts},
		{"space before =", replace(signature, "Signature ="), errParts},
		{"empty Credential", replace("Credential="+exampleID+"/20150830/eu-west-1/kms-xks-proxy/aws4_request", "Credential="), errParts},
		{"Credential of four parts", replace("/eu-west-1", ""), errCredential},
		{"Credential of six parts", replace("/eu-west-1", "/eu-west-1/x"), errCredential},
		{"empty access key id", replace(exampleID, ""), errCredential},
		{"empty region", replace("eu-west-1", ""), errCredential},
		{"space in Credential", replace("eu-west-1", "eu west-1"), errCredential},
		{"other service", replace("kms-xks-proxy", "kms"), errService},
		{"other terminator", replace("aws4_request", "aws5_request"), errTerminator},
		{"other date in Credential", replace("/20150830", "/20150829"), errScopeDate},
		{"empty signed header", replace("host;", "host;;"), errSignedHeaders},
		{"signed headers end with ;", replace("x-amz-date", "x-amz-date;"), errSignedHeaders},
		{"signed headers not sorted", replace("content-type;host", "host;content-type"), errSignedHeaders},
		{"signed header twice", replace("host;", "host;host;"), errSignedHeaders},
		{"signed header in upper case", replace("host;", "Host;"), errSignedHeaders},
		{"signed header that is no name", replace("host;", "ho(st;"), errSignedHeaders},
		{"host not signed", replace("host;", ""), errRequired},
		{"date not signed", replace(";x-amz-date", ""), errRequired},
		{"target not signed", set("X-Amz-Target", "TrentService.Decrypt"), errUnsigned},
		{"another header of AWS not signed", set("X-Amz-Anything", "x"), errUnsigned},
		{"signed header absent", replace("host;", "host;origin;"), errAbsentHeader},
		{"authority in HTTP/1.1", replace("content-type;host", ":authority;content-type"), errAbsentHeader},
		{"content-length of unknown length", func(r *http.Request) {
			replace("content-type;", "content-length;content-type;")(r)
			r.ContentLength = -1
		}, errAbsentHeader},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, errAbsentHeader},
		{"two dates", set("X-Amz-Date", exampleDate, exampleDate), errDate},
		{"date in another format", set("X-Amz-Date", "Sun, 30 Aug 2015 12:36:00 GMT"), errDate},
		{"date with fractions", set("X-Amz-Date", "20150830T123600.1Z"), errDate},
		{"impossible date", set("X-Amz-Date", "20150231T123600Z"), errDate},
		{"date in another zone", set("X-Amz-Date", "20150830T123600A"), errDate},
		{"six minutes old", set("X-Amz-Date", "20150830T123000Z"), errSkew},
		{"six minutes ahead", set("X-Amz-Date", "20150830T124200Z"), errSkew},
		{"signature too short", replace(hexDigits, hexDigits[1:]), errSignatureForm},
		{"signature too long", replace(hexDigits, hexDigits+"0"), errSignatureForm},
		{"signature in upper case", replace(hexDigits, strings.ToUpper(hexDigits)), errSignatureForm},
		{"signature that is no hex", replace(hexDigits, strings.Repeat("g", 64)), errSignatureForm},
		{"path with .", path("/p/./kms"), errPath},
		{"path with ..", path("/p/x/../kms"), errPath},
		{"path that ends with ..", path("/p/.."), errPath},
		{"path with an empty segment", path("//p/kms"), errPath},
		{"path that ends with two slashes", path("/p//"), errPath},
		{"path without slash", path("*"), errPath},
		{"malformed query", path("/p?a=%zz"), errQuery},

		{"unsigned payload", set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), errContentSHA256},
		{"streaming payload", set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), errContentSHA256},
		{"hash of another body", set("X-Amz-Content-Sha256", strings.Repeat("0", 64)), errContentSHA256},
		{"no content hash in the header", set("X-Amz-Content-Sha256"), errContentSHA256},

		{"another signature", replace(signature+hexDigits, signature+strings.Repeat("0", 64)), errMismatch},
		{"another region", replace("eu-west-1", "eu-west-2"), errMismatch},
		{"another date of the same day", set("X-Amz-Date", "20150830T123601Z"), errMismatch},
		{"another host", func(r *http.Request) { r.Host = "xks.example.org" }, errMismatch},
		{"another method", func(r *http.Request) { r.Method = "PUT" }, errMismatch},
		{"another path", path("/p/kms/xks/v1/keys/k/decrypt"), errMismatch},
		{"a query", path("/p/kms/xks/v1/keys/k/encrypt?a"), errMismatch},
		{"another content type", set("Content-Type", "text/plain"), errMismatch},
		{"a second content type", set("Content-Type", "application/json", "application/json"), errMismatch},
		{"fewer signed headers", replace("content-type;", ""), errMismatch},
		{"more signed headers", replace("x-amz-date", "x-amz-date;x-two"), errMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := signedRequest()
			tt.change(r)
			err := verify(testVerifier(), r, testBody)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	bodyHash := fmt.Sprintf("%x", hashOf(testBody))
	tests := []struct {
		name   string
		extra  []string
		change func(*http.Request)
	}{
		{"as signed", nil, func(*http.Request) {}},
		{"no spaces", nil, replace(", ", ",")},
		{"tabs and many spaces", nil, replace(", ", " \t,   ")},
		{"hash of the body", nil, set("X-Amz-Content-Sha256", bodyHash)},
		{"several values", []string{"X-Two"}, func(*http.Request) {}},
		{"several values sent as one", []string{"x-two"}, set("X-Two", " a,b ")},
		{"content length", []string{"content-length"}, func(*http.Request) {}},
		{"header that is not signed", nil, set("X-Two", "c")},
		{"parts in another order", nil, func(r *http.Request) {
			_, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			parts := strings.Split(rest, ", ")
			r.Header.Set("Authorization", algorithm+" "+parts[2]+","+parts[0]+","+parts[1])
		}},
		{"security token", []string{"X-Two"}, set("X-Amz-Security-Token", "anything")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := signedRequest(tt.extra...)
			tt.change(r)
			if err := verify(testVerifier(), r, testBody); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	tests := []struct {
		max, skew time.Duration
		ok        bool
	}{
		{0, 5 * time.Minute, true},
		{0, -5 * time.Minute, true},
		{0, 5*time.Minute + time.Second, false},
		{0, -5*time.Minute - time.Second, false},
		{time.Second, time.Second, true},
		{time.Second, 2 * time.Second, false},
	}
	for _, tt := range tests {
		v := testVerifier()
		v.MaxSkew = tt.max
		v.Now = func() time.Time { return exampleTime().Add(tt.skew) }
		if err := verify(v, signedRequest(), testBody); (err == nil) != tt.ok {
			t.Errorf("maximum %v, skew %v: %v", tt.max, tt.skew, err)
		}
	}
}

// CheckUnknown must fail even for who signs with what it computes with.
func TestCheckUnknownAlwaysFails(t *testing.T) {
	r := httptest.NewRequest("POST", "https://xks.example.com/p", strings.NewReader(testBody))
	v := testVerifier()
	Sign(r, []byte(testBody), exampleID, &v.unknown, "eu-west-1", v.Service, exampleTime())
	a, err := v.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CheckUnknown(r, []byte(testBody)); !errors.Is(err, errMismatch) {
		t.Errorf("got %v, want %v", err, errMismatch)
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	if err := a.CheckUnknown(r, []byte(testBody)); !errors.Is(err, errContentSHA256) {
		t.Errorf("with a wrong content hash: got %v, want %v", err, errContentSHA256)
	}
}

func TestFaults(t *testing.T) {
	tests := map[Error]Fault{
		errHeaderCount: Incomplete, errParts: Incomplete, errDate: Incomplete, errAbsentHeader: Incomplete,
		errService: WrongService, errScopeDate: WrongDay,
		errSkew: Skewed, errContentSHA256: Mismatch, errMismatch: Mismatch,
	}
	for err, want := range tests {
		if got := err.Fault(); got != want {
			t.Errorf("%v: fault %d, want %d", err, got, want)
		}
	}
}

// parseDate agrees with the library on all that has the right length.
func TestParseDate(t *testing.T) {
	for _, s := range []string{
		exampleDate, "20240229T235959Z", "00010101T000000Z", "99991231T235959Z", "20230229T000000Z", "20240001T000000Z", "20241301T000000Z",
		"20240100T000000Z", "20240132T000000Z", "20240101T240000Z", "20240101T006000Z", "20240101T000060Z", "2024010 T000000Z",
		"20240101t000000Z", "20240101T000000z", "20240101T0000:0Z", "+0240101T000000Z", "20240101 000000Z", "00000000T000000Z",
	} {
		want, wantErr := time.Parse(dateFormat, s)
		got, err := parseDate(s)
		if (err == nil) != (wantErr == nil) || err == nil && !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v, %v", s, got, err, want, wantErr)
		}
	}
}

// Every header is found whether or not its name is one that is spelt out.
func TestSignedHeaderNames(t *testing.T) {
	for _, name := range []string{"X-Amz-Target", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "X-Other"} {
		r := httptest.NewRequest("POST", "https://xks.example.com/", nil)
		r.Header.Set(name, "v")
		if got := headerValues(r, strings.ToLower(name)); len(got) != 1 || got[0] != "v" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestErrorsAreSafeToAnswer(t *testing.T) {
	r := signedRequest()
	replace("host;", "Mark;")(r)
	err := verify(testVerifier(), r, testBody)
	var e Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no Error", err)
	}
	if strings.Contains(err.Error(), "Mark") {
		t.Errorf("%q quotes the request", err)
	}
}

// TestOverHTTP sends signed requests through real servers of both versions.
func TestOverHTTP(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, signed := range []string{"host", "content-length", "user-agent", "accept-encoding"} {
			t.Run(fmt.Sprintf("http2=%v/%s", http2, signed), func(t *testing.T) {
				testOverHTTP(t, http2, signed)
			})
		}
	}
}

func testOverHTTP(t *testing.T, http2 bool, signed string) {
	secret := NewSecret(exampleSecret)
	verifier := &Verifier{Service: "kms-xks-proxy"}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got := r.ProtoMajor == 2; got != http2 {
			t.Errorf("the request came over %s", r.Proto)
		}
		a, err := verifier.Parse(r)
		if err == nil {
			err = a.Check(r, body, secret)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
		}
	}))
	server.EnableHTTP2 = http2
	server.StartTLS()
	defer server.Close()

	for _, by := range []string{exampleSecret, "another"} {
		req, err := http.NewRequest("POST", server.URL+"/p/kms/xks/v1/keys/a.b-c_D~/encrypt?b=2&a=x+y", strings.NewReader(testBody))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", "a  b")
		req.Header.Set("Accept-Encoding", "identity")
		Sign(req, []byte(testBody), exampleID, NewSecret(by), "eu-west-1", "kms-xks-proxy", time.Now(), signed)
		if http2 && signed == "host" && by == exampleSecret {
			signAuthority(req)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if ok := resp.StatusCode == http.StatusOK; ok != (by == exampleSecret) {
			t.Errorf("signed with %s: %s %s", by, resp.Status, bytes.TrimSpace(answer))
		}
	}
}

// signAuthority signs r again with :authority in place of host, as AWS's
// documentation has it for HTTP/2.
func signAuthority(r *http.Request) {
	r.ProtoMajor = 2
	t := toSign{
		request: r, headers: []string{":authority", "x-amz-date"}, date: r.Header.Get("X-Amz-Date"),
		bodyHash: hashOf(testBody),
	}
	t.scope = Scope{t.date[:8], "eu-west-1", "kms-xks-proxy"}
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=:authority;x-amz-date, Signature=%x",
		algorithm, exampleID, appendScope(nil, t.scope), t.signature(NewSecret(exampleSecret))))
}

// Headers that may be added on the way, or say nothing that a service acts on,
// need not be signed.
func TestUnsignedHeaders(t *testing.T) {
	for _, name := range []string{
		"X-Amz-Security-Token", "X-Amz-User-Agent", "X-Amz-Cf-Id", "X-Amzn-Trace-Id", "X-Amzn-Requestid", "Amz-Sdk-Request", "Amz-Sdk-Invocation-Id",
		"X-Forwarded-For", "User-Agent", "Accept",
	} {
		r := signedRequest()
		r.Header.Set(name, "x")
		if _, err := testVerifier().Parse(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
