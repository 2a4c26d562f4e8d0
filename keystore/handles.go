package keystore

import (
	"sync"

	"github.com/miekg/pkcs11"
)

// handles tells sessions of a module apart that had the same handle one after the
// other: some modules give the handle of a session that is gone to the next one, so that
// closing a session that was lost would close another.
type handles struct {
	mu     sync.Mutex
	issues map[pkcs11.SessionHandle]uint64 // of each handle, which one is in force; guarded by mu
	last   uint64                          // guarded by mu
}

// issue returns the number of a session that was just opened.
func (h *handles) issue(s pkcs11.SessionHandle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issues == nil {
		h.issues = map[pkcs11.SessionHandle]uint64{}
	}
	h.last++
	h.issues[s] = h.last
	return h.last
}

// end reports whether a handle still names the session of this number, which is over
// now.
func (h *handles) end(s pkcs11.SessionHandle, issue uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issues[s] != issue {
		return false
	}
	delete(h.issues, s)
	return true
}
