package xks

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"testing"
	"unsafe"
)

// buffers returns every byte slice of the struct v, to its full capacity.
func buffers(v reflect.Value) (found [][]byte) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			found = append(found, buffers(v.Field(i))...)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Cap() > 0 {
			found = append(found, unsafe.Slice((*byte)(v.UnsafePointer()), v.Cap()))
		}
	}
	return found
}

// A state that waits in the pool holds no plaintext, however its request ended.
func TestPlaintextIsWiped(t *testing.T) {
	const canary = "canary-in-the-plaintext"
	for name, content := range map[string]string{
		"success":  `"Y2FuYXJ5LWluLXRoZS1wbGFpbnRleHQ="`,
		"escaped":  `"Y2FuYXJ5LWluLXRoZS1wbGFpbnRleHQ\u003d"`,
		"raw":      `"` + canary + `"`,
		"no JSON":  `"` + canary,
		"too long": `"` + canary + string(bytes.Repeat([]byte("A"), 30000)) + `"`,
	} {
		keys := newMemKeys("key-1")
		server, err := NewServer(testConfig(keys), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		in := encryptBody().json()
		in = bytes.Replace(in, []byte(`"SGVsbG8gV29ybGQh"`), []byte(content), 1)
		r := newRequest(t, http.MethodPost, "https://localhost"+keyPath+"encrypt", in)
		sign(r, in)
		c := newCall()
		c.begin(server.state.Load(), r)
		w := &discard{header: http.Header{}}
		c.serve(server, w)
		held := buffers(reflect.ValueOf(c).Elem())
		before := contains(held, canary)
		server.finish(c, w)
		if !before {
			t.Errorf("%s: the request never held the plaintext: the test proves nothing", name)
		}
		if contains(held, canary) || contains(buffers(reflect.ValueOf(c).Elem()), canary) {
			t.Errorf("%s: a buffer still holds the plaintext", name)
		}
	}
}

// contains reports whether a buffer holds the text, plain or as Base64.
func contains(buffers [][]byte, text string) bool {
	for _, b := range buffers {
		if bytes.Contains(b, []byte(text)) || bytes.Contains(b, []byte("Y2FuYXJ5LWluLXRoZS1wbGFpbn")) {
			return true
		}
	}
	return false
}

// What a token decrypted is wiped, wherever it was kept.
func TestDecryptedIsWiped(t *testing.T) {
	p := startProxy(t, nil)
	client, key := p.client(t, false), p.keys.keys["key-1"]
	var opened [][]byte
	key.after = func(operation string, _ *Sealed, plaintext *[]byte) {
		if operation == "decrypt" {
			opened = append(opened, *plaintext)
		}
	}
	var sealed EncryptResponse
	p.post(t, client, keyPath+"encrypt", withCDIV().json()).decodeInto(t, &sealed)
	p.post(t, client, keyPath+"decrypt", decryptBody(sealed, exampleAAD).json()).decodeInto(t, new(DecryptResponse))
	<-p.seen
	<-p.seen
	if len(opened) != 2 {
		t.Fatalf("%d decryptions, want 2", len(opened))
	}
	for _, plaintext := range opened {
		if !bytes.Equal(plaintext, make([]byte, len("Hello World!"))) {
			t.Errorf("still there: %q", plaintext)
		}
	}
}

// stalled is a request body that comes when it is told to.
type stalled struct {
	io.Reader
	asked chan<- struct{}
	come  <-chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.asked != nil {
		close(s.asked)
		s.asked = nil
		<-s.come
	}
	return s.Reader.Read(p)
}

func (*stalled) Close() error { return nil }

// A request whose body comes when all places are taken is refused.
func TestInFlightBoundAfterBody(t *testing.T) {
	config := testConfig(newMemKeys("key-1"))
	config.MaxInFlight = 1
	server, err := NewServer(config, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	in := encryptBody().json()
	r := newRequest(t, http.MethodPost, "https://localhost"+keyPath+"encrypt", in)
	sign(r, in)
	asked, come, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.Body = &stalled{bytes.NewReader(in), asked, come}
	w := &discard{header: http.Header{}}
	go func() { defer close(done); server.ServeHTTP(w, r) }()
	<-asked
	other := newCall()
	other.begin(server.state.Load(), r)
	if err := server.enter(other); err != nil {
		t.Errorf("the one place is held by a request that waits for its body: %v", err)
	}
	close(come)
	<-done
	if w.status != http.StatusTooManyRequests {
		t.Errorf("%d %s", w.status, w.body.Bytes())
	}
	if server.InFlight() != 1 {
		t.Errorf("%d in flight, want 1", server.InFlight())
	}
}
