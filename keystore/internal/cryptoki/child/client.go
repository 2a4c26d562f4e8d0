package child

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Config says which module a Client has and how its process is started.
type Config struct {
	Module string // path
	// Parameters is the text for C_Initialize, see [cryptoki.Load].
	Parameters string
	Command    []string // program and arguments of a process of the same binary that calls Serve
	// PINSource says to the child where the PIN is, in words that the child's
	// readPIN understands. Empty: the parent reads the user's PIN and sends it.
	PINSource string
	Log       *slog.Logger // for what the process writes to its standard error
}

// Client is a module in a process of its own.
type Client struct {
	config  Config
	start   sync.Mutex // held while a process is started or ended, not while it works
	current atomic.Pointer[process]
}

var _ cryptoki.Isolated = (*Client)(nil)

// New returns a module whose process does not run yet.
func New(c Config) *Client { return &Client{config: c} }

// Initialize starts the process, unless it runs, and initializes the module there.
// Where that fails, no process is left.
func (c *Client) Initialize() error {
	c.start.Lock()
	defer c.start.Unlock()
	if p := c.current.Load(); p != nil && p.running() {
		return c.none(request{op: opInitialize})
	}
	p, err := start(&c.config)
	if err != nil {
		return &cryptoki.GoneError{Module: c.config.Module, Reason: "it cannot be started: " + err.Error()}
	}
	c.current.Store(p) // so that Kill ends it, should it hang
	if err = c.none(request{op: opLoad, data: []byte(c.config.Module + "\x00" + c.config.Parameters), text: []byte(c.config.PINSource)}); err == nil {
		err = c.none(request{op: opInitialize})
	}
	if err != nil {
		c.end(p)
	}
	return err
}

// Finalize finalizes the module and ends the process.
func (c *Client) Finalize() error {
	c.start.Lock()
	defer c.start.Unlock()
	err := c.none(request{op: opFinalize})
	if p := c.current.Load(); p != nil {
		c.end(p)
	}
	return err
}

// Destroy ends the process if it runs.
func (c *Client) Destroy() {
	if p := c.current.Load(); p != nil {
		c.end(p)
	}
}

// Kill ends the process at once, see [cryptoki.Isolated].
func (c *Client) Kill() {
	if p := c.current.Load(); p != nil {
		_ = p.kill("it was ended") // as those who wait are told
	}
}

// endPatience bounds how long the end of a process is waited for that was killed: a
// driver can keep one.
const endPatience = time.Second

// end ends a process, in which no call is of importance, and waits for its end.
func (c *Client) end(p *process) {
	_ = p.kill("it was ended") // as nobody is interested
	select {
	case <-p.ended:
	case <-time.After(endPatience):
	}
	c.current.CompareAndSwap(p, nil)
}

func (c *Client) ask(q *request) (exchange, error) {
	p := c.current.Load()
	if p == nil {
		return exchange{}, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	return p.ask(q)
}

// none calls a method that returns nothing but an error.
func (c *Client) none(q request) error {
	x, err := c.ask(&q)
	if err == nil {
		x.release()
	}
	return err
}

// bytes calls a method that returns bytes.
func (c *Client) bytes(q request) ([]byte, error) {
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	return bytes.Clone(x.reply.out), nil
}

// numbers calls a method that returns a fixed number of numbers.
func (c *Client) numbers(n int, q request) ([]uint, error) {
	x, err := c.ask(&q)
	if err != nil {
		return nil, err
	}
	defer x.release()
	if len(x.reply.numbers) != n {
		return nil, c.distrust()
	}
	return x.reply.numbers, nil
}

// object calls a method that returns an object.
func (c *Client) object(q request) (cryptoki.Object, error) {
	n, err := c.numbers(1, q)
	if err != nil {
		return 0, err
	}
	return cryptoki.Object(n[0]), nil
}

// distrust is for a reply that fits no request of its kind.
func (c *Client) distrust() error {
	if p := c.current.Load(); p != nil {
		return p.distrust()
	}
	return errMalformed
}
