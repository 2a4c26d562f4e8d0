package proxy

import (
	"syscall"

	"github.com/hyok-kms/hyok/internal/config"
)

const (
	// mostConnections is how many each listener has at most where the
	// configuration does not say: 1,000 idle ones take some 50 MB at the worst.
	mostConnections = 4096
	// fewestConnections is what is served even where file descriptors are short.
	fewestConnections = 16
	// ownFiles is how many file descriptors hyok needs beside connections: a
	// module opens its own, as SoftHSM2 does with every object it reads.
	ownFiles = 256
)

// connectionLimit returns how many connections each listener may have.
func (p *Proxy) connectionLimit(c *config.Config) int {
	listeners, files := len(allListeners(c)), fileLimit()
	if c.Limits.Connections == 0 {
		return defaultConnections(files, listeners)
	}
	if uint64(c.Limits.Connections*listeners+ownFiles) > files {
		p.log.Warn("limits.connections is more than there are file descriptors for; raise the limit of open files (LimitNOFILE)",
			"connections", c.Limits.Connections, "listeners", listeners, "files", files)
	}
	return c.Limits.Connections
}

// defaultConnections gives listeners half of the file descriptors, so that the
// other half is there for tokens, the database and XKS proxies.
func defaultConnections(files uint64, listeners int) int {
	return int(min(max(files/uint64(2*listeners), fewestConnections), mostConnections))
}

// fileLimit returns how many files the process may have open. Go has raised the
// soft limit to the hard one when it started.
func fileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the least that systems grant
	}
	return uint64(limit.Cur)
}
