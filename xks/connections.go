package xks

import (
	"container/list"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds of what peers that have proven nothing yet may hold.
const (
	defaultConnections = 1024
	maxHandshakes      = 256
	// patience is how long a connection has what it holds for sure, even where
	// others want it: time for some round trips around the earth. Without it, a
	// flood of new connections would end each before it got anywhere.
	patience = time.Second
)

// ConnectionStats tells how many connections a [Listener] has, and of what
// became of others since it began.
type ConnectionStats struct {
	Open, Limit       int
	Refused           uint64 // closed as soon as they were accepted
	GivenUp           uint64 // closed to make room for others
	HandshakeFailures uint64 // but for peers that went before they said anything
}

// connections bounds the connections of a listener. One more than there may be
// takes the place of the one that has waited longest for its peer to send a
// whole request or the next one, or to take an answer. A connection whose
// request is worked on keeps its place.
type connections struct {
	logger   *slog.Logger
	patience time.Duration
	warnings rate.Sometimes // that connections are refused

	mu              sync.Mutex // guards what follows
	limit           int
	handshakesLimit int
	open            map[*connection]struct{}
	waiting         list.List // of *connection, by since
	handshakes      list.List // of *connection, in the order of their beginning
	refused         uint64
	givenUp         uint64
	failed          uint64
}

// connection is one that was admitted.
type connection struct {
	net.Conn
	all *connections

	// Guarded by all.mu.
	since     time.Time     // when it began to wait
	began     time.Time     // of the handshake
	waiting   *list.Element // nil while a request is worked on
	handshake *list.Element // nil but during its handshake
	working   int           // requests that are here whole
}

func newConnections(limit int, logger *slog.Logger) *connections {
	return &connections{
		logger: logger, patience: patience, warnings: rate.Sometimes{Interval: time.Minute},
		limit: limit, handshakesLimit: maxHandshakes, open: map[*connection]struct{}{},
	}
}

func (s *connections) stats() ConnectionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ConnectionStats{len(s.open), s.limit, s.refused, s.givenUp, s.failed}
}

// setLimit has new connections find another limit. Those above it stay until
// others want their places.
func (s *connections) setLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

// admit returns the connection that raw becomes, or nil after closing it.
func (s *connections) admit(raw net.Conn) *connection {
	c := &connection{Conn: raw, all: s}
	s.mu.Lock()
	for len(s.open) >= s.limit {
		victim := s.longestWaiting()
		if victim == nil {
			s.mu.Unlock()
			s.refuse(raw)
			return nil
		}
		s.giveUp(victim)
	}
	s.open[c] = struct{}{}
	c.wait()
	s.mu.Unlock()
	tune(raw)
	return c
}

// refuse closes what was just accepted. An answer would cost a handshake.
func (s *connections) refuse(raw net.Conn) {
	s.mu.Lock()
	s.refused++
	s.mu.Unlock()
	_ = raw.Close() // nothing was said on it
	s.warnings.Do(func() {
		s.logger.Warn("connections are refused: all that there may be are in use", "address", raw.LocalAddr().String(), "limit", s.stats().Limit)
	})
}

// longestWaiting returns the connection to give up next, or nil. The caller
// holds mu.
func (s *connections) longestWaiting() *connection {
	first := s.waiting.Front()
	if first == nil || time.Since(first.Value.(*connection).since) < s.patience {
		return nil
	}
	return first.Value.(*connection)
}

// giveUp closes a connection to make room. The caller holds mu, under which
// closing a socket does not wait.
func (s *connections) giveUp(c *connection) {
	s.givenUp++
	c.forget()
	_ = c.Conn.Close() // whoever reads from it or writes to it learns of it
}

// makeRoom gives one connection up, if one waits: the process has no more file
// descriptors.
func (s *connections) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if victim := s.longestWaiting(); victim != nil {
		s.giveUp(victim)
	}
}

// beginHandshake reports whether there is room for the handshake of c. Too many
// have the oldest given up.
func (s *connections) beginHandshake(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.handshakes.Len() >= s.handshakesLimit {
		oldest := s.handshakes.Front().Value.(*connection)
		if time.Since(oldest.began) < s.patience {
			return false
		}
		s.giveUp(oldest)
	}
	c.began = time.Now()
	c.handshake = s.handshakes.PushBack(c)
	return true
}

// endHandshake notes how the handshake of c ended. failed is false for a peer
// that went without a word.
func (s *connections) endHandshake(c *connection, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.handshake != nil {
		s.handshakes.Remove(c.handshake)
		c.handshake = nil
	}
	if failed {
		s.failed++
	}
}

// forget takes the connection from all that is counted. The caller holds mu.
func (c *connection) forget() {
	delete(c.all.open, c)
	if c.waiting != nil {
		c.all.waiting.Remove(c.waiting)
		c.waiting = nil
	}
	if c.handshake != nil {
		c.all.handshakes.Remove(c.handshake)
		c.handshake = nil
	}
}

// wait puts the connection behind all that wait, if it is open and no request of
// it is worked on. The caller holds mu.
func (c *connection) wait() {
	if _, open := c.all.open[c]; !open || c.working > 0 {
		return
	}
	c.since = time.Now()
	if c.waiting != nil {
		c.all.waiting.MoveToBack(c.waiting)
		return
	}
	c.waiting = c.all.waiting.PushBack(c)
}

// moved notes that the peer did something.
func (c *connection) moved() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.wait()
}

// work notes that a whole request is here.
func (c *connection) work() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.working++
	if c.waiting != nil {
		c.all.waiting.Remove(c.waiting)
		c.waiting = nil
	}
}

// rest notes that a request is done, but for the peer's taking the answer.
func (c *connection) rest() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.working--
	c.wait()
}

// Close closes the connection and gives its place back.
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.forget()
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets net/http end a plain connection without losing its last answer.
func (c *connection) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(conn net.Conn) error {
	if conn, ok := conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return nil
}
