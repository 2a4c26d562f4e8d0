package child

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// process is a child and the lines to it.
type process struct {
	module  string
	cmd     *exec.Cmd
	control int           // socket; the child ends when it is closed
	over    chan struct{} // closed when gone is known
	ended   chan struct{} // closed when it was reaped

	// making is held while a line is made, which waits for a process that takes none.
	// It is taken before mu, which is what ends that.
	making sync.Mutex

	mu    sync.Mutex
	lines []*line             // all; guarded by mu
	free  []*line             // that no call has taken; guarded by mu
	gone  *cryptoki.GoneError // nil: it runs, as far as is known; guarded by mu
}

// exchange is a request and the reply to it on a line.
type exchange struct {
	p     *process
	line  *line
	reply reply // refers to the line
}

// release gives the line back. Nothing of the reply's bytes may be used any more.
func (x *exchange) release() {
	x.line.wipe()
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.free = append(x.p.free, x.line) // the last one is taken first: its thread is warm
}

// ask sends a request and waits for the reply.
func (p *process) ask(q *request) (x exchange, err error) {
	l, err := p.take()
	switch {
	case err != nil:
		return x, err
	case l == nil:
		return x, p.lost()
	}
	x = exchange{p: p, line: l}
	defer func() {
		if err != nil {
			x.release()
		}
	}()
	l.begin()
	if l.out = q.appendTo(l.out); len(l.out) > lengthSize+maxMessage {
		return x, fmt.Errorf("a request of %d bytes is too large for the process of the module: %d are supported", len(l.out), maxMessage)
	}
	err = l.send()
	var message []byte
	if err == nil {
		message, err = l.receive()
	}
	switch {
	case errors.Is(err, errMalformed):
		return x, p.distrust()
	case err != nil:
		return x, p.lost()
	}
	if x.reply, err = parseReply(message); err != nil {
		return x, p.distrust()
	}
	return x, x.reply.failed.error()
}

// take takes a line that is free, or makes one; nil if the process has closed its
// sockets.
func (p *process) take() (*line, error) {
	if l, err := p.takeFree(); l != nil || err != nil {
		return l, err
	}
	p.making.Lock()
	defer p.making.Unlock()
	if l, err := p.takeFree(); l != nil || err != nil {
		return l, err
	}
	l, err := newLine(p.control)
	switch {
	case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("make a line to the process of the module: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		_ = l.conn.Close() // nothing was written to it
		return nil, p.gone
	}
	p.lines = append(p.lines, l)
	return l, nil
}

// takeFree takes a line that is free, if there is one.
func (p *process) takeFree() (*line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return nil, p.gone
	}
	n := len(p.free)
	if n == 0 {
		return nil, nil
	}
	l := p.free[n-1]
	p.free = p.free[:n-1]
	return l, nil
}

// distrust ends a process that has replied what is no answer to the request.
func (p *process) distrust() error {
	return p.kill("it sent what is no reply, and was ended")
}

// lost returns why a line was cut off: the process has ended or is about to, or
// has gone astray and is ended.
func (p *process) lost() error {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.over
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// watch waits for the end of the process.
func (p *process) watch() {
	_ = p.cmd.Wait() // the state says it better
	_ = p.fail(p.cmd.ProcessState.String())
	p.making.Lock() // nobody makes a line any more
	defer p.making.Unlock()
	closeSocket(p.control)
	close(p.ended)
}

// fail has all calls fail, those that wait and those to come. It returns why, which
// may have been known before.
func (p *process) fail(reason string) *cryptoki.GoneError {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return p.gone
	}
	p.gone = &cryptoki.GoneError{Module: p.module, Reason: reason}
	close(p.over)
	shutSocket(p.control) // so that nobody waits to make a line
	for _, l := range p.lines {
		_ = l.conn.Close() // so that nobody waits: something that the process has started may have the other end
	}
	return p.gone
}

// kill ends the process at once. watch waits for the end of it.
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
