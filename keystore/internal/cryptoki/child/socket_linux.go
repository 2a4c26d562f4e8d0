package child

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pair returns two connected sockets.
func pair() (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("make a pair of sockets: %w", err)
	}
	return fds[0], fds[1], nil
}

// newLine makes a line and sends its other end by the control socket. Its own end
// is used by Go's poller, so that a call that hangs holds a goroutine and no thread
// of this process.
func newLine(control int) (*line, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer closeSocket(theirs) // the receiver has its own
	if err := unix.Sendmsg(control, []byte{0}, unix.UnixRights(theirs), nil, unix.MSG_NOSIGNAL); err != nil {
		closeSocket(ours)
		return nil, fmt.Errorf("send a socket: %w", err)
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		closeSocket(ours)
		return nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	return &line{conn: os.NewFile(uintptr(ours), "line")}, nil
}

// acceptLine returns the end that newLine has sent; io.EOF: the parent is gone.
func acceptLine() (*line, error) {
	one, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, size, _, _, err := unix.Recvmsg(controlSocket, one, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		}
		messages, err := unix.ParseSocketControlMessage(rights[:size])
		if err != nil {
			return nil, err
		}
		if len(messages) != 1 {
			return nil, errMalformed
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, err
		}
		return &line{conn: blocking(fds[0])}, nil
	}
}

// blocking is a socket that is used by system calls that block their thread: the
// kernel wakes the very thread that is to do the work, which Go's poller would not.
type blocking int

func (s blocking) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s blocking) Write(b []byte) (written int, err error) {
	for written < len(b) {
		n, err := unix.SendmsgN(int(s), b[written:], nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return written, err
		}
		written += max(n, 0)
	}
	return written, nil
}

func (s blocking) Close() error { return unix.Close(int(s)) }

func closeSocket(fd int) { _ = unix.Close(fd) } // Linux does, whatever it answers

// shutSocket has all who use a socket stop, at both ends.
func shutSocket(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) } // fails if the other end is gone
