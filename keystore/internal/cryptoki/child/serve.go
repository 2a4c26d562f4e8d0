package child

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// controlSocket is where a child finds its end of the first pair.
const controlSocket = 3

// Serve serves the module that the parent names to it, until the parent closes its
// end of the pair or is gone: then it ends the process at once, whatever hangs in
// the module. readPIN reads the PIN from where the parent says that it is. Serve
// returns an error if the process was not started by a Client.
func Serve(readPIN func(source string) (string, error)) error {
	if err := prepare(); err != nil {
		return fmt.Errorf("serve a PKCS#11 module to the process that started this one: %w", err)
	}
	s := &server{readPIN: readPIN}
	for {
		l, err := acceptLine()
		if err != nil {
			os.Exit(0) // the parent is gone
		}
		go s.serve(l)
	}
}

// server is the state of a child.
type server struct {
	readPIN func(source string) (string, error)
	module  atomic.Pointer[loaded]
}

// loaded is a module and where the PIN for it is.
type loaded struct {
	cryptoki.Module
	pinSource string
}

// serve does what the parent asks on a line, until it closes it.
func (s *server) serve(l *line) {
	defer func() { _ = l.conn.Close() }()
	for {
		message, err := l.receive()
		if err != nil {
			return
		}
		q, err := parseRequest(message)
		if err != nil {
			return // on which the parent ends this process
		}
		var r reply
		r.failed = newFailure(s.do(&q, &r))
		l.begin()
		l.out = r.appendTo(l.out)
		r.wipe()
		if len(l.out) > lengthSize+maxMessage {
			l.begin()
			large := reply{failed: failure{kind: otherwise, text: "what the module answered is too large"}}
			l.out = large.appendTo(l.out)
		}
		err = l.send()
		l.wipe()
		if err != nil {
			return
		}
	}
}

// wipe wipes what the module returned.
func (r *reply) wipe() {
	clear(r.out)
	for _, a := range r.template {
		clear(a.Value)
	}
}

// load loads the module that the parent names first of all.
func (s *server) load(q *request) error {
	if s.module.Load() != nil {
		return errors.New("the module is loaded already")
	}
	path, parameters, _ := strings.Cut(string(q.data), "\x00")
	m, err := cryptoki.Load(path, parameters)
	if err != nil {
		return err
	}
	s.module.Store(&loaded{m, string(q.text)})
	return nil
}

// do calls the method that q names.
func (s *server) do(q *request, r *reply) error {
	if q.op == opLoad {
		return s.load(q)
	}
	m := s.module.Load()
	if m == nil {
		// While the process starts anew, as a module says that is not initialized yet.
		return pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	switch q.op {
	case opInitialize:
		return m.Initialize()
	case opFinalize:
		return m.Finalize()
	case opGetSlotList:
		slots, err := m.GetSlotList(q.numbers[0] != 0)
		r.numbers = slots
		return err
	case opGetTokenInfo:
		info, err := m.GetTokenInfo(q.numbers[0])
		r.setTokenInfo(&info)
		return err
	case opGetMechanismList:
		types, err := m.GetMechanismList(q.numbers[0])
		r.numbers = types
		return err
	case opGetMechanismInfo:
		info, err := m.GetMechanismInfo(q.numbers[0], q.numbers[1])
		r.numbers = []uint{info.MinKeySize, info.MaxKeySize, info.Flags}
		return err
	case opInitToken:
		return m.InitToken(q.numbers[0], string(q.data), string(q.text))
	case opDigestPIN:
		return r.bytes(m.DigestPIN(func() (string, error) { return s.readPIN(m.pinSource) }, q.text))
	case opOpenSession:
		return r.one(m.OpenSession(q.numbers[0], q.numbers[1]))
	default:
		return s.doInSession(m, q, r)
	}
}

// doInSession calls a method whose first argument is a session.
func (s *server) doInSession(m *loaded, q *request, r *reply) error {
	session := cryptoki.Session(q.numbers[0])
	switch q.op {
	case opInitPIN:
		return m.InitPIN(session, string(q.data))
	case opCloseSession:
		return m.CloseSession(session)
	case opGetSessionInfo:
		info, err := m.GetSessionInfo(session)
		r.numbers = []uint{info.SlotID, info.State, info.Flags, info.DeviceError}
		return err
	case opLogin:
		return r.login(m.Login(session, q.numbers[1], func() (string, error) { return string(q.data), nil }, q.text))
	case opLoginByChild:
		return r.login(m.Login(session, q.numbers[1], func() (string, error) { return s.readPIN(m.pinSource) }, q.text))
	case opLogout:
		return m.Logout(session)
	case opGenerateRandom:
		return r.bytes(m.GenerateRandom(session, int(q.numbers[1])))
	case opFindObjects:
		found, err := m.FindObjects(session, q.template)
		r.numbers = make([]uint, len(found))
		for i, o := range found {
			r.numbers[i] = uint(o)
		}
		return err
	default:
		return doWithObject(m, session, q, r)
	}
}

// doWithObject calls a method that makes or uses objects.
func doWithObject(m cryptoki.Module, s cryptoki.Session, q *request, r *reply) (err error) {
	a, b := cryptoki.Object(q.numbers[1]), cryptoki.Object(q.numbers[2])
	switch q.op {
	case opGetAttributeValue:
		r.template, err = m.GetAttributeValue(s, a, q.template)
		return err
	case opSetAttributeValue:
		return m.SetAttributeValue(s, a, q.template)
	case opCreateObject:
		return r.object(m.CreateObject(s, q.template))
	case opCopyObject:
		return r.object(m.CopyObject(s, a, q.template))
	case opDestroyObject:
		return m.DestroyObject(s, a)
	case opGenerateKey:
		return r.object(m.GenerateKey(s, q.mechanism, q.template))
	case opGenerateKeyPair:
		public, private, err := m.GenerateKeyPair(s, q.mechanism, q.template, q.private)
		r.numbers = []uint{uint(public), uint(private)}
		return err
	case opWrapKey:
		return r.bytes(m.WrapKey(s, q.mechanism, a, b))
	case opUnwrapKey:
		return r.object(m.UnwrapKey(s, q.mechanism, a, q.data, q.template))
	case opDeriveKey:
		return r.object(m.DeriveKey(s, q.mechanism, a, q.template))
	case opEncrypt:
		r.out, r.iv, err = m.Encrypt(s, q.mechanism, a, q.data)
		return err
	case opDecrypt:
		return r.bytes(m.Decrypt(s, q.mechanism, a, q.data))
	case opSign:
		return r.bytes(m.Sign(s, q.mechanism, a, q.data))
	default:
		return fmt.Errorf("there is no operation %d", q.op)
	}
}

func (r *reply) bytes(out []byte, err error) error {
	r.out = out
	return err
}

// login takes what Login returned.
func (r *reply) login(refused []byte, err error) error {
	var code pkcs11.Error
	if len(refused) == 0 || !errors.As(err, &code) {
		return err
	}
	r.numbers, r.out = []uint{uint(code)}, refused
	return nil
}

func (r *reply) object(o cryptoki.Object, err error) error {
	r.numbers = []uint{uint(o)}
	return err
}

func (r *reply) one(s cryptoki.Session, err error) error {
	r.numbers = []uint{uint(s)}
	return err
}

// setTokenInfo and tokenInfo are the two directions of CK_TOKEN_INFO.
func (r *reply) setTokenInfo(i *pkcs11.TokenInfo) {
	r.texts = []string{i.Label, i.ManufacturerID, i.Model, i.SerialNumber, i.UTCTime}
	r.numbers = []uint{
		i.Flags, i.MaxSessionCount, i.SessionCount, i.MaxRwSessionCount, i.RwSessionCount, i.MaxPinLen, i.MinPinLen,
		i.TotalPublicMemory, i.FreePublicMemory, i.TotalPrivateMemory, i.FreePrivateMemory,
		uint(i.HardwareVersion.Major), uint(i.HardwareVersion.Minor), uint(i.FirmwareVersion.Major), uint(i.FirmwareVersion.Minor),
	}
}

func (r *reply) tokenInfo() (pkcs11.TokenInfo, error) {
	if len(r.texts) != 5 || len(r.numbers) != 15 {
		return pkcs11.TokenInfo{}, errMalformed
	}
	t, n := r.texts, r.numbers
	return pkcs11.TokenInfo{
		Label: t[0], ManufacturerID: t[1], Model: t[2], SerialNumber: t[3], UTCTime: t[4],
		Flags: n[0], MaxSessionCount: n[1], SessionCount: n[2], MaxRwSessionCount: n[3], RwSessionCount: n[4], MaxPinLen: n[5], MinPinLen: n[6],
		TotalPublicMemory: n[7], FreePublicMemory: n[8], TotalPrivateMemory: n[9], FreePrivateMemory: n[10],
		HardwareVersion: pkcs11.Version{Major: byte(n[11]), Minor: byte(n[12])},
		FirmwareVersion: pkcs11.Version{Major: byte(n[13]), Minor: byte(n[14])},
	}, nil
}
