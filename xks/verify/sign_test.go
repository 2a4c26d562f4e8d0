package verify

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/sigv4"
	"github.com/hyok-kms/hyok/xks"
)

// The package signs by itself: what it takes for a correct signature must be
// what the rest of hyok does.
func TestSigningAgreesWithSigV4(t *testing.T) {
	credential := xks.NewCredential()
	when := time.Date(2026, 5, 15, 12, 30, 45, 0, time.UTC)
	const body = `{"requestMetadata":{}}`
	request := func() *http.Request {
		r, err := http.NewRequest(http.MethodPost, "https://proxy.example.com/a/b_c"+encrypt.resource("key-1.2_3"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	want, got := request(), request()
	sigv4.Sign(want, []byte(body), credential.AccessKeyID, sigv4.NewSecret(credential.SecretAccessKey), "eu-west-1", xks.Service, when)
	s := newSigning(credential, "eu-west-1", when)
	s.addHeader("content-type")
	s.sign(got, []byte(body))
	for _, name := range []string{"Authorization", "X-Amz-Date"} {
		if got.Header.Get(name) != want.Header.Get(name) {
			t.Errorf("%s\n got %s\nwant %s", name, got.Header.Get(name), want.Header.Get(name))
		}
	}
}

func TestSelect(t *testing.T) {
	checks := []Check{{ID: "a.b"}, {ID: "a.bc"}, {ID: "a.b.c"}, {ID: "d"}}
	for _, test := range []struct {
		only, skip, want []string
	}{
		{nil, nil, []string{"a.b", "a.bc", "a.b.c", "d"}},
		{[]string{"a.b"}, nil, []string{"a.b", "a.b.c"}},
		{[]string{"a"}, []string{"a.b"}, []string{"a.bc"}},
		{nil, []string{"a"}, []string{"d"}},
		{[]string{"d", "a.bc"}, nil, []string{"a.bc", "d"}},
	} {
		selected, err := Select(checks, test.only, test.skip)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range selected {
			got = append(got, c.ID)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("only %v skip %v: got %v, want %v", test.only, test.skip, got, test.want)
		}
	}
	for _, unknown := range []string{"", "a.", "e", "a.b.c.d"} {
		if _, err := Select(checks, []string{unknown}, nil); err == nil {
			t.Errorf("only %q: no error", unknown)
		}
	}
}

func TestChecksAreWellDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Checks() {
		if seen[c.ID] {
			t.Errorf("two checks are called %s", c.ID)
		}
		seen[c.ID] = true
		if c.ID == "" || c.Section == "" || c.Title == "" || c.run == nil || c.Level != Must && c.Level != Should {
			t.Errorf("incomplete check %+v", c)
		}
	}
}
