package child

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// start starts the process of a module, which has loaded nothing yet.
func start(c *Config) (*process, error) {
	if len(c.Command) == 0 {
		return nil, errors.New("no command is known that serves a module")
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	defer func() { _ = theirs.Close() }() // the process has its own
	output, end, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer func() { _ = end.Close() }()
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Stdout, cmd.Stderr = end, end
	cmd.ExtraFiles = []*os.File{theirs}
	// A signal of the terminal is for the parent, which ends the child itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close(), output.Close())
	}
	p := &process{module: c.Module, conn: ours, cmd: cmd, ended: make(chan struct{}), waiting: map[uint64]*exchange{}}
	go p.receive()
	go p.forward(output, c.Log.With("module_pid", cmd.Process.Pid))
	return p, nil
}

// pair returns two connected sockets.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "module"), os.NewFile(uintptr(fds[1]), "parent")
	for _, fd := range fds {
		// A packet has to fit into it.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*maxPacket); err != nil {
			return nil, nil, errors.Join(err, ours.Close(), theirs.Close())
		}
	}
	return ours, theirs, nil
}

// Bounds of what a module can write to the log.
const (
	maxLine     = 500 // bytes
	linesASec   = 1
	linesAtOnce = 20
)

// forward logs what the process writes to its standard output and error, which
// vendors' libraries do, as far as it is not too much.
func (p *process) forward(output *os.File, log *slog.Logger) {
	defer func() { _ = output.Close() }()
	go func() {
		<-p.ended
		// What it has started may have the pipe open for ever.
		_ = output.SetReadDeadline(time.Now().Add(time.Second))
	}()
	limit, dropped := rate.NewLimiter(linesASec, linesAtOnce), 0
	lines := bufio.NewReaderSize(output, maxLine)
	for {
		line, long, err := lines.ReadLine()
		for rest := long; rest && err == nil; {
			_, rest, err = lines.ReadLine()
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				log.Warn("what the module writes cannot be read", "error", err)
			}
			return
		}
		if len(line) == 0 {
			continue
		}
		if !limit.Allow() {
			dropped++
			continue
		}
		log.Warn("the module writes", "line", string(line), "not_logged_before", dropped)
		dropped = 0
	}
}
