package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// snapshot tells, by path, which files there were. Two equal snapshots mean
// that nothing has changed.
type snapshot map[string]fileVersion

// fileVersion is what changes when a file is written, replaced by a rename, or
// reached through another symbolic link, as in a Kubernetes volume. The zero
// value is a file that cannot be reached.
type fileVersion struct {
	resolved string
	inode    uint64
	size     int64
	modified time.Time
	changed  time.Time // which cannot be set back, unlike modified
	mode     fs.FileMode
}

func versionOf(path string) fileVersion {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileVersion{}
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return fileVersion{}
	}
	v := fileVersion{resolved: resolved, size: info.Size(), modified: info.ModTime(), mode: info.Mode()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode, v.changed = stat.Ino, changeTime(stat)
	}
	return v
}

func takeSnapshot(paths []string) snapshot {
	s := make(snapshot, len(paths))
	for _, path := range paths {
		s[path] = versionOf(path)
	}
	return s
}

// Files returns the path of the configuration file and of every file that it
// names.
func (c *Config) Files() []string {
	files := []string{c.Path}
	add := func(path string) {
		if path != "" {
			files = append(files, path)
		}
	}
	add(c.SoftHSM2Conf)
	for _, s := range c.Stores {
		add(s.CredentialsFile)
	}
	for _, l := range c.allListeners() {
		if l.TLS != nil {
			add(l.TLS.Certificate)
			add(l.TLS.KeyFile)
			add(l.TLS.ClientCA)
		}
	}
	if k := c.KMS; k != nil {
		add(k.IdentitiesFile)
		add(k.ProxyCA)
		for _, cluster := range k.Clusters {
			add(cluster.TrustAnchor)
		}
	}
	return files
}
