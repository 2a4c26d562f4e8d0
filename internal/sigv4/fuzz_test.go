package sigv4

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// FuzzAuthorization puts anything into the Authorization header of a signed
// request: only what says the same as the right header is accepted.
func FuzzAuthorization(f *testing.F) {
	right := signedRequest().Header.Get("Authorization")
	f.Add(right)
	f.Add(strings.ReplaceAll(right, ", ", ","))
	f.Add(strings.Replace(right, "host;", "host;host;", 1))
	f.Add(algorithm + " Credential=////, SignedHeaders=;, Signature=")
	f.Add(algorithm + " ,,,=,")
	v, secret := testVerifier(), NewSecret(exampleSecret)
	want, err := v.Parse(signedRequest())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := signedRequest()
		r.Header.Set("Authorization", header)
		a, err := v.Parse(r)
		if err != nil {
			return
		}
		same := a.Scope == want.Scope && a.signature == want.signature && reflect.DeepEqual(a.SignedHeaders, want.SignedHeaders)
		if err := a.Check(r, []byte(testBody), secret); (err == nil) != same {
			t.Errorf("%q: %v", header, err)
		}
		if a.CheckUnknown(r, []byte(testBody)) == nil {
			t.Errorf("%q is accepted for an unknown access key id", header)
		}
	})
}

// FuzzRequest replaces every part of a signed request: it is accepted if, and
// only if, nothing that is signed has changed.
func FuzzRequest(f *testing.F) {
	base := signedRequest("x-two")
	add := func(method, path, query, host, date, contentType, name, value, body string) {
		f.Add(method, path, query, host, date, contentType, name, value, body)
	}
	add("POST", base.URL.Path, "", base.Host, exampleDate, "application/json", "X-Two", "a,b", testBody)
	add("GET", base.URL.Path, "", base.Host, exampleDate, "application/json", "X-Two", "a,b", testBody)
	add("POST", "/%2e%2e/x", "a=1&b", base.Host, exampleDate, " application/json", "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD", "")
	add("POST", base.URL.Path, "", base.Host, "20150830T123601Z", "", "X-Two", "  a, b", testBody)
	v := testVerifier()
	f.Fuzz(func(t *testing.T, method, path, query, host, date, contentType, name, value, body string) {
		target, err := url.ParseRequestURI(path)
		if err != nil {
			return // no server takes it for a path
		}
		target.RawQuery = query
		r := &http.Request{Method: method, URL: target, Host: host, ProtoMajor: 1, ContentLength: int64(len(body)), Header: http.Header{
			"Authorization": base.Header["Authorization"],
			"X-Amz-Date":    {date},
			"Content-Type":  {contentType},
			"X-Two":         {"a", "b"},
		}}
		r.Header.Set(name, value)
		if len(r.Header["Authorization"]) == 1 && r.Header["Authorization"][0] != base.Header["Authorization"][0] {
			return // FuzzAuthorization's part
		}
		same := r.Method == base.Method && target.Path == base.URL.Path && len(target.Query()) == 0 && r.Host == base.Host &&
			r.Header.Get("X-Amz-Date") == exampleDate && body == testBody &&
			fold(r.Header["Content-Type"]) == "application/json" && fold(r.Header["X-Two"]) == "a,b"
		err = verify(v, r, body)
		if err == nil && !same {
			t.Error("a changed request is accepted")
		}
		_, hashed := r.Header["X-Amz-Content-Sha256"]
		if err != nil && same && query == "" && !hashed {
			t.Errorf("an unchanged request is refused: %v", err)
		}
	})
}

// fold is another way to the canonical form of a header's values.
func fold(values []string) string {
	var folded []string
	for _, value := range values {
		value = strings.Trim(value, " \t")
		for strings.Contains(value, "  ") {
			value = strings.ReplaceAll(value, "  ", " ")
		}
		folded = append(folded, value)
	}
	return strings.Join(folded, ",")
}

// FuzzRoundTrip signs any request that has only one canonical form and must
// find its signature right.
func FuzzRoundTrip(f *testing.F) {
	f.Add("/p/kms/xks/v1/health", "", "application/json", testBody)
	f.Add("/a b/ü%2f", "x=1&x=%20+&y", " a   b ", "")
	f.Fuzz(func(t *testing.T, path, query, value, body string) {
		target := &url.URL{Scheme: "https", Host: "xks.example.com", Path: path, RawQuery: query}
		if checkURL(target) != nil {
			return
		}
		r := httptest.NewRequest("POST", "https://xks.example.com/", nil)
		r.URL = target
		r.Header.Set("X-Any", value)
		Sign(r, []byte(body), exampleID, NewSecret(exampleSecret), "eu-west-1", "kms-xks-proxy", exampleTime(), "X-Any")
		if err := verify(testVerifier(), r, body); err != nil {
			t.Error(err)
		}
	})
}
