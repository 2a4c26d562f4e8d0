package child

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The sockets are used by blocking system calls, not by Go's poller: that is how a
// thread that has asked is woken by the reply itself. A call of a module in this
// process takes a thread as well.

// pair returns two connected sockets.
func pair() (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("make a pair of sockets: %w", err)
	}
	return fds[0], fds[1], nil
}

// newLine makes a line and sends its other end by the control socket.
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
	return &line{fd: ours}, nil
}

// acceptLine returns the socket that newLine has sent; io.EOF: the parent is gone.
func acceptLine() (fd int, err error) {
	one, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, size, _, _, err := unix.Recvmsg(controlSocket, one, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		messages, err := unix.ParseSocketControlMessage(rights[:size])
		if err != nil {
			return 0, err
		}
		if len(messages) != 1 {
			return 0, errMalformed
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return 0, err
		}
		return fds[0], nil
	}
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func write(fd int, b []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// cut wakes who reads from or writes to a socket.
func cut(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) } // it may be cut off already

func closeSocket(fd int) { _ = unix.Close(fd) } // Linux does, whatever it answers
