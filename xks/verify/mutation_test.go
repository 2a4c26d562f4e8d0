package verify

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// TestBrokenProxiesAreFound breaks a good proxy in one way at a time: exactly
// the checks about that must fail or, if they are SHOULDs, warn. A name stands
// for all checks below it, except those after "but".
func TestBrokenProxiesAreFound(t *testing.T) {
	groups := map[string]map[string]mutation{
		"auth": authMutations(), "answers": answerMutations(), "health": healthMutations(), "metadata": metadataMutations(),
		"encrypt": encryptMutations(), "decrypt": decryptMutations(), "request": requestMutations(), "keys": keyMutations(),
	}
	checks := untimed(t)
	for group, mutations := range groups {
		for name, m := range mutations {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				p := newTestProxy(t)
				m.fault(p)
				_, found := outcome(t, p.start(t), checks)
				compare(t, expand(t, checks, m.want), found)
			})
		}
	}
}

type mutation struct {
	fault fault
	want  string
}

// expand returns the ids that a list of names, in one string, stands for.
func expand(t *testing.T, checks []Check, names string) []string {
	t.Helper()
	if names == "" {
		return nil
	}
	only, but, _ := strings.Cut(names, " but ")
	selected, err := Select(checks, strings.Fields(only), strings.Fields(but))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range selected {
		ids = append(ids, c.ID)
	}
	return ids
}

func compare(t *testing.T, want []string, found map[string]Result) {
	t.Helper()
	for _, id := range want {
		if r, ok := found[id]; !ok || r.Status == NotChecked {
			t.Errorf("%s did not find the fault: %q", id, r.Detail)
		}
	}
	for id, r := range found {
		if r.Status != NotChecked && !slices.Contains(want, id) {
			t.Errorf("%s blames a proxy without that fault: %s: %s", id, r.Status, r.Detail)
		}
		if r.Status == Warn && r.Level == Must || r.Status == Fail && r.Level != Must {
			t.Errorf("%s: a %s ended as %s: %s", id, r.Level, r.Status, r.Detail)
		}
	}
}

func authMutations() map[string]mutation {
	const accepted = " but auth.four-minutes-old auth.four-minutes-ahead auth.content-type-signed auth.header-signed"
	authorized := func(r *http.Request) bool { return r.Header.Get("Authorization") != "" }
	return map[string]mutation{
		"none at all": {forgives(func(*http.Request, []byte) bool { return true }), "auth" + accepted + " auth.query-added auth.unsigned-payload"},
		"refuses with 403": {errorsAre(xks.AuthenticationFailedException, func(a *httptest.ResponseRecorder) { a.Code = 403 }),
			"auth answers.errors" + accepted},
		"refuses with AccessDeniedException": {answers(func(r *http.Request, a *httptest.ResponseRecorder) {
			if a.Code == 401 {
				a.Code, a.Body = 403, bytes.NewBufferString(`{"errorName":"AccessDeniedException"}`)
			}
		}), "auth" + accepted},
		"unsigned":          {forgives(func(r *http.Request, _ []byte) bool { return !authorized(r) }), "auth.missing"},
		"any access key id": {forgives(func(r *http.Request, _ []byte) bool { return strings.HasPrefix(scope(r)[0], "INVALID") }), "auth.access-key-id"},
		"any service":       {forgives(func(r *http.Request, _ []byte) bool { return scope(r)[3] == "kms" }), "auth.service"},
		"any terminator":    {forgives(func(r *http.Request, _ []byte) bool { return scope(r)[4] == "aws4_reques" }), "auth.terminator"},
		"any Region":        {forgives(func(r *http.Request, _ []byte) bool { return scope(r)[2] == "xx-verify-1" }), "auth.scope-region"},
		"any algorithm": {forgives(func(r *http.Request, _ []byte) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA512")
		}), "auth.algorithm"},
		"bearer token": {forgives(func(r *http.Request, _ []byte) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "Bearer")
		}), "auth.scheme"},
		"algorithm alone":     {forgives(func(r *http.Request, _ []byte) bool { return r.Header.Get("Authorization") == algorithm }), "auth.malformed"},
		"no scope date check": {forgives(wrongScopeDay), "auth.scope-date"},
		"no clock check": {forgives(func(r *http.Request, _ []byte) bool { off, ok := skew(r); return ok && off > 5*time.Minute }),
			"auth.six-minutes-old auth.six-minutes-ahead auth.day-old auth.day-ahead"},
		"only the day counts": {forgives(func(r *http.Request, _ []byte) bool {
			off, ok := skew(r)
			return ok && off > 5*time.Minute && off < time.Hour
		}),
			"auth.six-minutes-old auth.six-minutes-ahead"},
		"strict clock": {fails(xks.AuthenticationFailedException, func(r *http.Request, _ []byte) bool { off, ok := skew(r); return ok && off > 3*time.Minute }),
			"auth.four-minutes-old auth.four-minutes-ahead"},
		"no date":         {forgives(func(r *http.Request, _ []byte) bool { return authorized(r) && r.Header.Get("X-Amz-Date") == "" }), "auth.no-date"},
		"any date format": {forgives(func(r *http.Request, _ []byte) bool { return strings.Contains(r.Header.Get("X-Amz-Date"), ":") }), "auth.malformed-date"},
		"host unsigned":   {forgives(func(r *http.Request, _ []byte) bool { return slices.Equal(signedHeaders(r), []string{"x-amz-date"}) }), "auth.host-not-signed"},
		"date unsigned": {forgives(func(r *http.Request, _ []byte) bool {
			return slices.Equal(signedHeaders(r), []string{"host"}) && r.Header.Get("X-Amz-Date") != ""
		}), "auth.date-not-signed"},
		"two signed headers only": {fails(xks.AuthenticationFailedException, func(r *http.Request, _ []byte) bool { return len(signedHeaders(r)) > 2 }),
			"auth.content-type-signed auth.header-signed"},
		"further headers unchecked": {forgives(func(r *http.Request, _ []byte) bool {
			return slices.Contains(signedHeaders(r), "x-hyok-verify") && r.Header.Get("X-Hyok-Verify") != "yes"
		}), "auth.signed-header-altered auth.signed-header-missing"},
		"unsigned payload": {forgives(func(r *http.Request, _ []byte) bool {
			unsigned := r.Header.Get("X-Amz-Content-Sha256") != ""
			r.Header.Del("X-Amz-Content-Sha256")
			return unsigned
		}), "auth.unsigned-payload"},
		"signature by prefix": {forgives(func(r *http.Request, _ []byte) bool { s, found := signatureOf(r); return found && len(s) < 64 }),
			"auth.empty-signature auth.truncated-signature"},
		"optional parts": {forgives(func(r *http.Request, _ []byte) bool {
			h := r.Header.Get("Authorization")
			return strings.HasPrefix(h, algorithm+" ") && strings.Count(h, "=") < 3
		}), "auth.no-credential auth.no-signed-headers auth.no-signature"},
		"body unsigned": {forgives(func(_ *http.Request, body []byte) bool { return bytes.Contains(body, []byte(`"plaintext":"AAAA"`)) }), "auth.body-altered"},
		"body trimmed":  {forgives(func(_ *http.Request, body []byte) bool { return bytes.HasSuffix(body, []byte(" ")) }), "auth.body-extended"},
		"keys before":   {forgives(func(r *http.Request, _ []byte) bool { return strings.Contains(r.URL.Path, unknownKey) }), "auth.before-key"},
		"body before":   {forgives(func(_ *http.Request, body []byte) bool { return string(body) == "verify" }), "auth.before-body"},
		"query not looked at": {wrapped(func(_ *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.URL.RawQuery = ""
			next.ServeHTTP(w, r)
		}), "auth.query-added"},
	}
}

func wrongScopeDay(r *http.Request, _ []byte) bool {
	_, dated := skew(r)
	return dated && scope(r)[1] != "" && scope(r)[1] != r.Header.Get("X-Amz-Date")[:8]
}

func answerMutations() map[string]mutation {
	message := func(text string) fault {
		return answers(func(_ *http.Request, a *httptest.ResponseRecorder) {
			if a.Code >= 400 && a.Code != 405 {
				name := answer{body: a.Body.Bytes()}.errorName()
				a.Body = bytes.NewBufferString(`{"errorName":"` + string(name) + `","errorMessage":` + text + `}`)
			}
		})
	}
	const pathChecks = "uri.prefix uri.operation uri.resource uri.root uri.version uri.no-key uri.trailing-slash uri.case"
	return map[string]mutation{
		"text/plain": {answers(func(_ *http.Request, a *httptest.ResponseRecorder) { a.Header().Set("Content-Type", "text/plain") }), "answers.content-type"},
		"text/plain for errors": {answers(func(_ *http.Request, a *httptest.ResponseRecorder) {
			if a.Code != http.StatusOK {
				a.Header().Set("Content-Type", "text/plain")
			}
		}), "answers.content-type"},
		"charset is fine": {answers(func(_ *http.Request, a *httptest.ResponseRecorder) {
			a.Header().Set("Content-Type", "application/json; charset=utf-8")
		}), ""},
		"long message":         {message(strconv.Quote(strings.Repeat("m", 512))), "answers.error-message"},
		"longest message":      {message(strconv.Quote(strings.Repeat("m", 511))), ""},
		"message not ASCII":    {message(`"naïve"`), "answers.error-message"},
		"message with newline": {message(`"a\nb"`), "answers.error-message"},
		"message is a number":  {message("1"), "answers.error-message"},
		"GET is unknown": {answers(func(r *http.Request, a *httptest.ResponseRecorder) {
			if r.Method == http.MethodGet {
				garbage(a, 404)
			}
		}), "uri.get"},
		"404 of a web server": {errorsAre(xks.InvalidURIPathException, func(a *httptest.ResponseRecorder) { garbage(a, 404) }),
			pathChecks + " answers.content-type answers.errors"},
		"redirects to the path without slash": {wrapped(func(_ *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
			if clean, slash := strings.CutSuffix(r.URL.Path, "/"); slash {
				w.Header().Set("Content-Type", "application/json")
				http.Redirect(w, r, clean, http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(w, r)
		}), "uri.trailing-slash answers.no-redirect"},
		"unknown error name": {errorsAre(xks.KeyNotFoundException, func(a *httptest.ResponseRecorder) {
			a.Body = bytes.NewBufferString(`{"errorName":"NoSuchKeyException"}`)
		}), keyIDNames("unknown-key illegal-key-id long-key-id longest-key-id") + " answers.errors"},
		"no keep-alive": {answers(func(_ *http.Request, a *httptest.ResponseRecorder) { a.Header().Set("Connection", "close") }), "transport.keep-alive"},
		"broken HTTP/2": {fails(xks.InternalException, func(r *http.Request, _ []byte) bool { return r.ProtoMajor == 2 }), "transport.http-2"},
	}
}

// keyIDNames prefixes each name with each operation that has a key.
func keyIDNames(names string) string {
	var all []string
	for _, name := range strings.Fields(names) {
		all = append(all, "metadata."+name, "encrypt."+name, "decrypt."+name)
	}
	return strings.Join(all, " ")
}

func healthMutations() map[string]mutation {
	with := func(name string, value any) fault {
		return succeeds(health, func(body object) { body[name] = value })
	}
	entry := object{"id": "a", "model": "m", "healthStatus": "ACTIVE"}
	many := func(n int) []object {
		var all []object
		for i := range n {
			all = append(all, object{"id": strconv.Itoa(i), "model": "m", "healthStatus": "ACTIVE"})
		}
		return all
	}
	const entries = "health.ekm-entries health.ekm-status health.ekm-unique health.ekm-usable"
	return map[string]mutation{
		"fleet size zero":       {with("xksProxyFleetSize", 0), "health.fleet-size"},
		"fleet size string":     {with("xksProxyFleetSize", "2"), "health.fleet-size"},
		"fleet size fraction":   {with("xksProxyFleetSize", 1.5), "health.fleet-size"},
		"fleet size null":       {with("xksProxyFleetSize", nil), "health.fleet-size"},
		"no vendor":             {succeeds(health, func(body object) { delete(body, "xksProxyVendor") }), "health.vendor"},
		"no key manager vendor": {succeeds(health, func(body object) { delete(body, "ekmVendor") }), "health.vendor"},
		"empty model":           {with("xksProxyModel", ""), "health.vendor"},
		"eleven entries":        {with("ekmFleetDetails", many(11)), "health.ekm-count"},
		"ten entries":           {with("ekmFleetDetails", many(10)), ""},
		"no entries":            {with("ekmFleetDetails", many(0)), "health.ekm-count health.ekm-usable"},
		"not an array":          {with("ekmFleetDetails", entry), "health.ekm-count " + entries},
		"same id twice":         {with("ekmFleetDetails", []object{entry, entry}), "health.ekm-unique"},
		"no model":              {with("ekmFleetDetails", []object{{"id": "a", "healthStatus": "ACTIVE"}}), "health.ekm-entries"},
		"unknown status":        {with("ekmFleetDetails", []object{{"id": "a", "model": "m", "healthStatus": "OK"}}), "health.ekm-status"},
		"nobody can serve":      {with("ekmFleetDetails", []object{{"id": "a", "model": "m", "healthStatus": "UNAVAILABLE"}}), "health.ekm-usable"},
		"own operations only": {fails(xks.ValidationException, func(_ *http.Request, body []byte) bool {
			return bytes.Contains(body, []byte("UpdateCustomKeyStore"))
		}), "health.for.UpdateCustomKeyStore"},
	}
}

func metadataMutations() map[string]mutation {
	// Only the key given to the checks: the restricted ones have their own.
	with := func(name string, value any) fault {
		return answers(func(r *http.Request, a *httptest.ResponseRecorder) {
			if a.Code != http.StatusOK || !strings.HasSuffix(r.URL.Path, "/keys/key/metadata") {
				return
			}
			m, err := answer{body: a.Body.Bytes()}.members()
			if err != nil {
				panic(err)
			}
			m[name] = value.([]byte)
			a.Body = bytes.NewBufferString(`{"keySpec":` + string(m["keySpec"]) + `,"keyUsage":` + string(m["keyUsage"]) + `,"keyStatus":` + string(m["keyStatus"]) + `}`)
		})
	}
	usage := func(extra int) []byte {
		return []byte(`["ENCRYPT","DECRYPT"` + strings.Repeat(`,"SIGN"`, extra) + `]`)
	}
	return map[string]mutation{
		"usage null":           {with("keyUsage", []byte("null")), "metadata.key-usage metadata.key-usage-count"},
		"usage string":         {with("keyUsage", []byte(`"ENCRYPT,DECRYPT"`)), "metadata.key-usage metadata.key-usage-count"},
		"usage lower case":     {with("keyUsage", []byte(`["encrypt","decrypt"]`)), "metadata.key-usage"},
		"usage lacks one":      {with("keyUsage", []byte(`["ENCRYPT"]`)), "metadata.key-usage"},
		"eleven usages":        {with("keyUsage", usage(9)), "metadata.key-usage-count"},
		"ten usages":           {with("keyUsage", usage(8)), ""},
		"another spec":         {with("keySpec", []byte(`"AES_128"`)), "metadata.key-spec"},
		"status not in table":  {with("keyStatus", []byte(`"Enabled"`)), "metadata.key-status"},
		"status is no string":  {with("keyStatus", []byte(`true`)), "metadata.key-status"},
		"null for a whole key": {with("keySpec", []byte(`null`)), "metadata.key-spec"},
	}
}

func decoded(v any) []byte {
	b, err := base64.StdEncoding.DecodeString(text(v))
	if err != nil {
		panic(err)
	}
	return b
}

func decodedOrNil(v any) []byte {
	b, err := base64.StdEncoding.DecodeString(text(v))
	if err != nil {
		return nil
	}
	return b
}
