package cryptoki

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"
)

// Child says how to load a module into a process of its own.
type Child struct {
	// Command is the program and its arguments. It calls Serve with the socket that
	// it inherits as file descriptor ChildDescriptor.
	Command []string
	Module  string // path
	// PINSource describes to the child how to read the PIN; empty: the PIN is read
	// here and sent to it.
	PINSource string
	// Stderr is called with each line that the child writes there.
	Stderr func(line string)
}

// ChildDescriptor is the number of the file descriptor of the child's socket.
const ChildDescriptor = 3

// remote is a module in a process of its own.
type remote struct {
	child Child

	mu      sync.Mutex
	process *process // the one that runs, or ran last; nil: none did; guarded by mu
}

// process is one run of the child.
type process struct {
	module string
	cmd    *exec.Cmd
	conn   net.Conn
	ended  chan struct{} // closed when it has ended
	gone   *GoneError    // valid once ended is closed

	writing sync.Mutex // guards out and what is written
	out     encoder

	mu      sync.Mutex
	next    uint64                  // guarded by mu
	waiting map[uint64]chan *answer // guarded by mu; nil once nobody may wait any more
}

// Isolate returns a module in a process of its own, which Initialize starts.
func Isolate(c Child) Isolated { return &remote{child: c} }

// start starts the child.
func (c *Child) start() (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "module"), os.NewFile(uintptr(fds[1]), "module")
	defer func() { _ = theirs.Close() }() // the child has its own
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close())
	if err != nil {
		return nil, fmt.Errorf("use a socket pair: %w", err)
	}
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), "GOTRACEBACK=none")
	lines := &lineWriter{line: c.Stderr}
	cmd.Stderr = lines
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the process of the module %s: %w", c.Module, err), conn.Close())
	}
	p := &process{module: c.Module, cmd: cmd, conn: conn, ended: make(chan struct{}), waiting: map[uint64]chan *answer{}}
	go p.read(lines)
	if _, err := p.call(request{op: opLoad, text: c.Module, more: c.PINSource}); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// read hands the answers out until the child ends.
func (p *process) read(lines *lineWriter) {
	in := bufio.NewReaderSize(p.conn, 64<<10)
	var buf []byte
	for {
		frame, err := readFrame(in, buf)
		if err != nil {
			break
		}
		d := decoder{buf: frame}
		r, err := d.answer()
		clear(frame) // it may hold plaintext
		buf = frame
		if err != nil {
			break
		}
		p.mu.Lock()
		waiting := p.waiting[r.id]
		delete(p.waiting, r.id)
		p.mu.Unlock()
		if waiting == nil {
			break // nobody has asked
		}
		waiting <- &r
	}
	p.kill()
	reason := "it ended"
	if err := p.cmd.Wait(); err != nil {
		reason = err.Error()
	}
	if last := lines.last(); last != "" {
		reason += ": " + last
	}
	p.gone = &GoneError{Module: p.module, Reason: reason}
	close(p.ended)
	p.mu.Lock()
	p.waiting = nil
	p.mu.Unlock()
}

// kill ends the child and the connection. Both may be over.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.conn.Close()
}

// call has the child call a method.
func (p *process) call(r request) (*answer, error) {
	reply := make(chan *answer, 1)
	p.mu.Lock()
	if p.waiting == nil {
		p.mu.Unlock()
		<-p.ended
		return nil, p.gone
	}
	p.next++
	r.id = p.next
	p.waiting[r.id] = reply
	p.mu.Unlock()
	if err := p.send(&r); err != nil {
		return nil, err
	}
	select {
	case a := <-reply:
		return a, a.err()
	case <-p.ended:
		return nil, p.gone
	}
}

func (p *process) send(r *request) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	defer p.out.wipe()
	p.out.begin()
	p.out.request(r)
	frame, err := p.out.frame()
	if err != nil {
		p.mu.Lock()
		delete(p.waiting, r.id)
		p.mu.Unlock()
		return err
	}
	_, _ = p.conn.Write(frame) // that the child is gone, the reader learns too
	return nil
}

// running returns the process that calls go to, which may have ended.
func (m *remote) running() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// call has the child call a method.
func (m *remote) call(r request) (*answer, error) {
	p := m.running()
	if p == nil {
		return new(answer), pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	a, err := p.call(r)
	if a == nil {
		a = new(answer)
	}
	return a, err
}

// Initialize starts the child unless one runs.
func (m *remote) Initialize() error {
	m.mu.Lock()
	if m.process == nil || m.process.over() {
		p, err := m.child.start()
		if err != nil {
			m.mu.Unlock()
			return err
		}
		m.process = p
	}
	m.mu.Unlock()
	_, err := m.call(request{op: opInitialize})
	return err
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Finalize ends the child. That it has ended before is no error.
func (m *remote) Finalize() error {
	_, err := m.call(request{op: opFinalize})
	m.Kill()
	var gone *GoneError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}

// Destroy has nothing to unload.
func (m *remote) Destroy() { m.Kill() }

func (m *remote) Kill() {
	if p := m.running(); p != nil {
		p.kill()
		<-p.ended
	}
}

// lineWriter gives on what is written line by line.
type lineWriter struct {
	line func(string)

	mu   sync.Mutex
	part []byte // of a line; guarded by mu
	seen string // the last line; guarded by mu
}

func (w *lineWriter) Write(b []byte) (int, error) {
	const longest = 512
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range b {
		if ch != '\n' {
			if len(w.part) < longest {
				w.part = append(w.part, ch)
			}
			continue
		}
		if len(w.part) > 0 {
			w.seen = string(w.part)
			if w.line != nil {
				w.line(w.seen)
			}
		}
		w.part = w.part[:0]
	}
	return len(b), nil
}

// last returns the last line.
func (w *lineWriter) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}
