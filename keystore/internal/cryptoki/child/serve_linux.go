package child

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prepare makes this process fit to have a module and PINs in its memory.
func prepare() error {
	if t, err := unix.GetsockoptInt(controlSocket, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || t != unix.SOCK_STREAM {
		return errors.New("it has not handed down a socket: this command is not for people")
	}
	// The parent ends this process by closing the socket, after the requests that
	// it still serves when a terminal or systemd sends a signal to both.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := dieSilently(); err != nil {
		return err
	}
	return closeInherited()
}

// dieSilently has a fault in the module end the process by its signal. Go's own
// handlers would write the registers to standard error, and so to the log, and
// with them what the module worked on.
func dieSilently() error {
	var action [64]byte // a struct sigaction of SIG_DFL, whatever its layout
	for _, s := range []syscall.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGABRT, unix.SIGTRAP, unix.SIGSYS} {
		const maskSize = 8
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, maskSize, 0, 0); errno != 0 {
			return fmt.Errorf("reset the handler of %v: %w", s, errno)
		}
	}
	return nil
}

// closeInherited closes what a library in the parent has opened without
// O_CLOEXEC. What this process has opened itself has it.
func closeInherited() error {
	unix.CloseOnExec(controlSocket) // nor shall what the module starts have the socket
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the open files: %w", err)
	}
	for _, entry := range open {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= controlSocket {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd) // which Linux does in any case
		}
	}
	return nil
}
