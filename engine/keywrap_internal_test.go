package engine

import (
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/engine/store"
)

// A store with a key wrap that a later version knows is refused.
func TestRestoreUnknownWrap(t *testing.T) {
	for id, refused := range map[string]bool{"KWP": false, "XYZ": true} {
		put, err := restoreWrap(store.Record{Kind: kindWrap, ID: id, Data: []byte(`{"w":"` + id + `"}`)}, newState())
		if refused != (err != nil) || refused && !strings.Contains(err.Error(), id) || !refused && put == nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
