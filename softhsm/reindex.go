package softhsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Reindex has every process that uses a token of the process's SoftHSM2
// configuration, this one too, look again at which objects the token has, before it
// next uses one.
//
// It is needed after this process has made or destroyed a token object. SoftHSM2
// (seen in 2.6.1) counts such changes in the token's file "generation", and looks at
// the folder only if the count is not the one that it knows. Its own change adds one
// to whatever count it finds there and knows the sum: a change that another process
// made since it last looked is then never noticed.
//
// A token whose objects are in a database has no such file and needs nothing.
func Reindex(serial string) error {
	folder, err := tokenFolder()
	if err != nil || folder == "" {
		return err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*", "generation"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		if !ofToken(filepath.Base(filepath.Dir(path)), serial) {
			continue
		}
		if err := count(path); err != nil {
			errs = append(errs, fmt.Errorf("have SoftHSM2 look at %s again: %w", filepath.Dir(path), err))
		}
	}
	return errors.Join(errs...)
}

// count adds one to the number in a generation file, 8 bytes in big-endian order.
func count(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	// Closing also gives up the lock that another thread of this process may have
	// on the file inside the module. That is harmless: it reads, and what it reads
	// was written by one call.
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := lock(f); err != nil {
		return err
	}
	var b [8]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	binary.BigEndian.PutUint64(b[:], max(1, binary.BigEndian.Uint64(b[:])+1)) // 0: never
	_, err = f.WriteAt(b[:], 0)
	return err
}

// lock takes the lock that SoftHSM2 has on a file while it writes, until the file
// is closed.
func lock(f *os.File) error {
	whole := &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLKW, whole); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
