package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// minCiphertexts is how many ciphertexts a load decrypts at the least, so that
// a proxy gains little by remembering its answers.
const minCiphertexts = 64

// preparation makes one request of each kind, so that a wrong URL, credential
// or key shows as one error instead of thousands, and the ciphertexts to
// decrypt.
type preparation struct {
	load     *Load
	workload *workload
	decrypts []call // each element belongs to the worker that took its index
	next     atomic.Int64
	made     atomic.Int64

	mu  sync.Mutex
	err error // the first; under mu
}

func (p *preparation) run(ctx context.Context, workers []*worker, progress func(Progress)) error {
	encrypts, err := p.workload.encryptCalls(p.load.KeyIDs)
	if err != nil {
		return err
	}
	if err := workers[0].must(ctx, &encrypts[0]); err != nil {
		return fmt.Errorf("first request: %w", err)
	}
	if p.load.Operation != Decrypt {
		p.workload.encrypts = encrypts
	}
	if p.load.Operation == Encrypt {
		return nil
	}
	each := (minCiphertexts + len(encrypts) - 1) / len(encrypts)
	p.decrypts = make([]call, each*len(encrypts))
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { p.encrypt(ctx, w, encrypts) })
	}
	watch(&wg, func() {
		progress(Progress{Phase: Preparing, Fraction: float64(p.made.Load()) / float64(len(p.decrypts))})
	})
	if p.err != nil {
		return p.err
	}
	p.workload.decrypts = p.decrypts
	if err := workers[0].must(ctx, &p.decrypts[0]); err != nil {
		return fmt.Errorf("first request: %w", err)
	}
	return nil
}

// encrypt makes ciphertexts until there are enough or one cannot be made.
func (p *preparation) encrypt(ctx context.Context, w *worker, encrypts []call) {
	for {
		i := int(p.next.Add(1) - 1)
		if i >= len(p.decrypts) {
			return
		}
		key := i % len(encrypts)
		err := w.must(ctx, &encrypts[key])
		if err == nil {
			p.decrypts[i], err = p.workload.decryptCall(p.load.KeyIDs[key], w.answer.Bytes())
		}
		if err != nil {
			p.fail(fmt.Errorf("make a ciphertext to decrypt: %w", err))
			return
		}
		p.made.Add(1)
	}
}

// fail keeps the first error and ends the work of all.
func (p *preparation) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.next.Store(int64(len(p.decrypts)))
}
