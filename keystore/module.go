package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// Modules loads PKCS#11 modules into the process, each once however many
// tokens use it. Its zero value is ready; a process has one.
type Modules struct {
	// Command starts this program as the process of a module, see Options.Isolated
	// and ModuleProcess. The name of the token becomes its last argument. Nil: no
	// module can be isolated.
	Command []string
	// RefusedPINs is the path of the file in which to remember the PINs that tokens
	// have refused; empty: they are not.
	RefusedPINs string
	// Scope, unless empty, confines everything to token objects whose labels begin
	// with it, in the token; here their labels are told without it. What else the
	// tokens hold is not seen, not used and not changed. See Token.Purge.
	Scope string

	mu    sync.Mutex               // held by nobody who calls a module, since that may hang
	open  map[string]*module       // by resolved path; guarded by mu
	turns map[string]chan struct{} // by resolved path: capacity 1, see takeTurn; guarded by mu

	left leftBehind
}

// module is one loaded PKCS#11 library.
type module struct {
	ctx  cryptoki.Module
	path string
	// parameters is what C_Initialize was given in its reserved argument.
	parameters string

	refs int  // guarded by Modules.mu
	ours bool // we initialized it, so we finalize it

	users  map[*Token]bool // open tokens; guarded by Modules.mu
	calls  sync.RWMutex    // held for reading by who calls the module, for writing by Modules.reset
	resets atomic.Uint64
	// stopped is there while the module is about to be finalized though tokens of it
	// serve, and then closed, see stopCalls.
	stopped atomic.Pointer[chan struct{}]

	handles handles

	gatesMu sync.Mutex
	gates   map[uint]gate // by slot; guarded by gatesMu
}

// resolveModule returns the path of a library without symbolic links.
func resolveModule(path string) (string, error) {
	if path == "" {
		return "", errors.New("the PKCS#11 URI names no module: add ?module-path=/path/to/module.so")
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find the PKCS#11 module: %w", err)
	}
	return resolved, nil
}

// takeTurn waits until nobody else loads or unloads the module at a resolved path,
// at most until the end of ctx; the caller gives the turn back. It is one for each
// module: the others must not wait where one hangs in C_Initialize or C_Finalize.
func (ms *Modules) takeTurn(ctx context.Context, path string) (giveBack func(), err error) {
	ms.mu.Lock()
	turn := ms.turns[path]
	if turn == nil {
		turn = make(chan struct{}, 1)
		if ms.turns == nil {
			ms.turns = map[string]chan struct{}{}
		}
		ms.turns[path] = turn
	}
	ms.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the PKCS#11 module %s is still being loaded or unloaded: %w", path, ctx.Err())
	}
}

// use returns the module at a resolved path if it is open, for one more user.
func (ms *Modules) use(path string) *module {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.open[path]
	if m != nil {
		m.refs++
	}
	return m
}

// acquire returns the module at path, loading and initializing it with parameters the
// first time. Each acquire is undone by one release.
func (ms *Modules) acquire(ctx context.Context, path, parameters string) (*module, error) {
	resolved, err := resolveModule(path)
	if err != nil {
		return nil, err
	}
	giveBack, err := ms.takeTurn(ctx, resolved)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	if m := ms.use(resolved); m != nil && m.parameters != parameters {
		ms.drop(m)
		return nil, fmt.Errorf("the PKCS#11 module %s is initialized with other module parameters already: tokens of one module have the same", resolved)
	} else if m != nil {
		return m, nil
	}
	library, err := cryptoki.Load(resolved, parameters)
	if err != nil {
		return nil, err
	}
	library = ms.confine(library)
	m := &module{ctx: library, path: resolved, parameters: parameters, refs: 1, ours: true}
	// The module may be initialized already by crypto11, which serves the
	// listener's key pair and insists on going first; it then also finalizes.
	if err := library.Initialize(); isCode(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		m.ours = false
	} else if err != nil {
		library.Destroy()
		return nil, fmt.Errorf("initialize the PKCS#11 module %s: %w", resolved, err)
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.open == nil {
		ms.open = map[string]*module{}
	}
	ms.open[resolved] = m
	return m, nil
}

// acquireToken acquires the module that u names and finds the token there. A
// module that hangs does not keep it beyond the end of ctx: what was acquired by
// then is given up when the module returns, and the attempt left behind until then.
func (ms *Modules) acquireToken(ctx context.Context, o *Options, a *attempt) (*module, TokenInfo, error) {
	u := o.URI
	type result struct {
		m    *module
		info TokenInfo
		err  error
	}
	results, returned := make(chan result), make(chan struct{})
	go func() {
		defer close(returned)
		m, err := ms.acquireFor(ctx, o)
		var info TokenInfo
		if err == nil {
			defer context.AfterFunc(ctx, m.kill)()
			m.calls.RLock()
			info, err = m.find(u)
			m.calls.RUnlock()
			if err != nil {
				err = errors.Join(err, ms.release(m))
			}
		}
		select {
		case results <- result{m, info, err}:
		case <-ctx.Done():
			if err == nil {
				_ = ms.release(m) // nobody is left to be told
			}
		}
	}()
	select {
	case r := <-results:
		return r.m, r.info, r.err
	case <-ctx.Done():
		a.leave(func() bool { return false })
		go func() {
			<-returned
			a.returned()
		}()
		return nil, TokenInfo{}, fmt.Errorf("%s did not answer in time: %w", u.ModulePath, ctx.Err())
	}
}

// acquireFor acquires the module of a token.
func (ms *Modules) acquireFor(ctx context.Context, o *Options) (*module, error) {
	if o.Isolated {
		return ms.isolate(ctx, o)
	}
	return ms.acquire(ctx, o.URI.ModulePath, o.URI.ModuleParameters)
}

// release gives up one acquire; the last one finalizes and unloads.
func (ms *Modules) release(m *module) error {
	if m.isolated() != nil {
		return m.finish() // it is nobody else's, and may hang
	}
	giveBack, err := ms.takeTurn(context.Background(), m.path)
	if err != nil {
		return err
	}
	defer giveBack()
	if !ms.drop(m) {
		return nil
	}
	return m.finish()
}

// drop takes a user from a module, and reports whether it was the last.
func (ms *Modules) drop(m *module) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return false
	}
	delete(ms.open, m.path)
	return true
}

// finish finalizes and unloads the module.
func (m *module) finish() error {
	var err error
	if m.ours {
		err = m.ctx.Finalize()
	}
	m.ctx.Destroy()
	if err != nil && !isModuleGone(err) { // gone it is if it failed to start anew
		return fmt.Errorf("finalize the PKCS#11 module %s: %w", m.path, err)
	}
	return nil
}

// enlist and dismiss tell the module which tokens are open, see reset.
func (ms *Modules) enlist(m *module, t *Token) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.users == nil {
		m.users = map[*Token]bool{}
	}
	m.users[t] = true
}

func (ms *Modules) dismiss(m *module, t *Token) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	delete(m.users, t)
}

// loaded reports whether the module at path is in use.
func (ms *Modules) loaded(path string) bool {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	_, ok := ms.open[resolved]
	return ok
}

// TokenInfo describes a token or an empty slot that a module shows.
type TokenInfo struct {
	Slot         uint   `json:"slotId"`
	Label        string `json:"label"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
	Hardware     string `json:"hardwareVersion"`
	Firmware     string `json:"firmwareVersion"`
	Initialized  bool   `json:"initialized"`
	PINSet       bool   `json:"userPinSet"`
	PINLocked    bool   `json:"userPinLocked"`
	MaxSessions  uint   `json:"maxSessions"` // 0: the token does not say or has no limit

	flags          uint
	minPIN, maxPIN uint // in bytes
}

// loginRequired reports whether the token wants a login.
func (i TokenInfo) loginRequired() bool { return i.flags&pkcs11.CKF_LOGIN_REQUIRED != 0 }

// Tokens lists the tokens that the module at path shows, which is initialized with
// parameters (see URI.ModuleParameters). Of tokens that do not describe themselves the
// error tells; the others are listed all the same.
func (ms *Modules) Tokens(path, parameters string) ([]TokenInfo, error) {
	m, err := ms.acquire(context.Background(), path, parameters)
	if err != nil {
		return nil, err
	}
	m.calls.RLock()
	infos, err := m.tokens()
	m.calls.RUnlock()
	return infos, errors.Join(err, ms.release(m))
}

// tokens returns the tokens that describe themselves, and of the others an error.
// One that was half made, or is sick, is not in the way of the others. The caller
// holds calls for reading.
func (m *module) tokens() ([]TokenInfo, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("list the slots of %s: %w", m.path, err)
	}
	infos := make([]TokenInfo, 0, len(slots))
	var errs []error
	for _, slot := range slots {
		ti, err := m.ctx.GetTokenInfo(slot)
		if isCode(err, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_DEVICE_REMOVED) {
			continue // it went away between the two calls, or is none of ours
		} else if err != nil {
			errs = append(errs, fmt.Errorf("describe the token in slot %d of %s: %w", slot, m.path, err))
			continue
		}
		infos = append(infos, tokenInfo(slot, ti))
	}
	return infos, errors.Join(errs...)
}

// mostSessions is more than any token has. What tells more (opencryptoki 2^64-2,
// others CK_UNAVAILABLE_INFORMATION) means none in particular.
const mostSessions = 1 << 20

func tokenInfo(slot uint, ti pkcs11.TokenInfo) TokenInfo {
	initialized := ti.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0
	limit := ti.MaxSessionCount
	if limit > mostSessions {
		limit = 0
	}
	return TokenInfo{
		Slot:         slot,
		Label:        trim(ti.Label),
		Manufacturer: trim(ti.ManufacturerID),
		Model:        trim(ti.Model),
		Serial:       trim(ti.SerialNumber),
		Hardware:     fmt.Sprintf("%d.%d", ti.HardwareVersion.Major, ti.HardwareVersion.Minor),
		Firmware:     fmt.Sprintf("%d.%d", ti.FirmwareVersion.Major, ti.FirmwareVersion.Minor),
		Initialized:  initialized,
		PINSet:       ti.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0,
		PINLocked:    initialized && ti.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0, // SoftHSM2 says so of empty ones
		MaxSessions:  limit,
		flags:        ti.Flags,
		minPIN:       ti.MinPinLen,
		maxPIN:       ti.MaxPinLen,
	}
}

// trim removes the padding of PKCS#11's fixed-length texts.
func trim(s string) string { return strings.TrimRight(s, " \x00") }

// find returns the one token that the URI names.
func (m *module) find(u URI) (TokenInfo, error) {
	infos, err := m.tokens()
	var found []TokenInfo
	for _, ti := range infos {
		if u.Matches(ti) {
			found = append(found, ti)
		}
	}
	switch len(found) {
	case 0:
		if err != nil {
			return TokenInfo{}, err // it may be the one
		}
		return TokenInfo{}, fmt.Errorf("%w: %s shows no token that matches %s", ErrTokenNotFound, m.path, u)
	case 1:
		return found[0], nil
	}
	return TokenInfo{}, fmt.Errorf("%d tokens of %s match %s: add serial= to name one", len(found), m.path, u)
}

// Matches reports whether ti is initialized and the URI's token attributes fit,
// RFC 7512 section 2.5. The module is not looked at.
func (u URI) Matches(ti TokenInfo) bool {
	fits := func(want, have string) bool { return want == "" || want == have }
	return ti.Initialized && (u.SlotID == nil || *u.SlotID == ti.Slot) &&
		fits(u.Token, ti.Label) && fits(u.Serial, ti.Serial) &&
		fits(u.Manufacturer, ti.Manufacturer) && fits(u.Model, ti.Model)
}

// InitToken initializes the first uninitialized token of the module at path, itself
// initialized with parameters,
// with a label (1 to 32 bytes) and both PINs, and returns its description.
// Tokens that are initialized already are left alone; one of the same label is
// an error, unless it has no user PIN yet, as after a kill in InitToken: with the
// right soPIN that is set.
func (ms *Modules) InitToken(path, parameters, label, soPIN, userPIN string) (info TokenInfo, err error) {
	if label == "" || len(label) > 32 {
		return info, fmt.Errorf("token label has %d bytes: it must have 1 to 32", len(label))
	}
	m, err := ms.acquire(context.Background(), path, parameters)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, ms.release(m)) }()
	m.calls.RLock()
	defer m.calls.RUnlock()
	infos, err := m.tokens()
	empty := -1
	for i, ti := range infos {
		switch {
		case ti.Initialized && ti.Label == label && !ti.PINSet:
			return m.finishToken(ti, label, soPIN, userPIN)
		case ti.Initialized && ti.Label == label:
			return info, fmt.Errorf("a token labelled %s is there already, with serial %s", printable(label), ti.Serial)
		case !ti.Initialized && empty < 0:
			empty = i
		}
	}
	if empty < 0 {
		return info, errors.Join(fmt.Errorf("%s shows no uninitialized token", path), err)
	}
	if err := m.initSlot(infos[empty], label, soPIN, userPIN); err != nil {
		return info, err
	}
	return m.find(URI{Token: label})
}

// finishToken sets the user PIN of a token of the label that has none yet.
func (m *module) finishToken(ti TokenInfo, label, soPIN, userPIN string) (TokenInfo, error) {
	err := ti.permitInit(soPIN, userPIN)
	if err == nil {
		err = m.initPIN(ti.Slot, soPIN, userPIN)
	}
	if isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID) {
		err = fmt.Errorf("a token labelled %s is there already, without a user PIN and with another security officer's PIN (%w). If a process was killed while it made this token, "+
			"nothing was ever done with it: delete it ('softhsm2-util --delete-token --serial %s') and try again", printable(label), err, ti.Serial)
	}
	if err != nil {
		return TokenInfo{}, err
	}
	return m.find(URI{Token: label})
}

// permitInit returns an error if the token cannot be initialized with the PINs, or
// should not be asked to.
func (i TokenInfo) permitInit(soPIN, userPIN string) error {
	if err := i.checkPINLength("security officer's PIN", soPIN); err != nil {
		return err
	}
	if err := i.checkPINLength("user PIN", userPIN); err != nil {
		return err
	}
	if err := i.permitOfficer(); err != nil {
		return fmt.Errorf("initialize the token in slot %d: %w", i.Slot, err)
	}
	return nil
}

// initSlot initializes a token and sets its user PIN. SoftHSM2 moves the token to
// another slot afterwards.
func (m *module) initSlot(ti TokenInfo, label, soPIN, userPIN string) (err error) {
	if err := ti.permitInit(soPIN, userPIN); err != nil {
		return err
	}
	err = m.ctx.InitToken(ti.Slot, soPIN, label)
	if why := pinRefusal(err); why != nil {
		return fmt.Errorf("the token in slot %d does not take the security officer's PIN: %w: one that was initialized before, or is as it came from its maker, "+
			"wants the PIN that it has (opencryptoki's is 87654321 at first); nothing was changed", ti.Slot, why)
	} else if err != nil {
		return fmt.Errorf("initialize the token in slot %d: %w", ti.Slot, err)
	}
	return m.initPIN(ti.Slot, soPIN, userPIN)
}

// initPIN sets the user PIN of the token in a slot.
func (m *module) initPIN(slot uint, soPIN, userPIN string) (err error) {
	s, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("open a session with the new token: %w", err)
	}
	defer func() { err = errors.Join(err, m.ctx.CloseSession(s)) }()
	if _, err := m.ctx.Login(s, pkcs11.CKU_SO, func() (string, error) { return soPIN, nil }, nil); err != nil {
		return fmt.Errorf("log in to the new token as its security officer: %w", cmp.Or(pinRefusal(err), err))
	}
	if err := m.ctx.InitPIN(s, userPIN); err != nil {
		return fmt.Errorf("set the user PIN of the new token: %w", err)
	}
	if err := m.ctx.Logout(s); err != nil {
		return fmt.Errorf("log out of the new token: %w", err)
	}
	return nil
}
