package verify

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// fault makes a good proxy a bad one.
type fault func(p *testProxy)

// wrapped puts a handler between the listener and the server.
func wrapped(serve func(p *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request)) fault {
	return func(p *testProxy) {
		p.wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(p, next, w, r) })
		}
	}
}

// fails answers with an error instead wherever when holds.
func fails(name xks.ErrorName, when func(r *http.Request, body []byte) bool) fault {
	return wrapped(func(_ *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
		if when(r, readBody(r)) {
			writeError(w, name.Status(), name, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func writeError(w http.ResponseWriter, status int, name xks.ErrorName, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, xks.ErrorResponse{Name: name, Message: message}) // to a peer that may be gone
}

// readBody returns the body and leaves it to be read again.
func readBody(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body) // what is missing makes the signature wrong
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// forgives takes a request for correctly signed wherever when holds.
func forgives(when func(r *http.Request, body []byte) bool) fault {
	return wrapped(func(p *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
		if body := readBody(r); when(r, body) {
			resign(p, r, body)
		}
		next.ServeHTTP(w, r)
	})
}

func resign(p *testProxy, r *http.Request, body []byte) {
	s := newSigning(p.credential, defaultRegion, time.Now())
	s.sign(r, body)
	setBody(r, body)
}

// scope returns the parts of the credential: access key id, day, Region,
// service and terminator; five empty ones if there is none.
func scope(r *http.Request) []string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	credential, _, _ := strings.Cut(rest, ",")
	return append(strings.Split(credential, "/"), "", "", "", "", "")[:5]
}

func signedHeaders(r *http.Request) []string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	return strings.Split(names, ";")
}

func signatureOf(r *http.Request) (string, bool) {
	_, signature, found := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	return signature, found
}

// skew returns how far x-amz-date is from now, and whether it is one.
func skew(r *http.Request) (time.Duration, bool) {
	at, err := time.Parse(amzDateFormat, r.Header.Get("X-Amz-Date"))
	return time.Since(at).Abs(), err == nil
}

// reads changes the JSON body of every request before the server sees it,
// correctly signed if it was.
func reads(change func(r *http.Request, body object)) fault {
	return wrapped(func(p *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
		raw := readBody(r)
		var body object
		if json.Unmarshal(raw, &body) == nil && body != nil && signedBy(p, r, raw) {
			change(r, body)
			changed, err := json.Marshal(body, json.Deterministic(true))
			if err == nil {
				resign(p, r, changed)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// signedBy reports whether a request is signed with the proxy's credential and
// as simply as most are.
func signedBy(p *testProxy, r *http.Request, body []byte) bool {
	off, dated := skew(r)
	if !dated || off > time.Minute {
		return false
	}
	at, _ := time.Parse(amzDateFormat, r.Header.Get("X-Amz-Date")) // it parsed before
	again := r.Clone(r.Context())
	s := newSigning(p.credential, defaultRegion, at)
	s.sign(again, body)
	return again.Header.Get("Authorization") == r.Header.Get("Authorization")
}

// inner returns the requestMetadata of a body, an empty one if it has none.
func inner(body object) map[string]any {
	m, _ := body["requestMetadata"].(map[string]any)
	return m
}

// answers changes every answer before the client sees it.
func answers(change func(r *http.Request, a *httptest.ResponseRecorder)) fault {
	return wrapped(func(_ *testProxy, next http.Handler, w http.ResponseWriter, r *http.Request) {
		sent := readBody(r)
		a := httptest.NewRecorder()
		next.ServeHTTP(a, r)
		r.Body = io.NopCloser(bytes.NewReader(sent))
		change(r, a)
		for name, values := range a.Header() {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(a.Body.Len()))
		w.WriteHeader(a.Code)
		_, _ = w.Write(a.Body.Bytes()) // to a peer that may be gone
	})
}

// succeeds changes the JSON of every success of an operation.
func succeeds(op operation, change func(body object)) fault {
	return succeedsTo(op, func(_, body object) { change(body) })
}

// succeedsTo is succeeds with a look at the request.
func succeedsTo(op operation, change func(request, body object)) fault {
	return answers(func(r *http.Request, a *httptest.ResponseRecorder) {
		if a.Code != http.StatusOK || !strings.HasSuffix(r.URL.Path, "/"+string(op)) {
			return
		}
		var request, body object
		if json.Unmarshal(readBody(r), &request) != nil || json.Unmarshal(a.Body.Bytes(), &body) != nil {
			return
		}
		change(request, body)
		changed, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		a.Body = bytes.NewBuffer(changed)
	})
}

// errorsAre changes every error answer of a name.
func errorsAre(name xks.ErrorName, change func(a *httptest.ResponseRecorder)) fault {
	return answers(func(_ *http.Request, a *httptest.ResponseRecorder) {
		if bytes.Contains(a.Body.Bytes(), []byte(`"`+name+`"`)) {
			change(a)
		}
	})
}

// memory keeps what was encrypted, by its ciphertext.
type memory struct {
	mu     sync.Mutex
	sealed map[string]object // guarded by mu
}

// recalls changes the body of Decrypt knowing what Encrypt had answered.
func recalls(change func(body, sealed object)) fault {
	m := &memory{sealed: map[string]object{}}
	read := reads(func(r *http.Request, body object) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if sealed, ok := m.sealed[text(body["ciphertext"])]; ok && strings.HasSuffix(r.URL.Path, "/decrypt") {
			change(body, sealed)
		}
	})
	return stacked(read, succeeds(encrypt, func(body object) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sealed[text(body["ciphertext"])] = body
	}))
}

// stacked puts one fault before another: it sees requests first and answers last.
func stacked(outer, inner fault) fault {
	return func(p *testProxy) {
		o, i := *p, *p
		outer(&o)
		inner(&i)
		p.wrap = func(next http.Handler) http.Handler { return o.wrap(i.wrap(next)) }
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// garbage is what no proxy of this API sends.
func garbage(a *httptest.ResponseRecorder, status int) {
	a.Code = status
	a.Header().Set("Content-Type", "text/plain")
	a.Body = bytes.NewBufferString("404 page not found\n")
}
