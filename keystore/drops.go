package keystore

import "sync/atomic"

// drops runs a function once all of several calls that share something have
// ended, such as a buffer of key material that is to be wiped.
type drops struct {
	left atomic.Int32 // calls that may still run, and one until done
	f    func()
}

func newDrops(f func()) *drops {
	d := &drops{f: f}
	d.left.Store(1)
	return d
}

// add returns what is to run at the end of one more call.
func (d *drops) add() func() {
	d.left.Add(1)
	return d.done
}

// done says that no more calls are added, or is the end of one.
func (d *drops) done() {
	if d.left.Add(-1) == 0 {
		d.f()
	}
}
