package xks

import (
	"bytes"
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
