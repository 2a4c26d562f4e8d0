package child

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// start starts the process of a module, which has loaded nothing yet.
func start(c *Config) (*process, error) {
	control, other, err := pair()
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(other), "parent")
	defer func() { _ = theirs.Close() }() // the process has its own
	output, end, err := os.Pipe()
	if err != nil {
		closeSocket(control)
		return nil, err
	}
	defer func() { _ = end.Close() }()
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Stdout, cmd.Stderr = end, end
	cmd.ExtraFiles = []*os.File{theirs}
	// A signal of the terminal is for the parent, which ends the child itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		closeSocket(control)
		return nil, errors.Join(err, output.Close())
	}
	p := &process{module: c.Module, cmd: cmd, control: control, over: make(chan struct{}), ended: make(chan struct{})}
	go p.watch()
	go p.forward(output, c.Log.With("module_pid", cmd.Process.Pid))
	return p, nil
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
		begin, long, err := lines.ReadLine()
		line := string(begin) // whose bytes the rest overwrites
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
		log.Warn("the process of the module says", "line", line, "not_logged_before", dropped)
		dropped = 0
	}
}
