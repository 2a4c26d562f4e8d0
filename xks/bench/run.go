package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// progressEvery is how often a run tells how far it is.
const progressEvery = 100 * time.Millisecond

// Run sends a load and reports what came of it. It calls progress, which may be
// nil, from its own goroutine about ten times a second.
//
// When ctx ends, Run sends nothing more, waits for the requests under way (at
// most Load.Timeout) and reports what there is, with Interrupted set. It
// returns an error only if the load makes no sense, the first requests fail,
// or ctx ends before the measurement.
func Run(ctx context.Context, l Load, progress func(Progress)) (*Report, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	w := newWorkload(&l)
	workers, err := newWorkers(&l, w)
	if err != nil {
		return nil, err
	}
	defer closeWorkers(workers)
	p := preparation{load: &l, workload: w}
	if err := p.run(ctx, workers, progress); err != nil {
		return nil, err
	}
	r := run{load: &l, workers: workers, progress: progress}
	return r.measure(ctx)
}

func newWorkers(l *Load, w *workload) ([]*worker, error) {
	workers := make([]*worker, 0, l.Connections)
	for range l.Connections {
		worker, err := newWorker(l, w)
		if err != nil {
			closeWorkers(workers)
			return nil, fmt.Errorf("connection %d of %d: %w", len(workers)+1, l.Connections, err)
		}
		workers = append(workers, worker)
	}
	return workers, nil
}

func closeWorkers(workers []*worker) {
	for _, w := range workers {
		w.close()
	}
}

// watch calls tick until the group is done, and once after that.
func watch(wg *sync.WaitGroup, tick func()) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			tick()
		case <-done:
			tick()
			return
		}
	}
}

// run is a measurement under way. It belongs to the goroutine of Run.
type run struct {
	load     *Load
	workers  []*worker
	progress func(Progress)
	schedule *schedule
}

func (r *run) measure(ctx context.Context) (*Report, error) {
	startedAt, cpu := time.Now(), processCPU()
	r.schedule = newSchedule(r.load, startedAt)
	var wg sync.WaitGroup
	for _, w := range r.workers {
		w.schedule, w.record = r.schedule, newRecord(r.load.Warmup)
	}
	release := context.AfterFunc(ctx, r.stop)
	for _, w := range r.workers {
		wg.Go(w.run)
	}
	watch(&wg, func() { r.progress(r.now()) })
	interrupted := !release()
	cores := (processCPU() - cpu).Seconds() / max(r.schedule.now().Seconds(), 1e-9)

	total := r.collect()
	if interrupted && total.done.Load() == 0 {
		return nil, errors.Join(errors.New("stopped before the measurement"), ctx.Err())
	}
	report := newReport(r.load, r.schedule, total)
	report.StartedAt = startedAt.Add(r.load.Warmup).UTC()
	report.Interrupted = interrupted
	report.ClientCPUCores = cores
	report.addNotes()
	return report, nil
}

// stop is called from another goroutine when the context ends.
func (r *run) stop() {
	r.schedule.stop()
	for _, w := range r.workers {
		w.pacer.interrupt()
	}
}

// collect merges what the workers measured and adds what none of them sent.
func (r *run) collect() *record {
	total := newRecord(r.load.Warmup)
	var dropped []slot
	for _, w := range r.workers {
		total.merge(w.record)
		dropped = append(dropped, w.dropped...)
	}
	end := r.schedule.lastSend()
	for _, p := range r.schedule.unsent(dropped) {
		total.add(sample{
			slot: p, done: end, failure: notSent,
			example: "all connections were busy until the request was given up",
		}, nil)
	}
	return total
}

// now returns the progress at this moment.
func (r *run) now() Progress {
	at := r.schedule.now()
	p := Progress{Phase: Measuring, Due: r.schedule.counted(at)}
	for _, w := range r.workers {
		p.Failed += w.record.failed.Load()
		p.Done += w.record.done.Load()
	}
	switch l := r.load; {
	case at < l.Warmup:
		p.Phase, p.Fraction = WarmingUp, at.Seconds()/l.Warmup.Seconds()
	case l.Requests > 0:
		p.Fraction = float64(p.Done) / float64(l.Requests)
	default:
		p.Fraction = (at - l.Warmup).Seconds() / l.Duration.Seconds()
	}
	p.Fraction = min(p.Fraction, 1)
	return p
}
