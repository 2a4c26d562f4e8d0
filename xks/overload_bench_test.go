package xks

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// BenchmarkRefusal measures what a request costs that is refused because all
// places are taken, with its log line. Compare with BenchmarkEncrypt.
func BenchmarkRefusal(b *testing.B) {
	server := benchServer(b, newMemKeys("key-1"), io.Discard)
	server.inFlight.Store(int64(server.state.Load().MaxInFlight))
	content := encryptBody().json()
	r, err := http.NewRequest(http.MethodPost, "https://localhost"+keyPath+"encrypt", nil)
	if err != nil {
		b.Fatal(err)
	}
	signAt(r, content, testCredential, "us-east-1", time.Now())
	in := &rewound{}
	r.Body, r.ContentLength = in, int64(len(content))
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(content)
		w.body.Reset()
		server.ServeHTTP(w, r)
	}
	if w.status != http.StatusTooManyRequests || !bytes.Contains(w.body.Bytes(), []byte(ThrottlingException)) {
		b.Errorf("%d %s", w.status, w.body.Bytes())
	}
}

// BenchmarkIdleConnection reports the memory that the server keeps for each idle
// connection, its goroutine included. The client's end is in this process too and
// has given up its own half of TLS, so that it counts with a few hundred bytes.
func BenchmarkIdleConnection(b *testing.B) {
	for _, kind := range []struct {
		name      string
		secure    bool
		protocols []string
	}{{"plain", false, nil}, {"TLS", true, nil}, {"HTTP2", true, []string{"h2"}}} {
		b.Run(kind.name, func(b *testing.B) {
			d := openDoor(b, kind.secure, func(o *ListenerOptions) { o.Connections = 1 << 20 })
			d.open.patience = time.Hour
			const count = 1000
			for b.Loop() {
				before := memory()
				for range count {
					d.idle(b, kind.protocols)
				}
				b.ReportMetric(float64(memory()-before)/count, "bytes/connection")
			}
			if s := d.Connections(); s.Open < count {
				b.Errorf("%+v", s)
			}
		})
	}
}

// idle opens a connection that is idle after its first request, or its settings.
func (d *door) idle(b *testing.B, protocols []string) {
	switch {
	case d.tls.Load() == nil:
		if err := ask(d.dialRaw(b)); err != nil {
			b.Fatal(err)
		}
	case protocols == nil:
		d.dialIdle(b)
	default:
		conn := d.dialHTTP2(b)
		if _, _, _, err := readFrame(conn); err != nil {
			b.Fatal(err)
		}
	}
}

// memory returns the bytes of heap and stacks that are in use.
func memory() int64 {
	runtime.GC()
	runtime.GC() // what the first one has finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
