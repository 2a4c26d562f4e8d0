package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes: several times the
// largest that the specification allows for.
const maxAnswer = 64 << 10

// worker sends requests over a connection of its own, one at a time. It belongs
// to one goroutine, but for its pacer and the counters of its record.
type worker struct {
	load      *Load
	workload  *workload
	schedule  *schedule
	transport *http.Transport
	pacer     *pacer
	record    *record
	answer    bytes.Buffer
	dropped   []slot // taken and not sent
}

func newWorker(l *Load, w *workload) (*worker, error) {
	p, err := newPacer()
	if err != nil {
		return nil, err
	}
	t := l.Transport.Clone()
	t.MaxConnsPerHost = 1
	if c := t.TLSClientConfig; c != nil {
		// A clone shares this list, and net/http writes to it for HTTP/2.
		c.NextProtos = slices.Clone(c.NextProtos)
	}
	return &worker{load: l, workload: w, transport: t, pacer: p}, nil
}

func (w *worker) close() {
	w.transport.CloseIdleConnections()
	w.pacer.close()
}

// run sends what the schedule deals out, until it deals out no more.
func (w *worker) run() {
	for {
		p, ok := w.schedule.take()
		if !ok {
			return
		}
		wait := p.due - w.schedule.now()
		if !w.pacer.wait(wait) || w.schedule.stopped(w.schedule.now()) {
			w.dropped = append(w.dropped, p)
			return
		}
		s := w.send(p)
		s.early = wait > 0
		if p.counted {
			w.record.add(s, func() string { return w.workload.requestID(p.number) })
		}
	}
}

// send sends one request and waits for its end.
func (w *worker) send(p slot) sample {
	c := w.workload.pick(p.number)
	s := sample{slot: p, sent: w.schedule.now()}
	// A run that is stopped lets the requests under way come to their end: so
	// each one counts, and the timeout bounds the wait.
	status, f, example := w.call(context.Background(), c, p.number, &s.sent)
	s.done = w.schedule.now()
	if w.load.Rate == 0 {
		s.due = s.sent // signing is not the proxy's time
	}
	if f == "" {
		f, example = w.judge(c, status)
	}
	s.failure, s.example = f, example
	return s
}

// call makes one request and reads the answer into w.answer. It sets sent, if
// given, to the time at which the signed request goes to the transport.
func (w *worker) call(ctx context.Context, c *call, number int64, sent *time.Duration) (int, failure, string) {
	ctx, cancel := context.WithTimeout(ctx, w.load.Timeout)
	defer cancel()
	r, err := w.load.NewRequest(ctx, c.path, w.workload.bodyFor(c, number))
	if err != nil {
		return 0, notMade, printable(err.Error())
	}
	if sent != nil {
		*sent = w.schedule.now()
	}
	resp, err := w.transport.RoundTrip(r)
	if err == nil {
		err = w.read(resp.Body)
	}
	if err != nil {
		f, example := transportFailure(err)
		return 0, f, example
	}
	return resp.StatusCode, "", ""
}

func (w *worker) read(body io.ReadCloser) error {
	defer func() { _ = body.Close() }() // all that matters has been read
	w.answer.Reset()
	_, err := w.answer.ReadFrom(io.LimitReader(body, maxAnswer))
	return err
}

func (w *worker) judge(c *call, status int) (failure, string) {
	if status != http.StatusOK {
		return errorAnswer(status, w.answer.Bytes())
	}
	return w.workload.check(c, w.answer.Bytes())
}

// must makes a call without which there is no point in a load.
func (w *worker) must(ctx context.Context, c *call) error {
	status, f, example := w.call(ctx, c, 0, nil)
	if f == "" {
		f, example = w.judge(c, status)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f != "" && example != "":
		return fmt.Errorf("POST %s: %s: %s", c.path, f, example)
	case f != "":
		return errors.New("POST " + c.path + ": " + string(f))
	}
	return nil
}
