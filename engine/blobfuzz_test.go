package engine

import (
	"bytes"
	"testing"
)

// Whatever comes as a ciphertext blob is read within its bounds, and what is read
// of it is all there is.
func FuzzBlob(f *testing.F) {
	head := appendHead(nil, formatDouble, "01234567-89ab-cdef-0123-456789abcdef", string(bytes.Repeat([]byte("ab"), 32)))
	outer := outerLayer{iv: make([]byte, 12), metadata: []byte("meta"), text: []byte("text"), tag: make([]byte, gcmTagSize)}
	f.Add(outer.appendTo(head))
	f.Add(head)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseBlob(b)
		if !ok {
			return
		}
		if again := append(appendHead(nil, p.format, p.keyID, p.material), p.body...); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
		if o, ok := parseOuter(p.body); ok && !bytes.Equal(o.appendTo(nil), p.body) {
			t.Errorf("outer layer %x is read as %x", p.body, o.appendTo(nil))
		}
		if s, ok := parseSealed(p.body); ok && !bytes.Equal(appendSealed(nil, s), p.body) {
			t.Errorf("inner layer %x is read as %x", p.body, appendSealed(nil, s))
		}
	})
}
