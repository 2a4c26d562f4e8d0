package cryptoki

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/miekg/pkcs11"
)

// server is the child's side of one module.
type server struct {
	module  Module
	readPIN PIN // nil: the PIN comes with each login

	mu  sync.Mutex // guards out and what is written
	out encoder
	to  io.Writer
}

// Serve loads the module that the first request names and serves calls until the
// connection ends, however many of them still hang then: the caller ends the
// process. readPIN reads a PIN as the parent has described it, "" for none.
func Serve(conn io.ReadWriter, readPIN func(source string) PIN) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	s := &server{to: conn}
	var buf []byte
	for first := true; ; first = false {
		frame, err := readFrame(in, buf)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		d := decoder{buf: frame}
		r, err := d.request()
		clear(frame) // it may hold plaintext
		buf = frame
		if err != nil || first != (r.op == opLoad) {
			return errFrame
		}
		if !first {
			go s.handle(&r)
			continue
		}
		if r.more != "" {
			s.readPIN = readPIN(r.more)
		}
		s.module, err = Load(r.text)
		reply := &answer{id: r.id}
		reply.setErr(err)
		s.send(reply)
		if err != nil {
			return err
		}
	}
}

func (s *server) handle(r *request) {
	reply := &answer{id: r.id}
	reply.setErr(s.call(r, reply))
	clear(r.data)
	s.send(reply)
	clear(reply.data)
}

func (s *server) send(reply *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.out.wipe()
	s.out.begin()
	s.out.answer(reply)
	frame, err := s.out.frame()
	if err != nil {
		short := &answer{id: reply.id}
		short.setErr(err)
		s.out.begin()
		s.out.answer(short)
		frame, _ = s.out.frame() // a short one
	}
	_, _ = s.to.Write(frame) // that the parent is gone, the reader learns too
}

// call calls the method that the request is for.
func (s *server) call(r *request, out *answer) (err error) {
	m, session := s.module, r.session
	var object Object
	switch r.op {
	case opInitialize:
		return m.Initialize()
	case opFinalize:
		return m.Finalize()
	case opGetSlotList:
		slots, err := m.GetSlotList(r.a != 0)
		for _, slot := range slots {
			out.list = append(out.list, uint64(slot))
		}
		return err
	case opGetTokenInfo:
		out.token, err = m.GetTokenInfo(uint(r.a))
		return err
	case opInitToken:
		return m.InitToken(uint(r.a), r.text, r.more)
	case opInitPIN:
		return m.InitPIN(session, r.text)
	case opOpenSession:
		opened, err := m.OpenSession(uint(r.a), uint(r.b))
		out.a = uint64(opened)
		return err
	case opCloseSession:
		return m.CloseSession(session)
	case opGetSessionInfo:
		info, err := m.GetSessionInfo(session)
		out.a = uint64(info.State)
		return err
	case opLogin:
		return m.Login(session, uint(r.a), s.pin(r))
	case opLogout:
		return m.Logout(session)
	case opFindObjects:
		found, err := m.FindObjects(session, r.one)
		for _, o := range found {
			out.list = append(out.list, uint64(o))
		}
		return err
	case opGetAttributeValue:
		out.template, err = m.GetAttributeValue(session, Object(r.a), r.one)
		return err
	case opSetAttributeValue:
		return m.SetAttributeValue(session, Object(r.a), r.one)
	case opCreateObject:
		object, err = m.CreateObject(session, r.one)
	case opCopyObject:
		object, err = m.CopyObject(session, Object(r.a), r.one)
	case opDestroyObject:
		return m.DestroyObject(session, Object(r.a))
	case opGenerateKey:
		object, err = m.GenerateKey(session, r.mechanism, r.one)
	case opGenerateKeyPair:
		public, private, err := m.GenerateKeyPair(session, r.mechanism, r.one, r.two)
		out.a, out.b = uint64(public), uint64(private)
		return err
	case opGenerateRandom:
		out.data, err = m.GenerateRandom(session, int(r.a))
	case opWrapKey:
		out.data, err = m.WrapKey(session, r.mechanism, Object(r.a), Object(r.b))
	case opUnwrapKey:
		object, err = m.UnwrapKey(session, r.mechanism, Object(r.a), r.data, r.one)
	case opDeriveKey:
		object, err = m.DeriveKey(session, r.mechanism, Object(r.a), r.one)
	case opEncrypt:
		out.data, out.iv, err = m.Encrypt(session, r.mechanism, Object(r.a), r.data)
	case opDecrypt:
		out.data, err = m.Decrypt(session, r.mechanism, Object(r.a), r.data)
	case opSign:
		out.data, err = m.Sign(session, r.mechanism, Object(r.a), r.data)
	default:
		return pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
	}
	out.a = uint64(object)
	return err
}

// pin returns what reads the PIN of a login.
func (s *server) pin(r *request) PIN {
	if s.readPIN != nil && r.b == 0 {
		return s.readPIN
	}
	return func() (string, error) { return r.text, nil }
}
