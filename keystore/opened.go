package keystore

import "sync"

// opened is a plaintext on its way from a call to its caller. If the caller does
// not wait for it any more, it is wiped as soon as it is there.
type opened struct {
	mu        sync.Mutex
	plaintext []byte // guarded by mu
	unwanted  bool   // guarded by mu
}

// put takes what the call has opened, in the place of what it opened before.
func (o *opened) put(plaintext []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.plaintext)
	if o.plaintext = plaintext; o.unwanted {
		clear(o.plaintext)
	}
}

// take gives the plaintext to the caller.
func (o *opened) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.plaintext
}

// discard says that nobody takes it.
func (o *opened) discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unwanted = true
	clear(o.plaintext)
}
