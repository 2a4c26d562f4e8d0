package keystore

import (
	"bytes"
	"testing"
)

// Whichever comes first, the plaintext or the end of its caller's patience, what
// nobody takes is wiped.
func TestOpenedIsWiped(t *testing.T) {
	var late, early, taken opened
	text := [3][]byte{[]byte("late"), []byte("early"), []byte("taken")}
	late.discard()
	late.put(text[0])
	early.put(text[1])
	early.discard()
	taken.put(text[2])
	for i, p := range text[:2] {
		if !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("%d: %q", i, p)
		}
	}
	if got := taken.take(); string(got) != "taken" {
		t.Errorf("taken: %q", got)
	}
}
