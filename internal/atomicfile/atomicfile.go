// Package atomicfile writes whole files so that a reader, and the disk after a
// crash, has either the old contents or the new, and locks them against other
// processes that write by it.
//
// New files have mode 0600, since configuration and credentials are what it is
// used for. A replaced file keeps its mode and owner; where root writes a new
// one, it belongs to the owner of its folder, who is to read it.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hyok-kms/hyok/internal/diskspace"
)

// Write replaces the file at path, or creates it. A symbolic link is followed.
func Write(path string, data []byte) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target = path
	} else if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return write(target, data, os.Rename)
}

// Create creates the file at path. Its error is [fs.ErrExist] where there is
// anything at path already.
func Create(path string, data []byte) error {
	return write(path, data, func(temporary, path string) error {
		if err := os.Link(temporary, path); err != nil {
			return err
		}
		return os.Remove(temporary)
	})
}

// write fills a temporary file in the folder of path and puts it in place.
func write(path string, data []byte, place func(temporary, path string) error) (err error) {
	dir := filepath.Dir(path)
	removeAbandoned(dir)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*"+temporarySuffix) // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, diskspace.Explain(err))
	}
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, unless writing failed
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, diskspace.Explain(err))
		}
	}()
	if err := fill(f, path, data); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

const (
	temporarySuffix = ".hyok-tmp"
	abandonedAge    = time.Hour // of a temporary file whose writer was killed
)

// removeAbandoned removes temporary files of a folder that nobody will put in place
// any more. Some of them hold secrets. That it fails is no reason not to write.
func removeAbandoned(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), temporarySuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > abandonedAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func fill(f *os.File, path string, data []byte) error {
	if err := inherit(f, path); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// inherit gives f the owner and the mode of the file at path, or, where there is
// none and this is root, the owner of its folder.
func inherit(f *os.File, path string) error {
	like, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return adopt(f, filepath.Dir(path))
	} else if err != nil {
		return err
	}
	if err := chown(f, like); err != nil {
		return err
	}
	return f.Chmod(like.Mode().Perm())
}

// adopt gives f, where this is root, the owner of the folder.
func adopt(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	like, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return chown(f, like)
}

// chown gives f the owner and group that like has.
func chown(f *os.File, like fs.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	want, ok := like.Sys().(*syscall.Stat_t)
	have, ok2 := now.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("keep its owner: %w", err)
	}
	return nil
}

// syncDir makes a rename in the folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close())
}

// Lock waits until no other process, nor another caller in this one, holds the
// lock of the file at path, and holds it until unlock is called. The lock is a
// file beside it with .lock after its name, which stays: removing it would let
// two in.
func Lock(path string) (unlock func() error, err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // one lock, by whatever name the file is reached
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err = flock(f); err == nil {
		err = adopt(f, filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil // closing gives the lock up
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
