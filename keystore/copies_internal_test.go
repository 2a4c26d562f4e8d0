package keystore

import (
	"testing"
	"time"
)

// What a token refuses to copy is tried ever more rarely, and said once.
func TestBackoff(t *testing.T) {
	var b backoff
	if !b.due(0) || !b.failed(0) {
		t.Error("the first failure")
	}
	now := time.Duration(0)
	for tries := range 200 {
		for !b.due(now) {
			now += copyRound / 3
		}
		if b.failed(now) {
			t.Error("it is no more the first failure")
		}
		if tries > 20 && b.next-now != mostCopyPause {
			t.Errorf("try %d: the next one is after %v", tries, b.next-now)
		}
	}
	if now < 100*mostCopyPause {
		t.Errorf("200 tries in %v", now)
	}
	if b = (backoff{}); !b.due(now) {
		t.Error("after a success it is not due")
	}
}
