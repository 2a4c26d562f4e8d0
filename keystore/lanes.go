package keystore

import "context"

// A lane is a goroutine that runs operations with keys one after the other, each
// with the worker of its caller in its hands. SoftHSM2 does more in one thread
// than in several, which spend their time on its locks and on waking each other;
// for it, one lane does what as many threads as there are requests would do.
//
// A lane whose call hangs is replaced by the caller that stops waiting for it,
// and ends when the call returns. So there are never more of them than there are
// sessions.

// job is a call for a lane and the worker to do it with.
type job struct {
	w *worker
	c *call
}

// doInLane is doThen by a lane, if the profile has lanes.
func (t *Token) doInLane(ctx context.Context, run func(*worker) error, drop func()) error {
	w, err := t.acquire(ctx)
	if err != nil {
		drop()
		return err
	}
	return t.await(ctx, w, run, drop, t.lanes)
}

// startLanes starts the lanes of the profile.
func (t *Token) startLanes() {
	if t.profile.Lanes <= 0 {
		return
	}
	t.lanes = make(chan job, t.sessions.limit)
	lanes := t.profile.Lanes
	if t.module.isolated() != nil {
		lanes *= 2 // one call is on its way while another one is in the module
	}
	for range lanes {
		t.start(t.serveLane)
	}
}

func (t *Token) serveLane() {
	for {
		select {
		case j := <-t.lanes:
			if j.w.handle(j.c) {
				return // another lane has taken over
			}
		case <-t.background.Done():
			return // nextIdle does what is left
		}
	}
}

// nextIdle waits for a worker that is free for good, now that the token is
// closed: the jobs that no lane has begun are run here.
func (t *Token) nextIdle() *worker {
	for {
		select {
		case w := <-t.idle:
			return w
		case j := <-t.lanes:
			j.w.handle(j.c)
		}
	}
}
