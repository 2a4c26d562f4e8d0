package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// maxFileSize bounds every file that Load reads, in bytes.
const maxFileSize = 8 << 20

// Load reads the configuration file and the files that it names, and checks
// them: credentials and identities are well formed, unique and for the owner's
// eyes alone; certificates match their keys. The profile of a token must be one
// of profiles, where there are any. The error joins everything that is wrong,
// each an [*Error].
func Load(path string, profiles ...string) (*Config, error) {
	c, errs := read(path, profiles)
	errs = append(errs, c.checkFiles()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// Read is Load without the files that only a server uses: certificates, their
// keys, SoftHSM2's configuration.
func Read(path string, profiles ...string) (*Config, error) {
	c, errs := read(path, profiles)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// read returns what it understood of the configuration with all errors.
func read(path string, profiles []string) (*Config, []error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return &Config{}, []error{fmt.Errorf("find the configuration file: %w", err)}
	}
	self := versionOf(path) // before it is read, so that no later change is missed
	data, err := readFile(path)
	if err != nil {
		return &Config{}, []error{err}
	}
	c, errs := parse(path, data, profiles)
	c.seen = takeSnapshot(c.Files())
	c.seen[path] = self
	errs = append(errs, c.readCredentials()...)
	return c, append(errs, c.readIdentities()...)
}

// checkFiles checks the files whose contents others use.
func (c *Config) checkFiles() []error {
	var errs []error
	check := func(err error) { // once, as listeners share their files
		if err != nil && !containsText(errs, err) {
			errs = append(errs, err)
		}
	}
	if c.SoftHSM2Conf != "" {
		_, err := readFile(c.SoftHSM2Conf)
		check(err)
	}
	for _, l := range c.allListeners() {
		if l.TLS == nil {
			continue
		}
		if err := l.TLS.checkCertificate(); err != nil {
			check(err)
		} else if err := l.TLS.missingIntermediate(); err != nil && !containsText(c.Warnings, err) {
			c.Warnings = append(c.Warnings, err)
		}
		check(checkCertificates(l.TLS.ClientCA))
	}
	if k := c.KMS; k != nil {
		check(checkFolder(k.Data))
		check(checkCertificates(k.ProxyCA))
		for _, cluster := range k.Clusters {
			check(checkCertificates(cluster.TrustAnchor))
		}
	}
	return errs
}

// containsText reports whether one of errs says the same as err.
func containsText(errs []error, err error) bool {
	return slices.ContainsFunc(errs, func(other error) bool { return other.Error() == err.Error() })
}

// checkFolder reports whether there can be a folder at path, which its user makes.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	switch {
	case path == "" || errors.Is(err, fs.ErrNotExist): // reported already, or yet to be made
		return nil
	case err != nil:
		return fileError(path, err)
	case !info.IsDir():
		return &Error{File: path, Message: "must be a folder"}
	}
	return nil
}

// readFile reads a whole file of a bounded size. Its errors are of type *Error.
func readFile(path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	return readOpen(f)
}

// open does not wait for a writer where path is a named pipe.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func readOpen(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fileError(f.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{File: f.Name(), Message: "must be a file"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fileError(f.Name(), err)
	}
	if len(data) > maxFileSize {
		return nil, &Error{File: f.Name(), Message: fmt.Sprintf("is longer than %d bytes", maxFileSize)}
	}
	return data, nil
}

func fileError(path string, err error) error {
	message := "cannot be read: " + err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		message = "does not exist"
	} else if errors.Is(err, fs.ErrPermission) {
		message = "may not be read by this user"
	}
	return &Error{File: path, Message: message, Cause: err}
}
