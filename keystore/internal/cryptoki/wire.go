package cryptoki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
)

// The two processes speak in frames: four bytes of length, big-endian, and then the
// members of a request or an answer in a fixed order, numbers as unsigned varints,
// byte strings with their length before them. Both ends are of one program, so there
// are no versions. What comes from the child is checked all the same: its memory is
// a vendor's library's too.

// maxFrame bounds a frame: the handles of some 400,000 objects fit.
const maxFrame = 4 << 20

var errFrame = errors.New("malformed frame")

// operation says which method of Module a request is for.
type operation uint64

const (
	opLoad operation = iota // text: path of the module, more: how to read the PIN
	opInitialize
	opFinalize
	opGetSlotList
	opGetTokenInfo
	opInitToken
	opInitPIN
	opOpenSession
	opCloseSession
	opGetSessionInfo
	opLogin
	opLogout
	opFindObjects
	opGetAttributeValue
	opSetAttributeValue
	opCreateObject
	opCopyObject
	opDestroyObject
	opGenerateKey
	opGenerateKeyPair
	opGenerateRandom
	opWrapKey
	opUnwrapKey
	opDeriveKey
	opEncrypt
	opDecrypt
	opSign
)

// request is a call of any method.
type request struct {
	id         uint64
	op         operation
	session    Session
	a, b       uint64 // slot, flags, handles, numbers
	text, more string
	data       []byte
	mechanism  Mechanism
	one, two   Template
}

// answer is what any method returned.
type answer struct {
	id       uint64
	code     uint64 // a CK_RV; 0: the call succeeded, if text is empty too
	call     string // function that answered code, where the method has several
	text     string // of an error that is no CK_RV
	a, b     uint64
	list     []uint64
	data, iv []byte
	template Template
	token    pkcs11.TokenInfo // as far as hyok needs it
}

// err returns the error that the method returned.
func (r *answer) err() error {
	var err error
	switch {
	case r.code != 0:
		err = pkcs11.Error(r.code)
	case r.text != "":
		return errors.New(r.text)
	default:
		return nil
	}
	if r.call != "" {
		return &CallError{Call: r.call, Err: err}
	}
	return err
}

// setErr notes the error that the method returned.
func (r *answer) setErr(err error) {
	var part *CallError
	var code pkcs11.Error
	switch {
	case err == nil:
	case errors.As(err, &code) && code != 0:
		r.code = uint64(code)
		if errors.As(err, &part) {
			r.call = part.Call
		}
	default:
		r.text = err.Error()
	}
}

// encoder appends to a frame.
type encoder struct{ buf []byte }

func (e *encoder) uint(n uint64)  { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) bytes(b []byte) { e.uint(uint64(len(b))); e.buf = append(e.buf, b...) }
func (e *encoder) text(s string)  { e.uint(uint64(len(s))); e.buf = append(e.buf, s...) }

// template tells an attribute without a value from one with an empty value.
func (e *encoder) template(t Template) {
	e.uint(uint64(len(t)))
	for _, a := range t {
		e.uint(uint64(a.Type))
		e.bytes(a.Value)
	}
}

func (e *encoder) mechanism(m Mechanism) {
	e.uint(uint64(m.Type))
	switch {
	case m.GCM != nil:
		e.uint(1)
		e.bytes(m.GCM.IV)
		e.bytes(m.GCM.AAD)
	case m.OAEP != nil:
		e.uint(2)
		e.uint(uint64(m.OAEP.Hash))
		e.uint(uint64(m.OAEP.MGF))
	case m.PSS != nil:
		e.uint(3)
		e.uint(uint64(m.PSS.Hash))
		e.uint(uint64(m.PSS.MGF))
		e.uint(uint64(m.PSS.Salt))
	case m.ECDH != nil:
		e.uint(4)
		e.bytes(m.ECDH.Public)
	default:
		e.uint(0)
	}
}

func (e *encoder) request(r *request) {
	for _, n := range []uint64{r.id, uint64(r.op), uint64(r.session), r.a, r.b} {
		e.uint(n)
	}
	e.text(r.text)
	e.text(r.more)
	e.bytes(r.data)
	e.mechanism(r.mechanism)
	e.template(r.one)
	e.template(r.two)
}

func (e *encoder) answer(r *answer) {
	e.uint(r.id)
	e.uint(r.code)
	e.text(r.call)
	e.text(r.text)
	e.uint(r.a)
	e.uint(r.b)
	e.uint(uint64(len(r.list)))
	for _, n := range r.list {
		e.uint(n)
	}
	e.bytes(r.data)
	e.bytes(r.iv)
	e.template(r.template)
	i := &r.token
	for _, s := range []string{i.Label, i.ManufacturerID, i.Model, i.SerialNumber} {
		e.text(s)
	}
	for _, n := range []uint64{
		uint64(i.Flags), uint64(i.MaxSessionCount), uint64(i.HardwareVersion.Major), uint64(i.HardwareVersion.Minor),
		uint64(i.FirmwareVersion.Major), uint64(i.FirmwareVersion.Minor),
	} {
		e.uint(n)
	}
}

// begin and frame surround what is appended.
func (e *encoder) begin() { e.buf = append(e.buf[:0], 0, 0, 0, 0) }

func (e *encoder) frame() ([]byte, error) {
	if len(e.buf)-4 > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes is too long for the process of a module", len(e.buf))
	}
	binary.BigEndian.PutUint32(e.buf, uint32(len(e.buf)-4))
	return e.buf, nil
}

// wipe overwrites what may be secret.
func (e *encoder) wipe() {
	clear(e.buf)
	if cap(e.buf) > 64<<10 {
		e.buf = nil
	}
}

// decoder reads the members of a frame. After an error all are zero.
type decoder struct {
	buf []byte
	err error
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.buf)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[size:]
	return n
}

func (d *decoder) fail() { d.err, d.buf = errFrame, nil }

// count reads a number of things that take a byte at least each.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes returns a copy: the frame is wiped.
func (d *decoder) bytes() []byte {
	n := d.count()
	if n == 0 {
		return nil
	}
	out := append([]byte(nil), d.buf[:n]...)
	d.buf = d.buf[n:]
	return out
}

func (d *decoder) text() string { return string(d.bytes()) }

func (d *decoder) template() Template {
	n := d.count()
	if n == 0 {
		return nil
	}
	t := make(Template, 0, min(n, 64))
	for range n {
		a := &pkcs11.Attribute{Type: uint(d.uint()), Value: d.bytes()}
		if d.err != nil {
			return nil
		}
		t = append(t, a)
	}
	return t
}

func (d *decoder) mechanism() Mechanism {
	m := Mechanism{Type: uint(d.uint())}
	switch d.uint() {
	case 0:
	case 1:
		m.GCM = &GCM{IV: d.bytes(), AAD: d.bytes()}
	case 2:
		m.OAEP = &OAEP{Hash: uint(d.uint()), MGF: uint(d.uint())}
	case 3:
		m.PSS = &PSS{Hash: uint(d.uint()), MGF: uint(d.uint()), Salt: uint(d.uint())}
	case 4:
		m.ECDH = &ECDH{Public: d.bytes()}
	default:
		d.fail()
	}
	return m
}

func (d *decoder) request() (r request, err error) {
	r.id, r.op, r.session, r.a, r.b = d.uint(), operation(d.uint()), Session(d.uint()), d.uint(), d.uint()
	r.text, r.more, r.data, r.mechanism = d.text(), d.text(), d.bytes(), d.mechanism()
	r.one, r.two = d.template(), d.template()
	return r, d.end()
}

func (d *decoder) answer() (r answer, err error) {
	r.id, r.code, r.call, r.text, r.a, r.b = d.uint(), d.uint(), d.text(), d.text(), d.uint(), d.uint()
	for range d.count() {
		r.list = append(r.list, d.uint())
	}
	r.data, r.iv, r.template = d.bytes(), d.bytes(), d.template()
	i := &r.token
	i.Label, i.ManufacturerID, i.Model, i.SerialNumber = d.text(), d.text(), d.text(), d.text()
	i.Flags, i.MaxSessionCount = uint(d.uint()), uint(d.uint())
	i.HardwareVersion = pkcs11.Version{Major: byte(d.uint()), Minor: byte(d.uint())}
	i.FirmwareVersion = pkcs11.Version{Major: byte(d.uint()), Minor: byte(d.uint())}
	return r, d.end()
}

func (d *decoder) end() error {
	if d.err == nil && len(d.buf) != 0 {
		d.fail()
	}
	return d.err
}

// readFrame reads a frame into buf, which it returns grown to what was needed.
func readFrame(from io.Reader, buf []byte) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return buf[:0], err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n > maxFrame {
		return buf[:0], errFrame
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(from, buf[:n])
	return buf[:n], err
}
