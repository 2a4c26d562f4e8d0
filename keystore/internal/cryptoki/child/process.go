package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// process is a child and the calls that wait for it.
type process struct {
	module string
	conn   *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has ended and was reaped

	mu      sync.Mutex
	last    uint64               // id; guarded by mu
	waiting map[uint64]*exchange // by id; guarded by mu
	gone    *cryptoki.GoneError  // nil: it runs, as far as is known; guarded by mu
}

// exchange is one request and what was replied. It is used again for others.
type exchange struct {
	out   []byte   // packet of the request
	in    []byte   // packet of the reply
	parts [][]byte // packets before in, where a reply takes several
	reply reply    // parsed of in
	gone  *cryptoki.GoneError
	done  chan struct{} // capacity 1: in or gone is there
}

// maxParts bounds the packets of one reply.
const maxParts = 1000

var exchanges = sync.Pool{New: func() any { return &exchange{done: make(chan struct{}, 1)} }}

// release wipes x, of which nothing may be used any more.
func (x *exchange) release() {
	clear(x.out)
	clear(x.in)
	for _, part := range x.parts {
		clear(part)
	}
	x.out, x.in, x.parts, x.reply, x.gone = x.out[:0], x.in[:0], nil, reply{}, nil
	exchanges.Put(x)
}

// ask sends a request and waits for the reply, which refers to x until it is
// released. Where there is an error, x is nil.
func (p *process) ask(q *request) (x *exchange, err error) {
	x = exchanges.Get().(*exchange)
	defer func() {
		if err != nil {
			x.release()
			x = nil
		}
	}()
	if err := p.enter(q, x); err != nil {
		return x, err
	}
	x.out = q.appendTo(x.out[:0])
	if len(x.out) > maxPacket {
		p.leave(q.id)
		return x, fmt.Errorf("a request of %d bytes is too large for the process of the module: %d are supported", len(x.out), maxPacket)
	}
	if _, err := p.conn.Write(x.out); err != nil {
		_ = p.cmd.Process.Kill() // most likely it is ending, and receive knows how
	}
	<-x.done
	if x.gone != nil {
		return x, x.gone
	}
	if x.reply, err = parseReply(x.in); err != nil {
		return x, p.distrust()
	}
	return x, x.reply.failed.error()
}

// distrust ends a process that has replied what is no answer to the request.
func (p *process) distrust() error {
	return p.kill("it sent what is no reply, and was ended")
}

// enter has x wait for the reply to q, which gets its id.
func (p *process) enter(q *request, x *exchange) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return p.gone
	}
	p.last++
	q.id = p.last
	p.waiting[q.id] = x
	return nil
}

func (p *process) leave(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

// receive hands replies to those who wait for them, until the process is gone.
func (p *process) receive() {
	buf := make([]byte, maxPacket+1)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			break
		}
		if err := p.deliver(buf[:n]); err != nil {
			_ = p.distrust() // which those who wait are told
		}
		clear(buf[:n])
	}
	// It has closed its end, and so is ending, or has gone astray.
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // the state says it better
	p.fail(p.cmd.ProcessState.String())
	_ = p.conn.Close() // all is over
	close(p.ended)
}

// deliver gives a copy of a packet to whom it is for.
func (p *process) deliver(packet []byte) error {
	id, more, err := replyHead(packet)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return nil
	}
	x, ok := p.waiting[id]
	switch {
	case !ok:
		return errors.New("a reply to no request")
	case more && len(x.parts) == maxParts:
		return errors.New("a reply without end")
	case more:
		x.parts = append(x.parts, append([]byte(nil), packet...))
		return nil
	}
	delete(p.waiting, id)
	x.in = append(x.in[:0], packet...)
	x.done <- struct{}{}
	return nil
}

// fail has all calls fail, those that wait and those to come. It returns why, which
// may have been known before.
func (p *process) fail(reason string) *cryptoki.GoneError {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		p.gone = &cryptoki.GoneError{Module: p.module, Reason: reason}
	}
	for id, x := range p.waiting {
		delete(p.waiting, id)
		x.gone = p.gone
		x.done <- struct{}{}
	}
	return p.gone
}

// kill ends the process at once. receive, which notices, waits for the end of it.
func (p *process) kill(reason string) *cryptoki.GoneError {
	gone := p.fail(reason)
	_ = p.cmd.Process.Kill() // it may have ended
	return gone
}

// running reports whether the process runs, as far as is known.
func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone == nil
}
