package proxy

import "testing"

func TestDefaultConnections(t *testing.T) {
	for _, test := range []struct {
		files     uint64
		listeners int
		want      int
	}{{20_000, 2, mostConnections}, {20_000, 4, 2500}, {1024, 2, 256}, {64, 4, fewestConnections}, {1 << 62, 1, mostConnections}} {
		if got := defaultConnections(test.files, test.listeners); got != test.want {
			t.Errorf("%d files, %d listeners: %d connections, want %d", test.files, test.listeners, got, test.want)
		}
	}
}
