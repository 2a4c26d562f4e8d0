package keystore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// A module may be loaded into a child process, one for each open token: what goes
// wrong in a vendor's library then, a crash, a hang or a leak, costs a restart of
// that child alone.

// ModuleCommand is the argument by which a program is told to be the process of a
// module: it calls ServeModule then, and does nothing else.
const ModuleCommand = "module"

// ServeModule is the process of a module: it serves the calls of its parent, with
// whom it shares the socket that it inherited, and returns once the parent is gone.
// The process is to end then, whatever calls hang. It reads the PIN by itself where
// the token's URI says how.
func ServeModule() error {
	// They are sent to all processes of a service or a terminal. The parent ends
	// this one when it has finished.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	socket := os.NewFile(cryptoki.ChildDescriptor, "parent")
	if socket == nil {
		return errors.New("this command is for hyok itself: it is started with a socket to its parent")
	}
	err := cryptoki.Serve(socket, func(source string) cryptoki.PIN {
		return func() (string, error) { return readPINSource(source) }
	})
	if err != nil {
		return fmt.Errorf("serve a module to the parent: %w", err)
	}
	return nil
}

// PINFromURI says how to read the PIN that a token's URI points to, so that the
// process that loads the module can do it.
type PINFromURI struct {
	Dir        string // that relative paths start at
	AllowValue bool   // a pin-value may be in the URI
}

// pinSource describes to a child how to read the PIN; "" if it cannot.
func (o *Options) pinSource() string {
	if o.PINFrom == nil || !o.URI.NamesPIN() || o.URI.pinValue != "" {
		return ""
	}
	return strings.Join([]string{strconv.FormatBool(o.PINFrom.AllowValue), o.PINFrom.Dir, o.URI.String()}, "\x00")
}

func readPINSource(source string) (string, error) {
	part := strings.SplitN(source, "\x00", 3)
	if len(part) != 3 {
		return "", errors.New("the parent does not say where the PIN is")
	}
	u, err := ParseURI(part[2])
	if err != nil {
		return "", err
	}
	return u.PIN(part[1], part[0] == "true")
}

// isolate starts a process for the module of a token.
func (ms *Modules) isolate(o *Options) (*module, error) {
	if len(ms.Command) == 0 {
		return nil, fmt.Errorf("token %s: this program cannot load a module into a process of its own: set Modules.Command", o.Name)
	}
	path, err := filepath.EvalSymlinks(o.URI.ModulePath)
	if err != nil {
		return nil, fmt.Errorf("find the PKCS#11 module: %w", err)
	}
	m := &module{path: path, refs: 1, ours: true}
	m.ctx = cryptoki.Isolate(cryptoki.Child{
		Command: ms.Command, Module: path, PINSource: o.pinSource(), Stderr: childLog(o.Logger, o.Name),
	})
	if err := m.ctx.Initialize(); err != nil {
		m.ctx.Destroy()
		return nil, fmt.Errorf("initialize the PKCS#11 module %s in a process of its own: %w", path, err)
	}
	return m, nil
}

// childLog logs what a child writes to its standard error, as vendors' libraries do.
func childLog(log *slog.Logger, token string) func(string) {
	const burst = 20
	limit := rate.NewLimiter(rate.Every(time.Second), burst)
	return func(line string) {
		if limit.Allow() {
			log.Warn("the process of the module says", "token", token, "line", line)
		}
	}
}
