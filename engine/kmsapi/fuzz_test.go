package kmsapi

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/go-json-experiment/json/jsontext"
)

// FuzzInput holds the decoder against the encoder: what one reads, the other
// writes so that it is read the same.
func FuzzInput(f *testing.F) {
	table := operations()
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	slices.Sort(names)
	f.Add(uint8(slices.Index(names, "Encrypt")), []byte(encryptBody))
	f.Add(uint8(slices.Index(names, "ImportKeyMaterial")), []byte(`{"ValidTo":1.7E9,"KeyId":null,"X":[{}]}`))
	f.Add(uint8(slices.Index(names, "CreateKey")), []byte(`{"Tags":[{"TagKey":"a","TagValue":"\u00e9"}],"MultiRegion":true}`))
	f.Add(uint8(slices.Index(names, "CreateGrant")), []byte(`{"Constraints":{"EncryptionContextSubset":{"a":"b"}},"Operations":["Decrypt"]}`))
	f.Add(uint8(0), []byte(`[`))
	plans := encodePlanner{}
	var r reader
	f.Fuzz(func(t *testing.T, operation uint8, body []byte) {
		o := table[names[int(operation)%len(names)]]
		in := o.newInput()
		if err := r.decode(body, reflect.ValueOf(in).Elem(), o.decode); err != nil {
			if _, ok := err.(serializationError); !ok {
				t.Fatalf("%T is no serializationError", err)
			}
			if err == errSyntax && jsontext.Value(body).IsValid() && jsontext.Value(body).Kind() == '{' {
				t.Fatalf("%s is JSON", body)
			}
			return
		}
		if len(body) > 0 && !jsontext.Value(body).IsValid() {
			t.Fatalf("%q is no JSON", body)
		}
		var e encoder
		plans.plan(o.in)(&e, reflect.ValueOf(in).Elem())
		again := o.newInput()
		if err := r.decode(e.buf, reflect.ValueOf(again).Elem(), o.decode); err != nil {
			t.Fatalf("%s became %s: %v", body, e.buf, err)
		}
		if !reflect.DeepEqual(in, again) {
			t.Errorf("%s became %s", body, e.buf)
		}
	})
}

// FuzzTime: every number is a time to the millisecond or refused.
func FuzzTime(f *testing.F) {
	f.Add("1700000000.123")
	f.Add("1.7E9")
	f.Add("-0")
	var r reader
	decode := decodePlanner{}.plan(reflect.TypeFor[kms.ImportKeyMaterialInput]())
	f.Fuzz(func(t *testing.T, number string) {
		var in kms.ImportKeyMaterialInput
		body := []byte(`{"ValidTo":` + number + `}`)
		if r.decode(body, reflect.ValueOf(&in).Elem(), decode) != nil || in.ValidTo == nil {
			return
		}
		if seconds := in.ValidTo.Unix(); math.Abs(float64(seconds)) > maxEpoch || in.ValidTo.Nanosecond()%int(time.Millisecond) != 0 {
			t.Errorf("%s became %v", number, in.ValidTo)
		}
	})
}

// FuzzHeaders: whatever the headers, the answer is an error of the protocol,
// and nothing but the operation that was named is called.
func FuzzHeaders(f *testing.F) {
	signed := newRequest(f, "Encrypt", []byte(`{}`))
	sign(signed, []byte(`{}`), alice())
	f.Add("TrentService.Encrypt", jsonType, signed.Header.Get("Authorization"), signed.Header.Get("X-Amz-Date"), "/")
	f.Add("", formType, "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", "20200101T000000Z", "/?Action=GetCallerIdentity")
	f.Add("TrentService.", "text/plain", "", "", "/x")
	h := newTestHandler(f, testConfig(func(_ context.Context, in any) (any, error) {
		panic("nobody signed this")
	}))
	f.Fuzz(func(t *testing.T, target, contentType, authorization, date, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodPost, "https://kms.example.com/", strings.NewReader(`{ }`))
		r.URL.Path, r.URL.RawQuery = u.Path, u.RawQuery
		r.Header = http.Header{"X-Amz-Target": {target}, "Content-Type": {contentType}, "Authorization": {authorization}, "X-Amz-Date": {date}}
		if target == "" {
			r.Header.Del("X-Amz-Target")
		}
		w := serve(t, h, r)
		if w.status < 400 || w.status >= 500 {
			t.Errorf("%d %s", w.status, w.body.String())
		}
	})
}
