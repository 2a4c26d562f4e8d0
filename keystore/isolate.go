package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/child"
)

// A module may be loaded into a child process, one for each open token: what goes
// wrong in a vendor's library then, a crash, a hang or a leak, costs a restart of
// that child alone.

// ModuleCommand is the argument by which a program is told to be the process of a
// module: it calls ServeModule then, and does nothing else.
const ModuleCommand = "module"

// ModuleProcess is the command that starts this program as the process of a module:
// the very file that it was started from, even if another version has replaced it.
func ModuleProcess() []string { return []string{"/proc/self/exe", ModuleCommand} }

// ServeModule is the process of a module: it serves the calls of its parent, with
// whom it shares the socket that it inherited, and ends when the parent does,
// whatever calls hang. It reads the PIN by itself where the token's URI says how. It
// returns an error if it was not started for that, and does not return otherwise.
func ServeModule() error {
	return child.Serve(func(source string) (string, error) { return URI{PINSource: source}.PIN("", false) })
}

// PINFromURI says how to read the PIN that a token's URI points to, so that the
// process that loads the module can do it.
type PINFromURI struct {
	Dir string // that relative paths start at
}

// pinSource is the pin-source for a child, which knows no folder; "" if the parent
// has to read the PIN.
func (o *Options) pinSource() string {
	source := o.URI.PINSource
	switch {
	case o.PINFrom == nil || o.URI.pinValue != "":
		return ""
	case source == "" || strings.HasPrefix(source, "|") || strings.HasPrefix(source, "env:"):
		return source
	}
	return "file:" + pinPath(source, o.PINFrom.Dir)
}

// isolate starts a process for the module of a token, at the latest by the end of
// ctx.
func (ms *Modules) isolate(ctx context.Context, o *Options) (*module, error) {
	if len(ms.Command) == 0 {
		return nil, errors.New("this program cannot load a module into a process of its own: set Modules.Command")
	}
	path, err := resolveModule(o.URI.ModulePath)
	if err != nil {
		return nil, err
	}
	client := child.New(child.Config{
		Module: path, Parameters: o.URI.ModuleParameters, Command: append(slices.Clone(ms.Command), o.Name), PINSource: o.pinSource(), Log: o.Logger.With("token", o.Name),
	})
	if err := initializeUntil(ctx, client); err != nil {
		return nil, fmt.Errorf("initialize the PKCS#11 module %s in a process of its own: %w", path, err)
	}
	return &module{ctx: ms.confine(client), path: path, parameters: o.URI.ModuleParameters, refs: 1, ours: true}, nil
}

// initializeUntil starts the process of a module, which is ended if it has not
// initialized the module by the end of ctx.
func initializeUntil(ctx context.Context, m cryptoki.Isolated) error {
	started := make(chan struct{})
	defer close(started)
	defer context.AfterFunc(ctx, func() { killUntil(started, m) })()
	return m.Initialize()
}

// killUntil ends a process that may be about to be started and not be there yet, until
// nobody starts or waits for it any more.
func killUntil(over <-chan struct{}, m cryptoki.Isolated) {
	for {
		m.Kill()
		select {
		case <-over:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// isolated returns the module if it is in a process of its own, or nil.
func (m *module) isolated() cryptoki.Isolated {
	isolated, _ := m.ctx.(cryptoki.Isolated)
	return isolated
}

// kill ends the process of its own that the module may have.
func (m *module) kill() {
	if isolated := m.isolated(); isolated != nil {
		isolated.Kill()
	}
}
